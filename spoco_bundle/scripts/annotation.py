"""What an annotation says about each voxel, for the loss; which voxels are of which object."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .sampling import where_id

UNLABELED = 0


@dataclass(frozen=True)
class Annotation:
    """What the annotation says about the voxels of a batch; the masks are (B, N) bool."""

    known: Tensor  # not ignored
    annotated: Tensor  # part of an annotated object
    background: Tensor  # painted as background
    unlabeled: Tensor  # nobody looked
    voxels: tuple[Tensor, Tensor]  # where `annotated` is true: image (L,) and voxel (L,)
    object_of: Tensor  # (L,) for each of these, its object as an index into B * C
    sizes: Tensor  # (B, C) voxels per object; C is the most that an image has, the others' rest is 0

    @classmethod
    def of(cls, labels: Tensor, background_label: int | None, ignore_label: int | None) -> Annotation:
        """Read label maps, (B, *spatial); ids need not be contiguous."""
        labels = labels.as_subclass(Tensor).flatten(1)
        known = ~where_id(labels, ignore_label)
        background = where_id(labels, background_label) & known
        unlabeled = (labels == UNLABELED) & known & ~background
        annotated = known & ~unlabeled & ~background
        voxels = annotated.nonzero(as_tuple=True)
        object_of, sizes = _number_objects(len(labels), voxels[0], labels[voxels])
        return cls(known, annotated, background, unlabeled, voxels, object_of, sizes)

    @cached_property
    def exist(self) -> Tensor:
        """(B, C) bool: which objects an image has."""
        return self.sizes > 0

    @cached_property
    def objects(self) -> Tensor:
        """(B,) objects in an image."""
        return self.exist.sum(1)

    def sum_over_objects(self, values: Tensor) -> Tensor:
        """Sum over each object's voxels: (L, ...) -> (B, C, ...)."""
        sums = values.new_zeros((self.sizes.numel(), *values.shape[1:]))
        return sums.index_add(0, self.object_of, values).view(*self.sizes.shape, *values.shape[1:])


def _number_objects(images: int, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """`Annotation.object_of` and `Annotation.sizes`, from the images and labels of L voxels: objects count from 0."""
    ids, id_of = torch.unique(label, return_inverse=True)
    pair_of = image * len(ids) + id_of  # an image and an id of any image
    sizes = torch.bincount(pair_of, minlength=images * len(ids)).view(images, len(ids))
    numbers = (sizes > 0).cumsum(1) - 1
    most = int(numbers.max()) + 1 if len(ids) else 0
    numbers += most * torch.arange(images, device=label.device)[:, None]
    object_of = numbers.flatten()[pair_of]
    return object_of, torch.bincount(object_of, minlength=images * most).view(images, most)
