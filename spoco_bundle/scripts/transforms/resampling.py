"""The working grid: images are resampled so that objects have one standard size, results return to the original.

On the working grid anisotropy is mostly gone, a patch holds many objects, and the shipped weights fit.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.transforms.utils import scale_affine
from monai.utils import ensure_tuple
from scipy import ndimage
from torch import Tensor

from ..files.image_files import file_of
from ..refusals import InputError

IMPLAUSIBLE_FACTOR = 16  # no microscope samples an object so finely; most likely the units differ
IMPLAUSIBLE_GROWTH = 64  # voxels of the working grid to one of the image: so coarsely sampled objects are not found


def resample_linear(image: Tensor, shape: Sequence[int]) -> Tensor:
    """Resample (C, *spatial) to (C, *shape), smoothed first along axes that lose resolution."""
    factors = [old / new for old, new in zip(image.shape[1:], shape, strict=True)]
    # the usual anti-aliasing filter: half the amount by which a voxel grows
    sigmas = [max(0.0, (factor - 1) / 2) for factor in factors]
    smooth = (
        torch.from_numpy(ndimage.gaussian_filter(image.float().numpy(), [0, *sigmas])) if max(sigmas) > 0 else image
    )
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(factors)]
    return torch.nn.functional.interpolate(smooth[None], size=tuple(shape), mode=mode, align_corners=False)[0]


def resample_nearest(labels: Tensor, shape: Sequence[int]) -> Tensor:
    """Resample (C, *spatial) to (C, *shape) by picking voxels, so that every integer id survives.

    >>> resample_nearest(torch.tensor([[7, 9]]), (4,)).tolist()
    [[7, 7, 9, 9]]
    """
    for axis, new in enumerate(shape, start=1):
        old = labels.shape[axis]
        centers = (torch.arange(new, dtype=torch.float64, device=labels.device) + 0.5) * old / new
        labels = labels.index_select(axis, centers.long().clamp_max(old - 1))
    return labels


def working_shape(shape: Sequence[int], voxel_size: Sequence[float], spacing: Sequence[float]) -> list[int]:
    """Spatial shape after resampling from voxel_size to spacing, at least 1 along each axis."""
    return [max(1, round(n * old / new)) for n, old, new in zip(shape, voxel_size, spacing, strict=True)]


def file_shape(image: MetaTensor) -> list[int]:
    """Spatial axes of the file that an image was read from."""
    return [int(n) for n in np.asarray(image.meta.get("spatial_shape", image.shape[1:]))]


def working_voxels_per_voxel(image: Tensor) -> float:
    """How many voxels of the working grid make one voxel of the image file."""
    if not isinstance(image, MetaTensor) or "spatial_shape" not in image.meta:
        return 1.0
    return math.prod(image.shape[1:]) / math.prod(file_shape(image))


class ResampleToSpacingd(MapTransform):
    """Resample images and label maps to the working voxel size.

    Args:
        keys: MetaTensors (C, *spatial).
        spacing: working voxel size per axis, in the unit of the files. None leaves everything as it is.
        label_keys: those of `keys` that hold ids and must not be interpolated.
        allow_missing_keys: do not raise when a key is missing.

    Raises:
        ValueError: the spacing has not one entry an axis, or is so far from the file's voxel size that the two
            can hardly be in one unit; or the working grid has many times as many voxels as the image.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spacing: Sequence[float] | None,
        label_keys: KeysCollection = (),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spacing, self.label_keys = spacing, ensure_tuple(label_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        if self.spacing is None:
            return result
        for key in self.key_iterator(result):
            image: MetaTensor = result[key]
            old_shape, voxel_size = image.shape[1:], image.pixdim.tolist()
            self._check(image, voxel_size, self.spacing)
            shape = working_shape(old_shape, voxel_size, self.spacing)
            self._check_growth(image, shape)
            resample = resample_nearest if key in self.label_keys else resample_linear
            # the outer faces stay where they are
            affine = image.affine @ torch.as_tensor(scale_affine(old_shape, shape), dtype=image.affine.dtype)
            own = {"spatial_shape": old_shape, "original_affine": image.affine}  # of an image that no file holds
            meta = {**own, **image.meta, "affine": affine}  # a copy: the caller's image keeps its own
            result[key] = MetaTensor(resample(image.as_tensor(), shape), meta=meta)
        return result

    def _check(self, image: MetaTensor, voxel_size: list[float], spacing: Sequence[float]) -> None:
        name = file_of(image, "image")
        if len(spacing) != len(voxel_size):
            raise InputError(
                f"{name}: found {len(voxel_size)} axes, expected {len(spacing)}, one for each entry of "
                f"spacing {list(spacing)}."
            )
        factors = [new / old for new, old in zip(spacing, voxel_size, strict=True)]
        if max(max(factors), 1 / min(factors)) > IMPLAUSIBLE_FACTOR:
            unit = image.meta.get("unit", "unknown")
            raise InputError(
                f"{name}: found the voxel size {[float(f'{v:.4g}') for v in voxel_size]} (unit: {unit}), expected one "
                f"near the working voxel size {[float(f'{v:.4g}') for v in spacing]}; the units probably differ: give "
                "all files one."
            )

    def _check_growth(self, image: MetaTensor, shape: Sequence[int]) -> None:
        growth = math.prod(shape) / math.prod(image.shape[1:])
        if growth > IMPLAUSIBLE_GROWTH:
            name, in_all = file_of(image, "image"), " x ".join(map(str, shape))
            raise InputError(
                f"{name}: found voxels of which each makes {growth:.0f} of the working grid, {in_all} in all, "
                f"expected at most {IMPLAUSIBLE_GROWTH}; objects are probably larger than object_size or spacing says."
            )
