"""How long voxels are where files do not agree to say it: as long as those of the other files.

A stack that some program saved without its calibration has voxels of length 1, or lengths in pixels. Beside files in
micrometres that is no length at all, and objects would come out in crumbs, or as one.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from numpy.typing import ArrayLike, NDArray

from ..files.grids import counts_pixels, stated_axes
from ..files.image_files import file_of
from ..notices import SaidOnce

CLEARLY, HARDLY = 1.5, 1.2  # factors between the lengths of two voxels that differ, and that do not

logger = logging.getLogger(__name__)
logger.addFilter(SaidOnce())


def assumed_voxel_sizes(sizes: ArrayLike, stated: ArrayLike) -> NDArray[np.float64]:
    """Voxel sizes of F files, and in the place of one that a file does not state the median of those that do.

    Args:
        sizes: (F, ndim). stated: (F, ndim), see `grids.stated_axes`.

    >>> assumed_voxel_sizes([[0.5, 2.0], [1.0, 3.0]], [[True, False], [False, False]]).tolist()
    [[0.5, 2.0], [0.5, 3.0]]
    """
    sizes, stated = np.asarray(sizes, np.float64), np.asarray(stated, bool)
    counted = np.where(stated | ~stated.any(0), sizes, np.nan)
    return np.where(np.isnan(counted), np.nanmedian(counted, axis=0), sizes)


class AssumeVoxelSized(MapTransform):
    """Take voxels to be as long as those of other files along axes where only one of the two says how long they are.

    Along all axes where one of the two counts pixels, and the other has lengths. Only `affine` changes, by which images
    are resampled; `original_affine` stays that of the file. A warning tells of an image whose axes seem to be those of
    the images trained on in another order.

    Args:
        keys: MetaTensors (C, *spatial) of one grid, the image first: what it states counts.
        voxel_size: per axis, of the images trained on; None leaves everything as it is.
        stated: along which axes these state it, see `grids.stated_axes`; None the same.
        in_pixels: whether they do so in pixels, see `grids.counts_pixels`; None where nobody knows.
    """

    def __init__(
        self,
        keys: KeysCollection,
        voxel_size: Sequence[float] | None,
        stated: Sequence[bool] | None,
        in_pixels: bool | None = None,
    ) -> None:
        super().__init__(keys)
        self.voxel_size, self.stated, self.in_pixels = voxel_size, stated, in_pixels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        image = result[self.first_key(result)]
        factors = self._factors(image)
        if factors is None:
            self._warn_of_permuted_axes(image)
            return result
        for key in self.key_iterator(result):
            affine = image.affine @ torch.diag(torch.from_numpy(np.append(factors, 1)))
            meta = {"original_affine": image.affine, **result[key].meta, "affine": affine}  # also if no file told one
            result[key] = MetaTensor(result[key].as_tensor(), meta=meta)
        return result

    def _factors(self, image: MetaTensor) -> NDArray[np.float64] | None:
        """By how much longer voxels are than the file says, along each axis; None where it may be right."""
        if self.voxel_size is None or self.stated is None:
            return None
        found = stated_axes(image)
        unlike = np.not_equal(self.stated, found)
        if self.in_pixels is not None and any(found) and any(self.stated) and counts_pixels(image) != self.in_pixels:
            unlike[:] = True
        if not unlike.any():
            return None
        logger.warning(
            "%s: voxels are taken to be as long as those of the images trained on along %s, as only one of the two "
            "says how long they are",
            file_of(image, "image"),
            ", ".join(name for name, is_unlike in zip("zyx"[-len(found) :], unlike, strict=True) if is_unlike),
        )
        return np.where(unlike, np.divide(self.voxel_size, image.pixdim.numpy()), 1.0)

    def _warn_of_permuted_axes(self, image: MetaTensor) -> None:
        """The working grid has its own spacing along each axis of the array: slices must lie across the same one."""
        if self.voxel_size is None or not all(stated_axes(image)):
            return
        found = image.pixdim.numpy()
        permuted = min(_misfit(found[list(axes)], self.voxel_size) for axes in permutations(range(len(found))))
        if _misfit(found, self.voxel_size) < CLEARLY or permuted > HARDLY:
            return
        own, trained = (" x ".join(f"{length:.3g}" for length in sizes) for sizes in (found, self.voxel_size))
        logger.warning(
            "%s: voxels of %s along %s, those of the images trained on of %s: its axes seem to be in another order, "
            "by which objects are found less well; store it in the same order",
            file_of(image, "image"),
            own,
            ", ".join("zyx"[-len(found) :]),
            trained,
        )


def _misfit(found: ArrayLike, expected: ArrayLike) -> float:
    """The largest factor between two voxels along an axis."""
    return float(np.exp(np.abs(np.log(np.divide(found, expected))).max()))
