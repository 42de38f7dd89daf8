"""Refuse options of the wrong kind or range when a run starts, not at the end of its first epoch.

In a MONAI JSON config, each option under its own id::

    "options": {"_target_": "scripts.run.options.check_options", "spatial_dims": "@spatial_dims", "epochs": "@epochs"}

What a config computes unless it is given, from other options or from the images, comes in a group of its own, later: a
config needs all values of a group before it is checked. Some of these need a network, whose first weights are random:
they are checked after the seed is set and the network to train is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..clustering.methods import METHODS
from ..clustering.postprocessing import FOREGROUND_CHOICES
from ..network.device_check import convolves_rightly
from ..network.precision import PRECISIONS
from ..refusals import InputError

LARGEST_ID = 2**63 - 1  # of int64
LARGEST_CLASS = 9999  # whose objects have ids up to 1000 * class + 999, each with a place in a list of scores


class Rule(NamedTuple):
    """What an option may be."""

    accepts: Callable[[Any, int], bool]  # its value, and the number of axes of the images
    expected: str


def check_options(spatial_dims: int = 3, **values: Any) -> None:
    """Refuse options that break their rule in `RULES`, or that do not go together.

    Args:
        spatial_dims: of the images, for options with one entry an axis.
        values: id -> value.

    Raises:
        ValueError: naming the first such option, its value and what was expected.
    """
    for name, value in {"spatial_dims": spatial_dims, **values}.items():
        rule = RULES[name]
        if not rule.accepts(value, spatial_dims):
            raise InputError(f"{name}: found {value!r}, expected {rule.expected}.")
    _check_together(spatial_dims, values)


def _check_together(spatial_dims: int, values: Mapping[str, Any]) -> None:
    """Refuse values that are right alone, but not beside others."""
    background, ignored = values.get("background_label"), values.get("ignore_label")
    if background is not None and background == ignored:
        raise InputError(f"ignore_label: found {ignored}, which is background_label as well, expected another id.")
    if values.get("position_scale") and values.get("embedding_dim", math.inf) <= spatial_dims:
        raise InputError(
            f"embedding_dim: found {values['embedding_dim']}, expected more than the {spatial_dims} axes, for which it "
            "holds positions; or position_scale 0."
        )
    device = torch.device(values.get("device", "cpu"))
    if device.type == "mps" and not convolves_rightly(device, spatial_dims):
        raise InputError(
            f"device: found {device}, whose convolutions are not those of the CPU, as with macOS 26.2, expected a "
            "newer macOS, or --device cpu."
        )


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _exists(device: Any) -> bool:
    try:
        torch.empty(0, device=torch.device(device))
    except (RuntimeError, AssertionError, TypeError):  # which of them depends on how torch was built
        return False
    return True


def _whole(least: int, most: float = math.inf) -> Rule:
    return Rule(
        lambda value, _: _is_whole(value) and least <= value <= most,
        f"a whole number of at least {least}" if most == math.inf else f"a whole number from {least} to {most}",
    )


def _one_of(*choices: Any) -> Rule:
    return Rule(
        lambda value, _: any(type(value) is type(choice) and value == choice for choice in choices),
        f"one of {', '.join(map(str, choices))}",
    )


def _either(first: Rule, second: Rule) -> Rule:
    return Rule(
        lambda value, dims: first.accepts(value, dims) or second.accepts(value, dims),
        f"{first.expected}, or {second.expected}",
    )


def _or_null(rule: Rule) -> Rule:
    return _either(rule, Rule(lambda value, _: value is None, "'$None'"))


def _list_of(rule: Rule, least: int = 1) -> Rule:
    return Rule(
        lambda value, dims: _is_list(value) and len(value) >= least and all(rule.accepts(one, dims) for one in value),
        f"a list of at least {least}, each {rule.expected}",
    )


def _each_axis(rule: Rule) -> Rule:
    return Rule(
        lambda value, dims: _list_of(rule).accepts(value, dims) and len(value) == dims,
        f"a list with one entry for each axis of the images, each {rule.expected}",
    )


POSITIVE = Rule(lambda value, _: _is_real(value) and value > 0, "a number above 0")
NOT_NEGATIVE = Rule(lambda value, _: _is_real(value) and value >= 0, "a number of at least 0")
SHARE = Rule(lambda value, _: _is_real(value) and 0 <= value <= 1, "a number in [0, 1]")
# not a float: the shell's 0.10 would be the folder 0.1
FOLDER = Rule(
    lambda value, _: isinstance(value, str | Path | int) and not isinstance(value, bool) and str(value) != "",
    "a path; write ./NAME where NAME alone could be a number or a list",
)
PATH_OR_NULL = _or_null(FOLDER)
PATHS_OR_NULL = _or_null(
    Rule(
        lambda value, _: (
            all(isinstance(one, str | Path) for one in value) if _is_list(value) else isinstance(value, str)
        ),
        "a list of paths or a glob pattern",
    )
)

_MULTIPLES_OF_8 = _list_of(Rule(lambda value, _: _whole(8).accepts(value, 0) and value % 8 == 0, "a multiple of 8"), 3)

RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("epochs", "iterations_per_epoch", "val_interval", "batch_size", "places", "window_voxels"), _whole(1)
    ),
    **dict.fromkeys(("in_channels", "embedding_dim"), _whole(1)),
    **dict.fromkeys(("seed", "num_workers", "min_size"), _whole(0)),
    "early_stop_patience": _or_null(_whole(1)),
    **dict.fromkeys(("background_label", "ignore_label"), _or_null(_whole(1, most=LARGEST_ID))),
    **dict.fromkeys(("learning_rate", "delta_var", "smallest_instance"), POSITIVE),
    "merge_threshold": _or_null(POSITIVE),
    **dict.fromkeys(("position_scale", "foreground_weight", "first_foreground_weight", "border_weight"), NOT_NEGATIVE),
    **dict.fromkeys(("cache_rate", "upside_down", "min_score"), SHARE),
    **dict.fromkeys(("patch_size", "largest_patch"), _each_axis(_whole(1))),
    "roi_size": _either(_whole(0), _each_axis(_whole(1))),
    **dict.fromkeys(("ckpt_dir", "output_dir", "dataset_dir"), FOLDER),
    "pretrained": PATH_OR_NULL,
    **dict.fromkeys(("images", "labels", "masks"), PATHS_OR_NULL),
    **dict.fromkeys(("amp", "deterministic", "cuda_graphs", "flips", "sparse_truth", "resume"), _one_of(True, False)),
    "foreground_threshold": _or_null(SHARE),
    "spatial_dims": _one_of(2, 3),
    "memory_format": Rule(
        lambda value, _: isinstance(value, torch.memory_format), "one of torch's, such as '$torch.contiguous_format'"
    ),
    "device": Rule(lambda value, _: _exists(value), "a device of this machine, such as cpu or cuda:0"),
    "precision": _one_of(*PRECISIONS),
    "clustering": _one_of(*METHODS),
    "foreground": _one_of(*FOREGROUND_CHOICES),
    "classes": _or_null(
        Rule(
            lambda value, _: _list_of(_whole(1, most=LARGEST_CLASS)).accepts(value, 0) and len({*value}) == len(value),
            f"a list of at least 1, each a whole number from 1 to {LARGEST_CLASS}, none twice",
        )
    ),
    "filters": Rule(
        lambda value, _: _MULTIPLES_OF_8.accepts(value, 0) and value[-1] >= 16,
        f"{_MULTIPLES_OF_8.expected}, the last at least 16",  # normalization in eights, of one voxel at the least
    ),
    "object_fraction": Rule(lambda value, _: _is_real(value) and 0 < value <= 1, "a number in (0, 1]"),
    "overlap": Rule(lambda value, _: _is_real(value) and 0 <= value < 1, "a number in [0, 1)"),
    **dict.fromkeys(("object_size", "working_spacing"), _or_null(_each_axis(POSITIVE))),
    "spacing": _either(_one_of("objects", "image"), _each_axis(POSITIVE)),
}
