"""What is read of an image file, in the form in which MONAI's ``LoadImage`` takes it, and what may be written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.utils import MetaKeys, SpaceKeys

from ..refusals import refusal
from .image_files import describe_shape


class Volume(NamedTuple):
    """MONAI metadata, and an array with axes (Z, Y, X) or (Y, X), after a C where the file has channels."""

    array: np.ndarray
    meta: dict[str, Any]


def make_volume(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray,
    has_channels: bool,
    unit: str,
    stated_voxel_size: Sequence[float],
    placement: np.ndarray | None = None,
    has_palette: bool = False,
    had_alpha: bool = False,
) -> Volume:
    """Describe voxels and their grid as MONAI's ``LoadImage`` wants them of a reader.

    Args:
        path: the file, for messages.
        array: axes as of `Volume`.
        affine: from indices, in the order of the array's spatial axes, to the world of the file.
        has_channels: whether the array's first axis is C.
        unit: of the affine, such as "micrometre".
        stated_voxel_size: along each spatial axis, not-a-number where the file says nothing.
        placement: (4, 4), from indices (z, y, x) to the world of the file, where it tells where the voxels lie and how
            the axes run; of a plane, too, whose slice is at z = 0.
        has_palette: the values are places in a list of colours, which is no `is_brightness`.
        had_alpha: the file has one channel more, of transparency.

    Raises:
        ValueError: values that are neither integers nor floats, integers from 2**63.
    """
    meta = {
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine.copy(),
        MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape[1:] if has_channels else array.shape),
        # not-a-number is MONAI's way to say that there is no channel axis yet
        MetaKeys.ORIGINAL_CHANNEL_DIM: 0 if has_channels else math.nan,
        MetaKeys.SPACE: SpaceKeys.RAS,
        "unit": unit,
        "stated_voxel_size": np.asarray(stated_voxel_size, np.float64),
        "placement": np.full((4, 4), np.nan) if placement is None else placement.copy(),
        "has_palette": has_palette,
        "had_alpha": had_alpha,
    }
    return Volume(_torch_ready(path, array), meta)


def check_instances(instances: np.ndarray, source: Path, target: Path, shape: tuple[int, ...], largest_id: int) -> None:
    """Refuse instances of another shape than that of `source`, or with ids that the format of `target` cannot hold."""
    if instances.shape != shape:
        found, expected = describe_shape(source, instances.shape), describe_shape(source, shape)
        raise refusal(target, f"instances of shape {found}", f"the shape {expected} of {source}")
    if instances.size and instances.max() > largest_id:
        raise refusal(target, f"the id {instances.max()}", f"ids up to {largest_id} in this format")


def is_brightness(colours: np.ndarray) -> bool:
    """Whether a list of colours, (N, 3), only shows grey values, one brighter than the other, as Fiji's *Green* does.

    >>> is_brightness(np.array([[0, 0, 0], [0, 128, 0], [0, 255, 0]]))
    True
    >>> is_brightness(np.array([[0, 0, 0], [0, 128, 0], [0, 0, 255]]))
    False
    """
    steps = np.diff(colours.astype(np.int64), axis=0)
    return bool((steps >= 0).all() and steps.any(axis=1).all())


def _torch_ready(path: Path, array: np.ndarray) -> np.ndarray:
    """Make integers int32, or int64 where the file's type needs it, and floats of the native byte order."""
    if array.dtype.kind == "f":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind not in "biu":
        raise refusal(path, f"values of type {array.dtype}", "integers or floats")
    if array.dtype.itemsize == 8 and array.size and array.max() > np.iinfo(np.int64).max:
        raise refusal(path, f"the value {array.max()}", "integers below 2**63")
    fits = array.dtype.kind == "b" or np.can_cast(array.dtype, np.int32)
    return array.astype(np.int32 if fits else np.int64, copy=False)
