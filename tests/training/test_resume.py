"""A training goes on from its newest whole checkpoint, and from no other training's."""

from __future__ import annotations

import logging
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_disk import room_for
from ignite.engine import Engine, Events
from monai.transforms import RandGaussianNoise
from monai.utils import set_determinism
from torch import nn

from scripts.files.whole_files import content_digest, move_aside, read_tensors, write_tensors
from scripts.training.resume import STARTED_FROM, ResumeCheckpoint, SeedEachEpoch, weights_at_start

EPOCHS = 5
OPTIONS = {"learning_rate": 0.001, "patch_size": [32, 32], "background_label": None}


class Killed(BaseException):
    """No handler of errors may run."""


def training(folder: Path, killed_after: int | None = None, size: int = 1, **options: Any) -> list[tuple[int, float]]:
    """A training that adds 1 to a weight in each epoch, killed after one of them, or in the first one (0).

    Returns:
        Each epoch it trained and the weight at its end.
    """
    network = nn.Linear(size, 1, bias=False)
    nn.init.zeros_(network.weight)
    engine = Engine(lambda engine, batch: nn.init.constant_(network.weight, network.weight[0, 0].item() + 1))
    data = [{"image": str(path)} for path in sorted(folder.rglob("*.tif"))]
    ResumeCheckpoint(str(folder / "resume.pt"), {"network": network}, {**OPTIONS, **options}, data).attach(engine)
    epochs: list[tuple[int, float]] = []

    @engine.on(Events.EPOCH_STARTED)
    def begin() -> None:
        if killed_after == 0:
            raise Killed

    @engine.on(Events.EPOCH_COMPLETED)
    def note(engine: Engine) -> None:
        epochs.append((engine.state.epoch, network.weight[0, 0].item()))
        if engine.state.epoch == killed_after:
            raise Killed

    try:
        engine.run([0], max_epochs=EPOCHS)
    except Killed:
        assert killed_after is not None
    return epochs


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


class TestSeedEachEpoch:
    @staticmethod
    def draws(seed: int, epoch: int) -> list[float]:
        transform = RandGaussianNoise(prob=1.0)
        engine = Engine(lambda engine, batch: None)
        SeedEachEpoch(seed, transform).attach(engine)
        engine.state.epoch = epoch
        engine.fire_event(Events.EPOCH_STARTED)
        drawn = [random.random(), np.random.rand(), torch.rand(()).item(), transform(torch.zeros(1)).item()]
        set_determinism(None)
        return drawn

    def test_an_epoch_draws_the_same_whatever_was_before(self) -> None:
        first = self.draws(seed=0, epoch=3)
        torch.rand(7)
        assert self.draws(seed=0, epoch=3) == first

    @pytest.mark.parametrize(("seed", "epoch"), [(0, 4), (1, 3), (7919, 3)])
    def test_another_epoch_seed_or_process_draws_something_else(self, seed: int, epoch: int) -> None:
        pairs = zip(self.draws(seed=0, epoch=3), self.draws(seed, epoch), strict=True)
        assert not any(one == other for one, other in pairs)


