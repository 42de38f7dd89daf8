"""Random patches that hold annotated objects, wherever in the patch."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from scipy.ndimage import find_objects
from torch import Tensor

from ..tensors import plain_tensor
from .label_convention import number_objects

OBJECTS = "objects"
Box = tuple[int, tuple[slice, ...]]  # an object's id, and where it is


class FindObjectsd(MapTransform):
    """Note where each annotated object of a label map (1, *spatial) is, so that no patch has to search the image.

    Adds the key `OBJECTS`, which `RandCropAtObjectd` takes away again: a list of ids and bounding boxes.

    Args:
        keys: the label map.
        background_label, ignore_label: ids that are no objects.
    """

    def __init__(
        self, keys: KeysCollection, background_label: int | None = None, ignore_label: int | None = None
    ) -> None:
        super().__init__(keys)
        self.background_label, self.ignore_label = background_label, ignore_label

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            labels = plain_tensor(result[key])[0]
            # without gaps: an entry each
            ids, numbers = number_objects(labels, self.background_label, self.ignore_label)
            result[OBJECTS] = list(zip(ids.tolist(), find_objects(numbers.numpy()), strict=True))
        return result


class RandCropAtObjectd(Randomizable, MapTransform):
    """Crop a patch around a random voxel of a random annotated object; the voxel lies anywhere in the patch.

    With few objects annotated, most patches drawn at random hold none. An object's chance grows with the root of its
    bounding box: with equal chances slivers, of which there is little to learn, would be learned by heart, and with
    chances by volume the largest would take all. The chosen voxel is not the patch's centre: a network can tell the
    centre by its distance to the zero padding, and would learn that objects are there. The patch is a copy: what
    follows cannot change the image.

    Args:
        keys: images and label map of one grid, (C, *spatial), cropped alike.
        label_key: the label map, whose objects `FindObjectsd` has found.
        patch_size: along each axis, at most the size of the image.
        object_share: share of patches drawn so; the others, and those of images without objects, lie anywhere.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str,
        patch_size: Sequence[int],
        object_share: float = 0.9,
    ) -> None:
        super().__init__(keys)
        self.label_key, self.patch_size, self.object_share = label_key, list(patch_size), object_share

    def draw_start(self, data: Tensor, objects: Sequence[Box]) -> list[int]:
        """The first voxel of a patch in the label map (*spatial)."""
        lowest, highest = [0] * data.dim(), [n - size for n, size in zip(data.shape, self.patch_size, strict=True)]
        if objects and self.R.random() < self.object_share:
            weights = np.array([math.prod(side.stop - side.start for side in box) for _, box in objects]) ** 0.5
            id_, box = objects[self.R.choice(len(objects), p=weights / weights.sum())]
            voxels = (data[box] == id_).nonzero()
            inside = voxels[self.R.randint(len(voxels))].tolist()
            voxel = [first.start + at for first, at in zip(box, inside, strict=True)]
            lowest = [max(0, at - size + 1) for at, size in zip(voxel, self.patch_size, strict=True)]
            highest = [min(at, last) for at, last in zip(voxel, highest, strict=True)]
        return [int(self.R.randint(low, high + 1)) for low, high in zip(lowest, highest, strict=True)]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        start = self.draw_start(plain_tensor(result[self.label_key])[0], result.pop(OBJECTS))
        patch = tuple(slice(first, first + size) for first, size in zip(start, self.patch_size, strict=True))
        for key in self.key_iterator(result):
            result[key] = plain_tensor(result[key])[(slice(None), *patch)].clone()  # nobody asks where it was
        return result
