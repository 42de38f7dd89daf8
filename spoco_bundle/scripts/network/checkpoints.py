"""Weights on disk: `model.pt` holds the network's bare state_dict, `model.json` beside it what inference must know.

A state_dict alone does not say at which voxel size the network saw its images, nor how many embedding dimensions or
coordinate channels it has. Training writes these settings, inference and evaluation read them, so that nobody has to
repeat a training option at inference.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn

from ..files.whole_files import json_text, read_tensors, whole_file, write_tensors

SETTINGS_NAME = "model.json"
logger = logging.getLogger(__name__)


def load_weights(network: nn.Module, path: Path | str, expected: str = "the weights of a trained network") -> None:
    """Load a bare state_dict into a network.

    Args:
        expected: what the file should hold, for the message where there is none.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a broken file, or weights of another architecture; the message names the first difference.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file, expected {expected}.")
    state = read_tensors(path, expected="a state_dict")
    difference = _first_difference(network.state_dict(), state)
    if difference:
        raise ValueError(f"{path}: found weights of another architecture ({difference}), expected this network's.")
    network.load_state_dict(state)


def starting_weights(path: Path | str | None, shipped: Path | str) -> Path | None:
    """Where the weights to start from are; None for random ones, and where the shipped ones are not there.

    Args:
        path: as the user gives it; None, or the text ``null`` that a shell makes of it, for random weights.
        shipped: the weights that come with the bundle, some copies of which have none.

    Raises:
        FileNotFoundError: no such file, unless it is the shipped one.
        ValueError: a file that holds no weights, the same.
    """
    if path is None or path == "null":
        return None
    path = Path(path)
    if path == Path(shipped):
        if path.is_file():
            return path
        logger.warning("this copy of the bundle has no weights %s", path)
        return None
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file, expected weights to start from, or null for random ones.")
    read_tensors(path, expected="weights to start from")
    return path


def start_from(network: nn.Module, path: Path | None) -> nn.Module:
    """Start from the weights at `path` when they fit, else from random ones, and say which; returns the network."""
    if path is None:
        logger.info("training starts from random weights")
        return network
    try:
        load_weights(network, path)
        logger.info("training starts from the weights %s", path)
    except ValueError as error:
        logger.warning("training starts from random weights: %s", error)
    return network


def weights_fit(network: nn.Module, path: Path | None) -> bool:
    """Whether a training would start from the weights at `path`: they are given, whole, and of this network."""
    if path is None:
        return False
    try:
        return _first_difference(network.state_dict(), read_tensors(path, expected="a state_dict")) is None
    except ValueError:
        return False


def read_settings(ckpt_dir: Path | str, spatial_dims: int | None = None) -> dict[str, Any]:
    """What the weights in `ckpt_dir` were trained with; empty when nothing is written beside them.

    Raises:
        ValueError: a broken file, or weights for images of other than `spatial_dims` axes.
    """
    path = Path(ckpt_dir) / SETTINGS_NAME
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: found broken JSON ({error}), expected what the training wrote.") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: found {type(settings).__name__}, expected a JSON object.")
    trained_dims = settings.get("spatial_dims", spatial_dims)
    if spatial_dims is not None and trained_dims != spatial_dims:
        remedy = "add configs/2d.json" if trained_dims == 2 else "leave configs/2d.json out"
        raise ValueError(
            f"{path}: found weights for {trained_dims}D images, expected {spatial_dims}D; give the ckpt_dir of a "
            f"{spatial_dims}D training, or, for {trained_dims}D images, {remedy}."
        )
    return settings


class WeightsLoader:
    """Handler that loads `path` into the network when an engine starts."""

    def __init__(self, network: nn.Module, path: str) -> None:
        self.network, self.path = network, path

    def attach(self, engine: Engine) -> None:
        """Register with an engine."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        load_weights(self.network, self.path)


class BestWeightsSaver:
    """Evaluator handler that writes the weights whenever the key metric is at least as good as ever before.

    MONAI's `CheckpointSaver` does this too, but it deletes the old file before it writes the new one, and does not
    remember the best value when a training is taken up again, unless that is written into the weights' own file.

    What lies there from another training is moved aside just before the first files are written, and whenever another
    training has written there since: one that fails early leaves everything as it was, and none destroys weights.

    Args:
        ckpt_dir: folder of the files.
        networks: file name -> network, whose bare state_dict is written.
        settings: what inference must know, written beside the weights; values that change with the weights
            (`calibration.ThresholdCalibration`) as they are at that moment.
    """

    def __init__(self, ckpt_dir: str, networks: Mapping[str, nn.Module], settings: Mapping[str, Any]) -> None:
        self.ckpt_dir, self.networks, self.settings = Path(ckpt_dir), networks, settings
        self.best: float | None = None
        self.written: dict[str, str] = {}  # file name -> checksum of what was written last

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI evaluator."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        value = engine.state.metrics[engine.state.key_metric_name]
        if self.best is not None and value < self.best:
            return
        self.best = value
        if idist.get_rank() == 0:
            self._write()

    def _write(self) -> None:
        with ExitStack() as files:  # all are written before the first one takes its place
            paths = {name: files.enter_context(whole_file(self.ckpt_dir / name)) for name in self._names}
            for name, network in self.networks.items():
                weights = {key: tensor.cpu() for key, tensor in network.state_dict().items()}  # to be read anywhere
                write_tensors(paths[name], weights)
            paths[SETTINGS_NAME].write_text(json_text(dict(self.settings)), encoding="utf-8")
            new, found = {name: _checksum(path) for name, path in paths.items()}, self._checksums()
            if any(found[name] not in (None, new[name], self.written.get(name)) for name in found):
                _move_aside(self.ckpt_dir, self._names)
        self.written = new

    @property
    def _names(self) -> list[str]:
        return [SETTINGS_NAME, *self.networks]

    def _checksums(self) -> dict[str, str | None]:
        """Of the files in `ckpt_dir`, None where one is missing."""
        return {name: _checksum(self.ckpt_dir / name) for name in self._names}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training must know."""
        return {"best": self.best, "written": self.written}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned, unless the best weights are no longer there: then any are better."""
        self.best, self.written = state["best"], state["written"]
        if self.best is not None and self._checksums() != self.written:
            self.best = None
            logger.warning(
                "%s: found other weights than this training wrote before it was interrupted, or none; the best ones "
                "from now on are kept",
                self.ckpt_dir,
            )


def _first_difference(expected: Mapping[str, torch.Tensor], found: Any) -> str | None:
    """Describe the first entry in which a file differs from the network, or None."""
    if not isinstance(found, Mapping):
        return f"a {type(found).__name__} instead of a state_dict"
    for name, tensor in expected.items():
        if name not in found:
            return f"no entry {name}"
        if not isinstance(found[name], torch.Tensor):
            return f"{name} is a {type(found[name]).__name__} instead of a tensor"
        if found[name].shape != tensor.shape:
            return f"{name} has the shape {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
    surplus = [name for name in found if name not in expected]
    return f"a further entry {surplus[0]}" if surplus else None


def _checksum(path: Path) -> str | None:
    """Of the content of a file; None where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _move_aside(folder: Path, names: Sequence[str]) -> None:
    """Rename those that are there to NAME_before_N.EXT, with the first number N that none of them has yet."""
    for number in itertools.count(1):
        aside = {folder / name: folder / f"{Path(name).stem}_before_{number}{Path(name).suffix}" for name in names}
        if not any(path.exists() for path in aside.values()):
            break
    for path, target in aside.items():
        if path.exists():
            path.rename(target)
            logger.warning("%s existed before this training and is kept as %s", path, target)