class TestGoingOn:
    def test_after_the_last_finished_epoch(self, tmp_path: Path) -> None:
        assert training(tmp_path, killed_after=2) == [(1, 1.0), (2, 2.0)]
        assert names(tmp_path) == {"resume.pt", "resume_previous.pt"}
        assert training(tmp_path) == [(3, 3.0), (4, 4.0), (5, 5.0)]

    @pytest.mark.parametrize("scale", [2.0, 1024.0])
    def test_with_the_scaler_of_mixed_precision(self, scale: float, tmp_path: Path) -> None:
        def stop(engine: Engine) -> None:
            raise Killed

        scales = []
        for init_scale in (scale, 7.0):
            engine = Engine(lambda engine, batch: None)
            engine.scaler = torch.amp.GradScaler("cpu", init_scale=init_scale)
            ResumeCheckpoint(str(tmp_path / "resume.pt"), {}, OPTIONS).attach(engine)
            engine.add_event_handler(Events.EPOCH_COMPLETED, stop)
            with pytest.raises(Killed):
                engine.run([0], max_epochs=3)
            scales.append(engine.scaler.get_scale())
        assert scales == [scale, scale]

    def test_a_complete_training_leaves_nothing(self, tmp_path: Path) -> None:
        training(tmp_path)
        assert names(tmp_path) == set()

    def test_what_a_killed_training_had_not_finished_writing_is_removed(self, tmp_path: Path) -> None:
        (tmp_path / ".0123abcd.resume.pt").touch()
        os.utime(tmp_path / ".0123abcd.resume.pt", (0, 0))
        training(tmp_path)
        assert names(tmp_path) == set()

    def test_an_engine_that_runs_again_saves_again(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        engine = Engine(lambda engine, batch: None)
        ResumeCheckpoint(str(tmp_path / "resume.pt"), {}, OPTIONS).attach(engine)
        saved = []
        engine.run([0], max_epochs=2)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: saved.append(names(tmp_path)))
        engine.run([0], max_epochs=4)
        assert saved == [{"resume.pt", "resume_previous.pt"}] * 2
        assert not warnings(caplog)

    def test_in_the_first_epoch_it_begins_anew_with_whatever_options(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert training(tmp_path, killed_after=0) == []
        assert training(tmp_path, killed_after=1, learning_rate=0.1) == [(1, 1.0)]
        assert training(tmp_path, learning_rate=0.1)[0] == (2, 2.0)
        assert not warnings(caplog)

    def test_weights_that_were_moved_aside_in_the_first_epoch_are_found_again(self, tmp_path: Path) -> None:
        """Its first validation writes its own weights to their place, and no epoch is complete yet."""
        weights, checkpoint = tmp_path / "model.pt", tmp_path / "resume.pt"
        weights.write_bytes(b"shipped")
        training(tmp_path, killed_after=0, **{STARTED_FROM: content_digest(weights)})
        assert weights_at_start(weights, checkpoint) == weights
        move_aside([weights])
        assert weights_at_start(weights, checkpoint) == tmp_path / "model_before_1.pt"
        weights.write_bytes(b"of the first validation")
        assert weights_at_start(weights, checkpoint) == tmp_path / "model_before_1.pt"

    def test_from_the_previous_checkpoint_where_the_newest_is_missing(self, tmp_path: Path) -> None:
        """As after a kill between the two renames."""
        training(tmp_path, killed_after=3)
        (tmp_path / "resume.pt").unlink()
        assert training(tmp_path)[0] == (3, 3.0)

    @pytest.mark.parametrize("renames", range(6))
    def test_a_kill_at_any_rename_leaves_a_whole_checkpoint(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
    ) -> None:
        training(tmp_path, killed_after=1)
        rename, done = os.replace, []

        def rename_or_die(source: Path, target: Path) -> None:
            if len(done) == renames:
                raise Killed
            done.append(target)
            rename(source, target)

        monkeypatch.setattr("os.replace", rename_or_die)
        training(tmp_path, killed_after=EPOCHS)
        monkeypatch.undo()
        epoch, weight = training(tmp_path)[0]
        assert epoch == weight == 2 + renames // 2


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


# What is wrong with the newest checkpoint -> what was done to it, and what the sentence must say (a pattern).
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut off": (cut_off, r"found a file that torch cannot read"),
    "empty": (lambda path: path.write_bytes(b""), r"found a file that torch cannot read \(EOFError\)"),
    "noise": (lambda path: path.write_bytes(random.Random(0).randbytes(900)), r"found a file that torch cannot read"),
    "something else": (lambda path: write_tensors(path, {"epoch": 2}), r"found something else"),
    "a list": (lambda path: write_tensors(path, [1, 2]), r"found something else"),
    "another network": (
        lambda path: write_tensors(
            path, {**read_tensors(path, ""), "objects": {"network": nn.Linear(7, 1).state_dict()}}
        ),
        r"found a network that does not fit \(RuntimeError\)",
    ),
}


