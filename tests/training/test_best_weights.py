"""The weights are those of the best validation; their bias tells which one that was."""

import errno
import os
from pathlib import Path

import pytest
import torch
from full_disk import room_for
from ignite.engine import Engine
from torch import nn

from scripts.files.whole_files import UnwritableFile
from scripts.metrics.instances import LESS_IS_BETTER
from scripts.network.checkpoints import read_settings
from scripts.training.best_weights import BestWeightsSaver


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.fixture
def network() -> nn.Linear:
    return nn.Linear(3, 2)


def make_saver(folder: Path, network: nn.Module) -> BestWeightsSaver:
    return BestWeightsSaver(str(folder), {"model.pt": network}, {"embedding_dim": 8})


def validate(saver: BestWeightsSaver, value: float, name: str = "ap50") -> None:
    """One validation whose key metric is `value`, with a network whose bias is `value`."""
    nn.init.constant_(saver.networks["model.pt"].bias, value)
    engine = Engine(lambda engine, batch: None)
    engine.state.metrics, engine.state.key_metric_name = {name: value}, name
    saver(engine)


def saved_value(folder: Path) -> float:
    return float(torch.load(folder / "model.pt", weights_only=True)["bias"][0])


def test_the_best_weights_stay(tmp_path: Path, network: nn.Linear) -> None:
    saver = make_saver(tmp_path, network)
    for value in (1.0, 3.0, 2.0):
        validate(saver, value)
    assert saved_value(tmp_path) == 3.0


def test_of_equally_good_weights_the_newest_stay(tmp_path: Path, network: nn.Linear) -> None:
    saver = make_saver(tmp_path, network)
    for weight in (5.0, 6.0):
        nn.init.constant_(network.weight, weight)
        validate(saver, 1.0)
    assert float(torch.load(tmp_path / "model.pt", weights_only=True)["weight"][0, 0]) == 6.0


@pytest.mark.parametrize("name", LESS_IS_BETTER)
def test_where_less_is_better_the_least_stay(name: str, tmp_path: Path, network: nn.Linear) -> None:
    saver = make_saver(tmp_path, network)
    for value in (2.0, 1.0, 3.0):
        validate(saver, value, name)
    assert saved_value(tmp_path) == 1.0


def test_a_resumed_training_remembers_the_best(tmp_path: Path, network: nn.Linear) -> None:
    first = make_saver(tmp_path, network)
    validate(first, 3.0)
    resumed = make_saver(tmp_path, network)
    resumed.load_state_dict(first.state_dict())
    validate(resumed, 2.0)
    assert saved_value(tmp_path) == 3.0
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt", "model.json"}


def test_a_resumed_training_without_its_weights_keeps_the_best_from_then_on(
    tmp_path: Path, network: nn.Linear, caplog: pytest.LogCaptureFixture
) -> None:
    first = make_saver(tmp_path / "first", network)
    validate(first, 3.0)
    resumed = make_saver(tmp_path / "second", network)
    resumed.load_state_dict(first.state_dict())
    assert "second: found other weights than this training wrote" in caplog.text
    for value in (1.0, 2.0, 1.5):
        validate(resumed, value)
    assert saved_value(tmp_path / "second") == 2.0


def test_a_resumed_training_destroys_no_weights_of_another_folder(
    saved: Path, tmp_path: Path, network: nn.Linear
) -> None:
    content = saved.read_bytes()
    first = make_saver(tmp_path / "first", network)
    validate(first, 3.0)
    resumed = make_saver(saved.parent, network)
    resumed.load_state_dict(first.state_dict())
    validate(resumed, 4.0)
    assert (saved.parent / "model_before_1.pt").read_bytes() == content


def test_two_trainings_at_once_lose_nothing(tmp_path: Path) -> None:
    one, other = make_saver(tmp_path, nn.Linear(3, 2)), make_saver(tmp_path, nn.Linear(3, 2))
    for saver, value in ((one, 1.0), (other, 2.0), (one, 3.0)):
        validate(saver, value)
    biases = {float(torch.load(path, weights_only=True)["bias"][0]) for path in tmp_path.glob("model*.pt")}
    assert biases == {1.0, 2.0, 3.0}


