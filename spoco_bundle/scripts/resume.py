"""Go on after an interruption as if there had been none."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from ignite.distributed import one_rank_only
from ignite.engine import Engine, Events
from monai.transforms import Randomizable
from monai.utils import set_determinism

from .files import replace_atomically

logger = logging.getLogger(__name__)


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


class ResumeCheckpoint:
    """Handler that saves the whole training after each epoch, and takes it up again when it finds such a file.

    The file is written atomically, and removed when the training is complete, so that the same command then
    starts a new training.

    Args:
        path: of the checkpoint.
        objects: name -> anything with `state_dict` and `load_state_dict`: network, teacher, optimizer, schedule.
    """

    def __init__(self, path: str, objects: dict[str, Any]) -> None:
        self.path, self.objects = Path(path), objects

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)
        engine.add_event_handler(Events.COMPLETED, self._remove)

    def _load(self, engine: Engine) -> None:
        if not self.path.is_file():
            return
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            for name, target in self.objects.items():
                target.load_state_dict(state["objects"][name])
        except (RuntimeError, KeyError, ValueError, EOFError, OSError) as error:
            raise ValueError(
                f"{self.path}: found a checkpoint that does not fit this training ({type(error).__name__}), "
                "expected one of the same network and options; delete it to start anew."
            ) from error
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        logger.info("the training goes on after epoch %d, from %s", engine.state.epoch, self.path)

    @one_rank_only()
    def _save(self, engine: Engine) -> None:
        state = {
            "objects": {name: target.state_dict() for name, target in self.objects.items()},
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
        }
        replace_atomically(self.path, lambda path: torch.save(state, path))

    @one_rank_only()
    def _remove(self, engine: Engine) -> None:
        self.path.unlink(missing_ok=True)