class TestBrokenCheckpoint:
    @pytest.mark.parametrize(("damage", "sentence"), DAMAGES.values(), ids=DAMAGES)
    def test_it_is_named_and_the_previous_one_used(
        self, damage: Callable, sentence: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        training(tmp_path, killed_after=3)
        damage(tmp_path / "resume.pt")
        assert training(tmp_path)[0] == (3, 3.0)
        (warning,) = warnings(caplog)
        assert re.search(rf"^{tmp_path}/resume\.pt: {sentence}.*, expected a checkpoint of this training\.$", warning)

    def test_it_does_not_take_the_place_of_the_previous_one(self, tmp_path: Path) -> None:
        training(tmp_path, killed_after=3)
        cut_off(tmp_path / "resume.pt")
        training(tmp_path, killed_after=3)
        cut_off(tmp_path / "resume.pt")
        assert training(tmp_path)[0] == (3, 3.0)

    def test_the_previous_one_knows_the_weights_at_start_as_well(self, tmp_path: Path) -> None:
        weights, checkpoint = tmp_path / "model.pt", tmp_path / "resume.pt"
        weights.write_bytes(b"shipped")
        training(tmp_path, killed_after=2, **{STARTED_FROM: content_digest(weights)})
        move_aside([weights])
        weights.write_bytes(b"of the first validation")
        cut_off(checkpoint)
        assert weights_at_start(weights, checkpoint) == tmp_path / "model_before_1.pt"

    def test_two_of_them_end_the_program_and_stay(self, tmp_path: Path) -> None:
        training(tmp_path, killed_after=3)
        for name in ("resume.pt", "resume_previous.pt"):
            cut_off(tmp_path / name)
        with pytest.raises(ValueError, match=r"resume\.pt and .*resume_previous\.pt: found no usable checkpoint"):
            training(tmp_path)
        assert names(tmp_path) == {"resume.pt", "resume_previous.pt"}

    def test_a_folder_in_its_place_is_told_before_the_training(self, tmp_path: Path) -> None:
        (tmp_path / "resume.pt").mkdir()
        with pytest.raises(ValueError, match=r"resume\.pt: found a folder, expected a checkpoint or nothing\."):
            training(tmp_path)


class TestAnotherTraining:
    @pytest.mark.parametrize("option", [{"learning_rate": 0.01}, {"patch_size": [64, 64]}, {"background_label": 9}])
    def test_its_checkpoint_is_refused_and_stays(self, option: dict[str, Any], tmp_path: Path) -> None:
        training(tmp_path, killed_after=3)
        ((name, value),) = option.items()
        with pytest.raises(ValueError, match=r"resume\.pt: found an interrupted training with") as refused:
            training(tmp_path, **option)
        assert f"with {name} {OPTIONS[name]}, expected {value}; give the option it had" in str(refused.value)
        assert training(tmp_path)[0] == (4, 4.0)

    def test_other_content_of_a_training_file_is_refused(self, tmp_path: Path) -> None:
        labels = tmp_path / "labels.tif"
        labels.write_bytes(b"two objects")
        training(tmp_path, killed_after=3)
        labels.write_bytes(b"three objects")
        message = (
            r"interrupted training with the content of the \w+ labels\.tif, \w{16}, expected \w{16}; give .* the images"
        )
        with pytest.raises(ValueError, match=message):
            training(tmp_path)
        with pytest.raises(ValueError, match=message):  # and not what follows from the labels, such as a working grid
            training(tmp_path, patch_size=[16, 16])
        labels.write_bytes(b"two objects")  # again, at another time
        assert training(tmp_path)[0] == (4, 4.0)

    def test_the_same_files_in_another_folder_are_taken(self, tmp_path: Path) -> None:
        (tmp_path / "here").mkdir()
        for file, content in (("a.tif", b"objects"), ("here/a.tif", b"other objects")):
            (tmp_path / file).write_bytes(content)
        training(tmp_path, killed_after=3)
        (tmp_path / "here").rename(tmp_path / "there")
        assert training(tmp_path)[0] == (4, 4.0)

    def test_other_files_of_the_same_content_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.tif").write_bytes(b"objects")
        training(tmp_path, killed_after=3)
        (tmp_path / "a.tif").rename(tmp_path / "b.tif")
        with pytest.raises(ValueError, match=r"with data .*a\.tif'\}\], expected .*b\.tif'\}\]; give"):
            training(tmp_path)

    def test_a_relative_path_is_that_of_the_same_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "a.tif").write_bytes(b"objects")
        training(tmp_path, killed_after=3)
        monkeypatch.chdir(tmp_path)
        assert training(Path())[0] == (4, 4.0)

    def test_long_options_are_shown_where_they_differ(self, tmp_path: Path) -> None:
        first, second = ([f"/a_long_folder/image_{number}.tif" for number in range(count)] for count in (40, 41))
        training(tmp_path, killed_after=3, data=first)
        with pytest.raises(
            ValueError, match=r"with data \.\.\..*image_39\.tif'\], expected \.\.\..*image_40\.tif'\]; give"
        ):
            training(tmp_path, data=second)

    def test_an_option_tells_more_than_the_network_that_does_not_fit(self, tmp_path: Path) -> None:
        training(tmp_path, killed_after=3, filters=1)
        with pytest.raises(ValueError, match="interrupted training with filters 1, expected 2"):
            training(tmp_path, size=2, filters=2)


def test_on_a_full_disk_the_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    training(tmp_path, killed_after=2)
    with room_for(500):
        assert training(tmp_path, killed_after=4) == [(3, 3.0), (4, 4.0)]
    assert len(warnings(caplog)) == 2
    assert all("resume.pt: found that it cannot be written" in warning for warning in warnings(caplog))
    assert names(tmp_path) == {"resume.pt", "resume_previous.pt"}
    assert training(tmp_path)[0] == (3, 3.0)
