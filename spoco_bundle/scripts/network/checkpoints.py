"""Weights on disk: `model.pt` holds the network's bare state_dict, `model.json` beside it what inference must know.

A state_dict alone does not say at which voxel size the network saw its images, nor how many embedding dimensions it
has. Training writes these settings, inference and evaluation read them, so that nobody has to
repeat a training option at inference.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from ..files.whole_files import moved_aside, read_tensors
from ..refusals import InputError

SETTINGS_NAME = "model.json"
NUMBERS = ("spacing", "voxel_size", "voxel_shape")  # one for each axis
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
        raise InputError(f"{path}: found weights of another architecture ({difference}), expected this network's.")
    network.load_state_dict(state)


def starting_weights(path: Path | str | None, shipped: Path | str) -> Path | None:
    """Where the weights to start from are; None for random ones, and where the shipped ones are not there.

    Args:
        path: as the user gives it; None, or the text ``null`` that a shell makes of it, for random weights.
        shipped: the weights that come with the bundle, some copies of which have none.

    Raises:
        FileNotFoundError: no such file, unless it is the shipped one.
        ValueError: a folder, or a file that torch cannot read.
    """
    if path is None or path == "null":
        return None
    path = Path(path)
    if _is_same_file(path, shipped):
        if path.is_file():
            return path
        logger.warning("this copy of the bundle has no weights %s", path)
        return None
    if path.is_dir():
        raise InputError(f"{path}: found a folder, expected the file of weights to start from, as {path / 'model.pt'}.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file, expected weights to start from, or null for random ones.")
    read_tensors(path, expected="weights to start from")
    return path


def start_from(network: nn.Module, path: Path | None, shipped: Path | str) -> nn.Module:
    """Start from the weights at `path`, or from random ones, and say which; returns the network.

    Args:
        path: see `starting_weights`.
        shipped: the weights that come with the bundle, which nobody asked for: where they do not fit, random ones do.

    Raises:
        ValueError: other weights that do not fit the network.
    """
    if path is None:
        logger.info("training starts from random weights")
        return network
    try:
        load_weights(network, path)
        logger.info("training starts from the weights %s", path)
    except InputError as error:
        if not any(_is_same_file(path, one) for one in (shipped, *moved_aside(Path(shipped)))):
            raise
        logger.warning("training starts from random weights: %s", error)
    return network


def weights_fit(network: nn.Module, path: Path | None) -> bool:
    """Whether a training would start from the weights at `path`: they are given, whole, and of this network."""
    if path is None:
        return False
    try:
        return _first_difference(network.state_dict(), read_tensors(path, expected="a state_dict")) is None
    except InputError:
        return False


def read_settings(ckpt_dir: Path | str, spatial_dims: int | None = None, name: str = SETTINGS_NAME) -> dict[str, Any]:
    """What the weights in `ckpt_dir` were trained with; empty when nothing is written beside them.

    Raises:
        ValueError: a broken file, entries that are no lists of numbers where such belong, or weights for images of
            other than `spatial_dims` axes.
    """
    path = Path(ckpt_dir) / name
    if not path.is_file():
        if path.with_suffix(".pt").is_file():
            logger.warning(
                "%s: found no such file beside the weights, so the voxel size and the thresholds of their training are "
                "not known",
                path,
            )
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: found broken JSON ({error}), expected what the training wrote.") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path}: found {type(settings).__name__}, expected a JSON object.")
    trained_dims = settings.get("spatial_dims", spatial_dims)
    for key in (*NUMBERS, "stated_axes"):
        value, kind = settings.get(key), Real if key in NUMBERS else bool
        if value is not None and not (isinstance(value, list) and all(isinstance(entry, kind) for entry in value)):
            raise InputError(f"{path}: found {key} {value!r}, expected a list with one entry for each axis, or null.")
    if spatial_dims is not None and trained_dims != spatial_dims:
        remedy = "add configs/2d.json" if trained_dims == 2 else "leave configs/2d.json out"
        raise InputError(
            f"{path}: found weights for {trained_dims}D images, expected {spatial_dims}D; give the ckpt_dir of a "
            f"{spatial_dims}D training, or, for {trained_dims}D images, {remedy}."
        )
    return settings


def settings_beside(path: Path | None) -> dict[str, Any]:
    """What some weights were trained with, from the file of the same name beside them; empty where there is none."""
    if path is None or not path.with_suffix(".json").is_file():
        return {}
    return read_settings(path.parent, name=path.with_suffix(".json").name)


def remind_of_special_labels(settings: Mapping[str, Any], **given: int | None) -> None:
    """Warn where the weights were trained with an id that is no object, and their labels are now read without it.

    Args:
        settings: of the weights, see `read_settings`.
        given: ``background_label`` and ``ignore_label``, as the user gives them this time.
    """
    for name, label in given.items():
        if label is None and (trained := settings.get(name)) is not None:
            logger.warning(
                "the weights were trained with %s %s, which is not given now: %s is an object", name, trained, trained
            )


def trained_voxel_shape(path: Path | None, **architecture: Any) -> list[float] | None:
    """Which voxels the network of some weights was made for, see `working_grid.voxel_shape`.

    Args:
        path: of the weights; their settings lie beside them under the same name.
        architecture: settings of the network to train; where the weights' differ, they cannot serve it.

    Returns:
        None without weights that could serve, or settings that tell.
    """
    settings = settings_beside(path)
    if not settings or any(settings.get(name) != value for name, value in architecture.items()):
        return None
    return settings.get("voxel_shape") or [1.0] * architecture["spatial_dims"]


class WeightsCheckpointLoader:
    """Handler that loads `path` into the network when an engine starts."""

    def __init__(self, network: nn.Module, path: str) -> None:
        self.network, self.path = network, path

    def attach(self, engine: Engine) -> None:
        """Register with an engine."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        load_weights(self.network, self.path)


def _is_same_file(one: Path, other: Path | str) -> bool:
    """Also where one path is relative and the other is not, or neither file is there."""
    return one.resolve() == Path(other).resolve()


def _first_difference(expected: Mapping[str, torch.Tensor], found: Any) -> str | None:
    """Describe the first entry in which a file differs from the network, or None."""
    if not isinstance(found, Mapping):
        return f"a {type(found).__name__} instead of a state_dict"
    for name, tensor in expected.items():
        if name not in found:
            return f"no entry {name}"
        if not isinstance(found[name], torch.Tensor):
            return f"{name} is a {type(found[name]).__name__} instead of a tensor"
        if found[name].is_floating_point() != tensor.is_floating_point():
            return f"{name} is of {found[name].dtype} instead of {tensor.dtype}"
        if found[name].shape != tensor.shape:
            return f"{name} has the shape {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
    surplus = [name for name in found if name not in expected]
    return f"a further entry {surplus[0]}" if surplus else None
