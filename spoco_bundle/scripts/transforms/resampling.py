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
from monai.utils import ensure_tuple
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ..files.image_files import file_of
from ..geometry.outlines import resample_instances
from ..refusals import InputError

IMPLAUSIBLE_FACTOR = 16  # no microscope samples an object so finely; most likely the units differ
PLACE_TOLERANCE = 0.01  # voxels of the file
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
    return [int(n) for n in np.asarray(image.meta["spatial_shape"])]


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
            affine = _rescaled_affine(image.affine, old_shape, shape)
            meta = {**image.meta, "affine": affine}  # a copy: the caller's image keeps its own
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


class RestoreGridd(MapTransform):
    """Bring a map from the working grid back to the grid of the image file: instances with smooth outlines.

    Where the data hold a mask, its borders are those of the file: instances lie inside it, and inside one class of it
    each, on the grid of the file as on the working grid.

    Args:
        keys: maps (1, *working); integers are instances, see `outlines.resample_instances`; of other maps voxels are
            picked.
        source_key: the image, whose metadata (`spatial_shape`, `original_affine`) tell the grid of the file.
        classes: values of the mask in which instances lie, each in one; None takes all that is not 0 for one class.
        mask_key, file_mask_key: the mask on the working grid and on that of the file, (1, *spatial).
        min_size: instances with fewer voxels of the file are dropped.

    Raises:
        ValueError: the image does not lie where its file has it, as after a flip or a crop.
    """

    def __init__(
        self,
        keys: KeysCollection,
        source_key: str = "image",
        classes: Sequence[int] | None = None,
        mask_key: str = "mask",
        file_mask_key: str = "file_mask",
        min_size: int = 0,
    ) -> None:
        super().__init__(keys)
        self.source_key, self.classes, self.min_size = source_key, classes, min_size
        self.mask_key, self.file_mask_key = mask_key, file_mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        _check_place(result[self.source_key])
        meta, shape = dict(result[self.source_key].meta), file_shape(result[self.source_key])
        regions = None
        if self.mask_key in result:
            regions = self._regions(result[self.mask_key]), self._regions(result[self.file_mask_key])
        for key in self.key_iterator(result):
            found = torch.as_tensor(np.asarray(result[key]))
            if found.is_floating_point():
                restored = resample_nearest(found, shape)
            else:
                instances = resample_instances(found[0].numpy(), shape, regions)
                restored = torch.from_numpy(_without_small(instances, self.min_size))[None]
            result[key] = MetaTensor(restored, meta={**meta, "affine": meta["original_affine"]})
        return result

    def _regions(self, mask: Tensor) -> NDArray[np.generic]:
        classes = torch.as_tensor(mask).cpu().numpy()[0]
        return classes != 0 if self.classes is None else np.where(np.isin(classes, self.classes), classes, 0)


def _without_small(instances: NDArray[np.integer], min_size: int) -> NDArray[np.integer]:
    """The same map without instances of fewer voxels."""
    if not min_size:
        return instances
    is_small = np.bincount(instances.ravel()) < min_size
    return np.where(is_small[instances], 0, instances)


def _check_place(image: MetaTensor) -> None:
    """Refuse an image that was flipped, turned, cut or padded since it was read: only its voxels may be others."""
    ndim = image.dim() - 1
    original, affine = np.asarray(image.meta["original_affine"]), np.asarray(image.affine)
    moved = np.linalg.solve(original, affine)  # from indices to those of the file
    growth = np.divide(file_shape(image), image.shape[1:])
    stretch = moved.diagonal()[:ndim] / growth  # of what voxels are taken to be longer than the file says
    expected = np.diag([*(stretch * growth), 1.0])
    expected[:ndim, ndim] = stretch * (growth - 1) / 2  # as in `_rescaled_affine`
    if (stretch <= 0).any() or not np.allclose(moved, expected, rtol=0, atol=PLACE_TOLERANCE):
        raise InputError(
            f"{file_of(image, 'image')}: found an image that was flipped, turned, cut or padded by its preprocessing, "
            "expected one that lies as in the file, to which the result returns."
        )


def _rescaled_affine(affine: Tensor, old_shape: Sequence[int], new_shape: Sequence[int]) -> Tensor:
    """The affine of a resampled image whose outer faces have not moved."""
    ndim = len(old_shape)
    scale = torch.eye(affine.shape[0], dtype=affine.dtype)
    for axis in range(ndim):
        factor = old_shape[axis] / new_shape[axis]
        scale[axis, axis] = factor
        scale[axis, -1] = (factor - 1) / 2  # voxel centres: the first one moves by half the growth
    return affine @ scale
