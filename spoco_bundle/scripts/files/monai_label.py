"""What MONAI Label writes of a result: arrays with axes (X, Y, Z) or (X, Y), as MONAI's own readers give them.

It takes savers out of the postprocessing and writes the result itself, in the order of axes that it expects and with
the affine of the image. Ours are (Z, Y, X) or (Y, X) (see `readers`): written as they are, a result would have its
place in the world, but another shape than the image, and a training on it would refuse it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import MetaKeys, PostFix

from .grids import is_placed

LABEL_KEY = "image_path"  # which MONAI Label adds to each of its requests, and nobody else


class ReverseAxesForMonaiLabeld(MapTransform):
    """Bring maps, and what ``image`` tells of its grid, into MONAI Label's order of axes; others are left alone.

    After the last step that wants ours. The voxels of the image stay as they are: nobody needs them any more.

    Args:
        keys: maps on the grid of the image file, (1, *spatial).
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        if LABEL_KEY not in result:
            return result
        meta = _reversed_grid(result["image"].meta)
        for key in self.key_iterator(result):
            axes = range(result[key].ndim - 1, 0, -1)
            result[key] = MetaTensor(result[key].as_tensor().permute(0, *axes), meta=meta)
        result["image"] = MetaTensor(result["image"].as_tensor(), meta=meta)
        result[PostFix.meta("image")] = meta
        return result


def _reversed_grid(meta: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    """The metadata of an image file whose spatial axes are listed backwards."""
    affine = np.asarray(meta[MetaKeys.ORIGINAL_AFFINE])
    axes = [*range(len(affine) - 2, -1, -1), -1]
    has_directions = len(affine) == 4 and is_placed(meta)
    if not has_directions and np.array_equal(affine, np.diag(np.diag(affine))):
        affine = affine[axes]  # of voxel sizes alone: the world has the axes of the array
    affine = affine[:, axes]
    return {
        **meta,
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine,
        MetaKeys.SPATIAL_SHAPE: meta[MetaKeys.SPATIAL_SHAPE][::-1],
    }
