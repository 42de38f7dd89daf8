"""Weights on disk: `model.pt` holds the network's bare state_dict, `model.json` beside it what inference must know.

A state_dict alone does not say at which voxel size the network saw its images, nor how many embedding dimensions or
coordinate channels it has. Training writes these settings, inference and evaluation read them, so that nobody has to
repeat a training option at inference.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from .files import replace_atomically

SETTINGS_NAME = "model.json"
WEIGHTS_NAME = "model.pt"
logger = logging.getLogger(__name__)


def load_weights(network: nn.Module, path: Path | str) -> None:
    """Load a bare state_dict into a network.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a broken file, or weights of another architecture; the message names the first difference.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file, expected the weights of a trained network.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a broken file
        raise ValueError(
            f"{path}: found a file that torch cannot read ({type(error).__name__}), expected a state_dict."
        ) from error
    difference = _first_difference(network.state_dict(), state)
    if difference:
        raise ValueError(f"{path}: found weights of another architecture ({difference}), expected this network's.")
    network.load_state_dict(state)


def start_from(network: nn.Module, path: Path | str | None) -> nn.Module:
    """Start from the weights at `path` when they fit, else from random ones, and say which; returns the network."""
    if path is None or not Path(path).is_file():
        logger.info("training starts from random weights: no file %s", path)
        return network
    try:
        load_weights(network, path)
        logger.info("training starts from the weights %s", path)
    except ValueError as error:
        logger.warning("training starts from random weights: %s", error)
    return network


def read_settings(ckpt_dir: Path | str) -> dict[str, Any]:
    """What the weights in `ckpt_dir` were trained with; empty when nothing is written beside them."""
    path = Path(ckpt_dir) / SETTINGS_NAME
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: found broken JSON ({error}), expected what the training wrote.") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: found {type(settings).__name__}, expected a JSON object.")
    return settings


def begin_training(ckpt_dir: Path | str, settings: Mapping[str, Any], resumed: bool) -> None:
    """Write the settings, and move weights that are already there aside, so that training never destroys them."""
    ckpt_dir = Path(ckpt_dir)
    ckpt_dir.mkdir(parents=True, exist_ok=True)
    if not resumed:
        for name in (WEIGHTS_NAME, "teacher.pt", SETTINGS_NAME):
            _move_aside(ckpt_dir / name)
    text = json.dumps(dict(settings), indent=2) + "\n"
    replace_atomically(ckpt_dir / SETTINGS_NAME, lambda path: path.write_text(text, encoding="utf-8"))


class WeightsLoader:
    """Handler that loads `path` into the network when an engine starts."""

    def __init__(self, network: nn.Module, path: str) -> None:
        self.network, self.path = network, path

    def attach(self, engine: Engine) -> None:
        """Register with an engine."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        load_weights(self.network, self.path)


def _first_difference(expected: Mapping[str, torch.Tensor], found: Any) -> str | None:
    """Describe the first entry in which a file differs from the network, or None."""
    if not isinstance(found, Mapping):
        return f"a {type(found).__name__} instead of a state_dict"
    for name, tensor in expected.items():
        if name not in found:
            return f"no entry {name}"
        if tuple(found[name].shape) != tuple(tensor.shape):
            return f"{name} has the shape {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
    surplus = [name for name in found if name not in expected]
    return f"a further entry {surplus[0]}" if surplus else None


def _move_aside(path: Path) -> None:
    """Rename to the first free NAME_before_1.EXT, NAME_before_2.EXT, ..."""
    if not path.exists():
        return
    number = 1
    while (aside := path.with_name(f"{path.stem}_before_{number}{path.suffix}")).exists():
        number += 1
    path.rename(aside)
    logger.warning("%s existed before this training and is kept as %s", path, aside)
