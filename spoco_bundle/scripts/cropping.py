"""Random patches that hold annotated objects, wherever in the patch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, SpatialCrop

from .sampling import annotated_ids


class RandCropAtObjectd(Randomizable, MapTransform):
    """Crop a patch around a random voxel of a random annotated object; the voxel lies anywhere in the patch.

    With few objects annotated, most patches drawn at random hold none. Each object has the same chance, large or
    small. The chosen voxel is not the patch's centre: a network can tell the centre by its distance to the zero
    padding, and would learn that objects are there.

    Args:
        keys: images and label map of one grid, (C, *spatial), cropped alike.
        label_key: the label map.
        patch_size: along each axis, at most the size of the image.
        object_share: share of patches drawn so; the others, and those of images without objects, lie anywhere.
        background_label, ignore_label: ids that are no objects.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str,
        patch_size: Sequence[int],
        object_share: float = 0.9,
        background_label: int | None = None,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__(keys)
        self.label_key, self.patch_size, self.object_share = label_key, list(patch_size), object_share
        self.background_label, self.ignore_label = background_label, ignore_label

    def randomize(self, data: torch.Tensor) -> list[int]:
        """Draw the first voxel of a patch in the label map (*spatial)."""
        lowest, highest = [0] * data.dim(), [n - size for n, size in zip(data.shape, self.patch_size, strict=True)]
        ids = annotated_ids(data, self.background_label, self.ignore_label)
        if len(ids) and self.R.random() < self.object_share:
            voxels = (data == ids[self.R.randint(len(ids))]).nonzero()
            voxel = voxels[self.R.randint(len(voxels))].tolist()
            lowest = [max(0, at - size + 1) for at, size in zip(voxel, self.patch_size, strict=True)]
            highest = [min(at, last) for at, last in zip(voxel, highest, strict=True)]
        return [int(self.R.randint(low, high + 1)) for low, high in zip(lowest, highest, strict=True)]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        labels = result[self.label_key]
        start = self.randomize((labels.as_tensor() if isinstance(labels, MetaTensor) else labels)[0])
        end = [first + size for first, size in zip(start, self.patch_size, strict=True)]
        crop = SpatialCrop(roi_start=start, roi_end=end)
        for key in self.key_iterator(result):
            result[key] = crop(result[key])
        return result
