"""Results return from the working grid to the grid of the image file."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..files.image_files import file_of
from ..files.tables import SCORES_POSTFIX
from ..geometry.outlines import resample_instances
from ..geometry.pieces import keep_instances
from ..refusals import InputError
from .resampling import file_shape

PLACE_TOLERANCE = 0.01  # voxels of the file


class RestoreGridd(MapTransform):
    """Bring a map from the working grid back to the grid of the image file: instances with smooth outlines.

    The metadata of ``image`` (`spatial_shape`, `original_affine`) tell the grid of the file. Where the data hold a
    mask, its borders are those of the file: instances lie inside it, and inside one class of it each, on the grid of
    the file, ``file_mask`` (1, *spatial), as on the working grid, ``mask``.

    Args:
        keys: instances (1, *working), see `outlines.resample_instances`.
        classes: values of the mask in which instances lie, each in one; None takes all that is not 0 for one class.
        min_size: instances with fewer voxels of the file are dropped, and the others, if they are of no classes,
            numbered from 1 again; scores of ``pred`` under ``pred_scores``, the first of which is that of id 1, follow.

    Raises:
        ValueError: the image does not lie where its file has it, as after a flip or a crop.
    """

    def __init__(self, keys: KeysCollection, classes: Sequence[int] | None = None, min_size: int = 0) -> None:
        super().__init__(keys)
        self.classes, self.min_size = classes, min_size

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        image: MetaTensor = result["image"]
        _check_place(image)
        meta, shape = {**image.meta, "affine": _original_affine(image)}, file_shape(image)
        regions = None
        if "mask" in result:
            regions = self._regions(result["mask"]), self._regions(result["file_mask"])
        for key in self.key_iterator(result):
            instances = resample_instances(np.asarray(result[key])[0], shape, regions)
            if self.min_size:
                instances = self._drop_small(instances, result, f"{key}_{SCORES_POSTFIX}")
            result[key] = MetaTensor(torch.from_numpy(instances)[None], meta=meta)
        return result

    def _drop_small(
        self, instances: NDArray[np.integer], data: dict[Hashable, Any], scores_key: str
    ) -> NDArray[np.integer]:
        sizes = np.bincount(instances.ravel(), minlength=1 + len(data.get(scores_key, ())))
        kept = sizes >= self.min_size
        if self.classes is not None:  # by which ids are numbered
            return np.where(kept[instances], instances, 0)
        if scores_key in data:
            data[scores_key] = data[scores_key][torch.from_numpy(kept[1:])]
        return keep_instances(instances, kept[1:])

    def _regions(self, mask: Tensor) -> NDArray[np.generic]:
        classes = torch.as_tensor(mask).cpu().numpy()[0]
        return classes != 0 if self.classes is None else np.where(np.isin(classes, self.classes), classes, 0)


def _original_affine(image: MetaTensor) -> ArrayLike:
    """That of the file; the image's own where it was never read from one, nor resampled."""
    affine: ArrayLike = image.meta.get("original_affine", image.affine)
    return affine


def _check_place(image: MetaTensor) -> None:
    """Refuse an image that was flipped, turned, cut or padded since it was read: only its voxels may be others."""
    ndim = image.dim() - 1
    original, affine = np.asarray(_original_affine(image)), np.asarray(image.affine)
    moved = np.linalg.solve(original, affine)  # from indices to those of the file
    growth = np.divide(file_shape(image), image.shape[1:])
    stretch = moved.diagonal()[:ndim] / growth  # of what voxels are taken to be longer than the file says
    expected = np.diag([*(stretch * growth), 1.0])
    expected[:ndim, ndim] = stretch * (growth - 1) / 2  # as in `resampling`
    if (stretch <= 0).any() or not np.allclose(moved, expected, rtol=0, atol=PLACE_TOLERANCE):
        raise InputError(
            f"{file_of(image, 'image')}: found an image that was flipped, turned, cut or padded by its preprocessing, "
            "expected one that lies as in the file, to which the result returns."
        )
