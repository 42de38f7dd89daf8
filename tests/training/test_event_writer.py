"""TensorBoard's curves: written, and done without where they cannot be."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import numpy as np
import pytest
from ignite.engine import Engine, Events
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from scripts.training.event_writer import EventWriter, EventWriterHandler


def test_curves_are_written(tmp_path: Path) -> None:
    writer = EventWriter(str(tmp_path))
    for step in (1, 2):
        writer.add_scalar("loss", 1 / step, step)
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 0.5)]


@pytest.mark.parametrize(("resumed_at", "shown"), [(2, [(1, 1.0), (2, 0.5), (3, 7.0)]), (0, [(1, 7.0)])])
def test_iterations_that_come_once_more_hide_the_earlier_ones(
    resumed_at: int, shown: list[tuple[int, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted training whose last checkpoint is older than its last iteration, and a new training."""
    interrupted = EventWriter(str(tmp_path))
    for step in (1, 2, 3, 4):
        interrupted.add_scalar("loss", 1 / step, step)
    interrupted.close()
    later = time.time() + 1  # the second in which a file was made is its name
    monkeypatch.setattr("time.time", lambda: later)
    trainer = Engine(lambda engine, batch: None)
    trainer.state.iteration = resumed_at
    resumed = EventWriter(str(tmp_path))
    EventWriterHandler(resumed).attach(trainer)
    trainer.fire_event(Events.STARTED)
    resumed.add_scalar("loss", 7.0, resumed_at + 1)
    trainer.fire_event(Events.COMPLETED)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == shown


def test_a_disk_that_is_full_later_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = EventWriter(str(tmp_path))
    monkeypatch.setattr(EventFileWriter, "add_event", full)
    writer.add_scalar("loss", 1.0, 1)
    writer.add_image("picture", np.zeros((2, 2, 3), np.uint8), 1, dataformats="HWC")
    writer.flush()
    writer.close()
    assert caplog.messages == ["the run goes on without TensorBoard: [Errno 28] No space left on device"]


def test_a_folder_that_cannot_be_made_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    writer = EventWriter(str(tmp_path / "file" / "tensorboard"))
    writer.hide_earlier(1)
    writer.add_scalar("loss", 1.0, 1)
    writer.close()
    assert len(caplog.messages) == 1
    assert "the run goes on without TensorBoard" in caplog.messages[0]


def test_a_folder_whose_name_is_no_text_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = EventWriter(str(tmp_path / b"zelle_\xe4".decode(errors="surrogateescape")))
    writer.hide_earlier(1)
    writer.add_scalar("loss", 1.0, 1)
    writer.close()
    assert len(caplog.messages) == 1
    assert "the run goes on without TensorBoard" in caplog.messages[0]
