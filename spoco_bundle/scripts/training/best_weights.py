"""The best weights of a training, written when they are found."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from torch import nn

from ..files.whole_files import (
    content_digest,
    json_text,
    move_aside,
    remove_leftovers,
    whole_files,
    write_tensors,
)
from ..network.checkpoints import SETTINGS_NAME
from .validation import key_score

logger = logging.getLogger(__name__)


class BestWeightsSaver:
    """Evaluator handler that writes the weights whenever the key metric is at least as good as ever before.

    MONAI's `CheckpointSaver` does this too, but it deletes the old file before it writes the new one, and does not
    remember the best value when a training is taken up again, unless that is written into the weights' own file.

    What lies there from another training is moved aside just before the first files are written, and whenever another
    training has written there since: one that fails early leaves everything as it was, and none destroys weights.

    Args:
        ckpt_dir: folder of the files.
        networks: file name -> network, whose bare state_dict is written.
        settings: what inference must know, written beside the weights.
        chosen: gives the settings that change with the weights (see `calibration.ThresholdCalibration.chosen`).
    """

    def __init__(
        self,
        ckpt_dir: str,
        networks: Mapping[str, nn.Module],
        settings: Mapping[str, Any],
        chosen: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self.ckpt_dir, self.networks, self.settings, self.chosen = Path(ckpt_dir), networks, settings, chosen
        self.best: float | None = None
        self.written: dict[str, str | None] = {}  # file name -> checksum of what was written last

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI evaluator."""
        for name in self._names:
            remove_leftovers(self.ckpt_dir / name)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        value = key_score(engine)
        if self.best is not None and value < self.best:
            return
        self.best = value
        if idist.get_rank() == 0:
            self._write()

    def _write(self) -> None:
        with whole_files(self._paths, self._make_room) as (settings, *weights):
            settings.write_text(json_text({**self.settings, **self.chosen()}), encoding="utf-8")
            for path, network in zip(weights, self.networks.values(), strict=True):
                write_tensors(path, {key: tensor.cpu() for key, tensor in network.state_dict().items()})  # for anywhere

    def _make_room(self, temporaries: Sequence[Path]) -> None:
        """Move files aside that are neither equal to the new ones nor of this training; note what the new ones hold."""
        new, found = self._checksums(temporaries), self._checksums(self._paths)
        if any(found[name] not in (None, new[name], self.written.get(name)) for name in found):
            for path, kept in move_aside(self._paths).items():
                logger.warning("%s existed before this training and is kept as %s", path, kept)
        self.written = new

    @property
    def _names(self) -> list[str]:
        return [SETTINGS_NAME, *self.networks]

    @property
    def _paths(self) -> list[Path]:
        return [self.ckpt_dir / name for name in self._names]

    def _checksums(self, paths: Sequence[Path]) -> dict[str, str | None]:
        """By their names in `ckpt_dir`, None where one is missing."""
        return dict(zip(self._names, map(_checksum, paths), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training must know."""
        return {"best": self.best, "written": self.written}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned, unless the best weights are no longer there: then any are better."""
        self.best, self.written = state["best"], state["written"]
        if self.best is not None and self._checksums(self._paths) != self.written:
            self.best = None
            logger.warning(
                "%s: found other weights than this training wrote before it was interrupted, or none; the best ones "
                "from now on are kept",
                self.ckpt_dir,
            )


def _checksum(path: Path) -> str | None:
    """Checksum of what a file holds; None where there is none."""
    return content_digest(path) if path.is_file() else None
