"""How far the whole training is: a bar on a terminal, one line an epoch in a log."""

from __future__ import annotations

import io
import logging
import re

import pytest
from ignite.engine import Engine, Events

from scripts.training.progress import TrainingProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, in a list of one; stands still unless told."""
    seconds = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: seconds[0])
    return seconds


def train(seconds: list[float], resumed_after: int = 0) -> None:
    """4 epochs of 5 iterations, each of 3 seconds."""

    def step(engine: Engine, batch: object) -> None:
        seconds[0] += 3

    engine = Engine(step)
    TrainingProgress().attach(engine)

    @engine.on(Events.STARTED)
    def resume(engine: Engine) -> None:
        engine.state.epoch, engine.state.iteration = resumed_after, 5 * resumed_after

    engine.run(range(5), max_epochs=4)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "scripts.training.progress"]


class TestInALog:
    @pytest.fixture(autouse=True)
    def _listen(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, logger="scripts.training.progress")

    def test_one_line_an_epoch_with_the_time_left_for_the_whole_training(
        self, clock: list[float], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = io.StringIO()
        monkeypatch.setattr("sys.stderr", log)
        train(clock)
        assert lines(caplog) == [
            "epoch 1 of 4, 00:45 left",
            "epoch 2 of 4, 00:30 left",
            "epoch 3 of 4, 00:15 left",
            "epoch 4 of 4, 00:00 left",
        ]
        assert log.getvalue() == ""

    def test_the_speed_of_a_resumed_training_is_that_since_it_goes_on(
        self, clock: list[float], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stderr", io.StringIO())
        train(clock, resumed_after=2)
        assert lines(caplog) == ["epoch 3 of 4, 00:15 left", "epoch 4 of 4, 00:00 left"]


def test_a_bar_on_a_terminal(
    clock: list[float], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    train(clock)
    assert lines(caplog) == []
    bars = re.findall(r"training: +(\d+)%\|.*?\| (\d+)/20 ", terminal.getvalue())
    assert bars[0] == ("0", "0")
    assert bars[-1] == ("100", "20")