def test_weights_that_are_written_again_are_not_kept_twice(tmp_path: Path, network: nn.Linear) -> None:
    """A training that is killed right after it wrote them writes the same ones again."""
    interrupted = make_saver(tmp_path, network)
    validate(interrupted, 1.0)
    state = {**interrupted.state_dict(), "written": dict(interrupted.written)}
    validate(interrupted, 2.0)
    resumed = make_saver(tmp_path, network)
    resumed.load_state_dict(state)
    validate(resumed, 2.0)
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt", "model.json"}


def test_what_belongs_together_is_kept_under_one_number(tmp_path: Path, network: nn.Linear) -> None:
    validate(make_saver(tmp_path, network), 1.0)
    for value in (2.0, 3.0):
        networks = {"model.pt": network, "teacher.pt": nn.Linear(3, 2)}
        validate(BestWeightsSaver(str(tmp_path), networks, {"value": value}), value)
    assert not (tmp_path / "teacher_before_1.pt").exists()
    assert (tmp_path / "teacher_before_2.pt").exists()
    assert '"value": 2.0' in (tmp_path / "model_before_2.json").read_text()


def test_inference_reads_the_settings(tmp_path: Path, network: nn.Linear) -> None:
    validate(make_saver(tmp_path / "new", network), 1.0)
    assert read_settings(tmp_path / "new") == {"embedding_dim": 8}


def test_earlier_weights_stay_until_there_are_better_ones(saved: Path, network: nn.Linear) -> None:
    content = saved.read_bytes()
    saver = make_saver(saved.parent, network)
    assert saved.read_bytes() == content
    validate(saver, 1.0)
    assert (saved.parent / "model_before_1.pt").read_bytes() == content


def test_on_a_full_disk_all_earlier_files_stay_in_their_place(saved: Path, network: nn.Linear) -> None:
    """Weights that cannot be saved end the training; the limit on the size of a file stands in for the disk."""
    folder = saved.parent
    saver = BestWeightsSaver(str(folder), {"model.pt": network, "teacher.pt": nn.Linear(3, 2000)}, {})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with room_for(10_000), pytest.raises(UnwritableFile, match=rf"{folder}: found that it cannot be written"):
        validate(saver, 1.0)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_disk_that_is_full_only_when_files_are_to_be_safe_on_it(
    saved: Path, network: nn.Linear, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some network disks."""
    before = {path.name: path.read_bytes() for path in saved.parent.iterdir()}
    calls = iter(range(9))

    def full(_: int) -> None:
        if next(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UnwritableFile, match=rf"{saved.parent}: found that it cannot be written \(No space left"):
        validate(make_saver(saved.parent, network), 1.0)
    assert {path.name: path.read_bytes() for path in saved.parent.iterdir()} == before


def test_what_a_killed_training_had_not_finished_writing_is_removed(tmp_path: Path, network: nn.Linear) -> None:
    for name in (".0123abcd.model.pt", ".0123abcd.model.json"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    make_saver(tmp_path, network).attach(Engine(lambda engine, batch: None))
    assert list(tmp_path.iterdir()) == []


def test_all_files_are_written_before_one_takes_its_place(
    tmp_path: Path, network: nn.Linear, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that is killed before that leaves what was there, settings included."""
    saver = make_saver(tmp_path, network)
    validate(saver, 1.0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def killed(*paths: object) -> None:
        written = {path.name for path in tmp_path.iterdir()} - before.keys()
        assert {name.split(".", 2)[2] for name in written} == before.keys()  # .12345678.model.pt
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        validate(saver, 2.0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_each_training_keeps_those_of_the_one_before(saved: Path, network: nn.Linear) -> None:
    validate(make_saver(saved.parent, network), 1.0)
    validate(make_saver(saved.parent, network), 2.0)
    assert saved_value(saved.parent) == 2.0
    assert {path.name for path in saved.parent.glob("*.pt")} == {
        "model.pt",
        "model_before_1.pt",
        "model_before_2.pt",
    }


def test_settings_that_change_are_those_of_the_weights(tmp_path: Path, network: nn.Linear) -> None:
    thresholds = iter([2.0, 2.4])
    saver = BestWeightsSaver(
        str(tmp_path), {"model.pt": network}, {"filters": [8]}, lambda: {"merge_threshold": next(thresholds)}
    )
    for value, expected in ((1.0, 2.0), (2.0, 2.4), (1.5, 2.4)):
        validate(saver, value)
        assert read_settings(tmp_path) == {"filters": [8], "merge_threshold": expected}
