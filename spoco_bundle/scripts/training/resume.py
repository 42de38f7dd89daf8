"""Go on after an interruption as if there had been none."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.distributed import one_rank_only
from ignite.engine import Engine, Events
from monai.transforms import Randomizable
from monai.utils import set_determinism

from ..files.whole_files import (
    content_digest,
    moved_aside,
    read_tensors,
    remove_leftovers,
    warn_if_unwritable,
    whole_file,
    write_tensors,
)
from ..refusals import InputError

logger = logging.getLogger(__name__)

LONGEST, BEFORE = 200, 60  # characters of an option in a message, and before the first that is unlike
STARTED_FROM = "pretrained_content"  # the option that holds the checksum of the weights to start from
CONTENT = {"options": dict, "objects": dict, "epoch": int, "iteration": int}  # of a checkpoint


class SeedEachEpoch:
    """Handler that makes an epoch's randomness depend on the seed and the epoch's number only.

    An interrupted training that goes on at the next epoch then draws what an uninterrupted one would have drawn.

    Args:
        seed: of the whole training.
        transform: the random preprocessing, whose own random state is set as well.
    """

    def __init__(self, seed: int, transform: Randomizable) -> None:
        self.seed, self.transform = seed, transform

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        seed = self.seed + 1_000_003 * engine.state.epoch  # a prime, so that neighbouring seeds share no epoch
        set_determinism(seed % 2**32)
        self.transform.set_random_state(seed % 2**32)


class UnusableCheckpoint(InputError):
    """A checkpoint that no training can go on from."""


def weights_at_start(path: Path | str | None, checkpoint: Path | str | None) -> Path | str | None:
    """Where the weights lie that a training starts from, or, if it was interrupted, has started from.

    Its own best weights may have taken their place, and what lay there was moved aside (see `best_weights`). What a
    training finds out from them at its start it must find out again from the same ones.

    Args:
        path: of the weights; None, or the text ``null``, for random ones.
        checkpoint: of the interrupted training, if there is one; None: nobody goes on with it.
    """
    if path is None or path == "null" or checkpoint is None:
        return path
    newest = Path(checkpoint)
    for found in (newest, _previous(newest)):
        if not found.is_file():
            continue
        try:
            digest = read_tensors(found, "a checkpoint")["options"][STARTED_FROM]
        except (InputError, LookupError, TypeError):
            continue  # broken or something else, of which the training will say so
        kept = [one for one in (Path(path), *moved_aside(Path(path))) if one.is_file()]
        return next((one for one in kept if content_digest(one) == digest), path)
    return path


class ResumeCheckpoint:
    """Handler that saves the whole training after each epoch, and takes it up again when it finds such a file.

    The checkpoint of the epoch before is kept beside the newest: when that one turns out to be broken, the training
    goes on from the other. Both are removed when the training is complete, so that the same command then starts a
    new training. The first one is of epoch 0, and only says which weights the training started from (see
    `weights_at_start`): one that was interrupted before its first epoch ended begins anew, with whatever options.

    Args:
        path: of the newest checkpoint; the one before has `_previous` in its name.
        objects: name -> anything with `state_dict` and `load_state_dict`: network, teacher, optimizer, schedule.
        options: name -> value; a training goes on only with those it began with. Compared as text.
        data: the training files, name -> path of each; a training goes on only with files of these names, in whatever
            folder, and with the content that they had at its beginning.
        anew: a checkpoint that is found is removed. Who asks a server for a training means another one than the one
            that was stopped.
    """

    def __init__(
        self,
        path: str,
        objects: Mapping[str, Any],
        options: Mapping[str, Any],
        data: Sequence[Mapping[str, str]] = (),
        anew: bool = False,
    ) -> None:
        self.path, self.objects, self.anew = Path(path), objects, anew
        self.previous = _previous(self.path)
        names = [{key: Path(file).name for key, file in entry.items()} for entry in data]
        contents: dict[str, str] = {}
        for key, file in sorted({(key, os.path.abspath(file)) for entry in data for key, file in entry.items()}):
            name = f"the content of the {key} {Path(file).name},"  # of one name there may be several, in other folders
            contents[name] = " ".join([*contents.get(name, "").split(), content_digest(file)])
        # Files come first, as other values follow from them, and a refusal names the first that differs
        described: dict[str, Any] = {"data": names, **contents, **options}
        self.options = {name: str(value) for name, value in described.items()}
        self.path_is_whole = False  # until it was read or written

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)
        engine.add_event_handler(Events.COMPLETED, self._remove)

    def _load(self, engine: Engine) -> None:
        remove_leftovers(self.path)
        found = [path for path in (self.path, self.previous) if path.exists()]
        for path in found:
            if path.is_dir():
                raise InputError(f"{path}: found a folder, expected a checkpoint or nothing.")
        if found and self.anew:
            logger.warning("%s: found a training that was stopped, a new one begins", self.path)
            self._remove(engine)
            found = []
        state = self._newest(found, engine)
        if state is None or state["epoch"] == 0:
            self._save(engine)  # from now on the weights at start are known, whatever takes their place
            return
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        path = self.path if self.path_is_whole else self.previous
        logger.info("the training goes on after epoch %d, from %s", engine.state.epoch, path)

    def _newest(self, found: Sequence[Path], engine: Engine) -> dict[str, Any] | None:
        """Load the first checkpoint that can be used; None where nothing was found."""
        for path in found:
            try:
                state = self._restore(path, engine)
            except UnusableCheckpoint as error:
                logger.warning("%s", error)
                continue
            self.path_is_whole = path == self.path
            return state
        if found:
            names = " and ".join(map(str, found))
            raise InputError(f"{names}: found no usable checkpoint, expected one; delete what is there to start anew.")
        return None

    def _all_objects(self, engine: Engine) -> dict[str, Any]:
        """With the scaler of mixed precision, which no config can name: the trainer makes it."""
        scaler = getattr(engine, "scaler", None)
        return {**self.objects, **({} if scaler is None else {"scaler": scaler})}

    def _restore(self, path: Path, engine: Engine) -> dict[str, Any]:
        """Load a checkpoint into the objects; returns all of it. One of epoch 0 has nothing to load.

        Raises:
            UnusableCheckpoint: a broken file, something else, or a state that the objects do not take.
            ValueError: a checkpoint of a training with other options.
        """
        expected = "a checkpoint of this training"
        try:
            state = read_tensors(path, expected)
        except InputError as error:
            raise UnusableCheckpoint(str(error)) from error
        if not isinstance(state, dict) or {name: type(part) for name, part in state.items()} != CONTENT:
            raise UnusableCheckpoint(f"{path}: found something else, expected {expected}.")
        if state["epoch"] == 0:
            return state
        self._check_options(path, state["options"])
        for name, target in self._all_objects(engine).items():
            try:
                target.load_state_dict(state["objects"][name])
            except (MemoryError, torch.OutOfMemoryError):
                raise  # which says nothing about the checkpoint
            except Exception as error:  # each kind of object has its own
                message = f"{path}: found a {name} that does not fit ({type(error).__name__}), expected {expected}."
                raise UnusableCheckpoint(message) from error
        return state

    def _check_options(self, path: Path, found: Mapping[str, str]) -> None:
        for name, expected in self.options.items():
            if found.get(name) != expected:
                was, now = _where_they_differ(str(found.get(name)), expected)
                raise InputError(
                    f"{path}: found an interrupted training with {name} {was}, expected {now}; give the option it had, "
                    "and the images and labels, to go on, or another output_dir, or delete the checkpoints to start "
                    "anew."
                )

    @one_rank_only()
    def _save(self, engine: Engine) -> None:
        state = {
            "options": self.options,
            "objects": {name: target.state_dict() for name, target in self._all_objects(engine).items()},
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
        }
        with warn_if_unwritable():
            with whole_file(self.path) as temporary:
                write_tensors(temporary, state)
                if self.path_is_whole and self.path.is_file():  # a broken one must not take the previous one's place
                    os.replace(self.path, self.previous)
                self.path_is_whole = False
            self.path_is_whole = True

    @one_rank_only()
    def _remove(self, engine: Engine) -> None:
        for path in (self.path, self.previous):
            path.unlink(missing_ok=True)


def _previous(path: Path) -> Path:
    """The checkpoint of the epoch before."""
    return path.with_stem(f"{path.stem}_previous")


def _where_they_differ(one: str, other: str) -> tuple[str, str]:
    """Two unlike texts, cut to what one can read: from shortly before they differ."""
    start = len(os.path.commonprefix([one, other])) - BEFORE
    if start <= 0:
        return one[:LONGEST], other[:LONGEST]
    return f"...{one[start : start + LONGEST]}", f"...{other[start : start + LONGEST]}"
