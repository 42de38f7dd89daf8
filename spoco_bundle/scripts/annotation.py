"""What an annotation says about each voxel, for the loss; which voxels are of which object.

On a CPU only the annotated voxels are looked at, which are few. A GPU would have to be asked how many they are, and
waits while it answers: there its kernels go through all voxels, and all sizes are known beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .sampling import where_id
from .triton_support import runs_triton

UNLABELED = 0
NOBODY_LOOKED, BACKGROUND, IGNORED = -1, -2, -3  # in the place of an object's number
FEW_OBJECTS = 16  # a GPU has room for so many, or a power of two: then few numbers of objects differ in their sizes


@dataclass(frozen=True)
class Annotation:
    """What the annotation says about the voxels of a batch; the masks are (B, N) bool."""

    numbers: Tensor  # (B, N) integers: the object that a voxel is part of, below C, or one of the above
    most: int  # C, of which an image may have fewer

    @classmethod
    def of(cls, labels: Tensor, background_label: int | None, ignore_label: int | None) -> Annotation:
        """Read label maps, (B, *spatial); ids need not be contiguous."""
        labels = labels.as_subclass(Tensor).flatten(1)
        known = ~where_id(labels, ignore_label)
        background = where_id(labels, background_label) & known
        annotated = (labels != UNLABELED) & known & ~background
        numbers, most = (_number_on_gpu if runs_triton(labels) else _number_objects)(labels, annotated)
        numbers.masked_fill_(~annotated, NOBODY_LOOKED).masked_fill_(background, BACKGROUND)
        return cls(numbers.masked_fill_(~known, IGNORED), most)

    @cached_property
    def known(self) -> Tensor:
        """Not ignored."""
        return self.numbers != IGNORED

    @cached_property
    def annotated(self) -> Tensor:
        """Part of an annotated object."""
        return self.numbers >= 0

    @cached_property
    def background(self) -> Tensor:
        """Painted as background."""
        return self.numbers == BACKGROUND

    @cached_property
    def unlabeled(self) -> Tensor:
        """Nobody looked."""
        return self.numbers == NOBODY_LOOKED

    @cached_property
    def sizes(self) -> Tensor:
        """(B, C) voxels of each object, 0 of those that an image does not have."""
        if runs_triton(self.numbers):
            return self.sum_over_objects(self.annotated.to(torch.int32)).long()
        shape = len(self.numbers), self.most
        return torch.bincount(self._object_of, minlength=shape[0] * shape[1]).view(shape)

    @cached_property
    def exist(self) -> Tensor:
        """(B, C) bool: which objects an image has."""
        return self.sizes > 0

    @cached_property
    def objects(self) -> Tensor:
        """(B,) objects in an image."""
        return self.exist.sum(1)

    def means_and_distances(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """The mean embedding of each object, and how far from its own each voxel of an object lies.

        Args:
            embeddings: (B, E, N).

        Returns:
            means (B, C, E), 0 for objects that an image does not have, and distances as `sum_over_objects` takes them.
        """
        sizes = self.sizes.clamp_min(1)[..., None]
        if runs_triton(embeddings):
            from .triton_objects import distances_to_own, sums_of_objects  # needs Triton

            means = sums_of_objects(embeddings, self.numbers, self.most) / sizes
            return means, distances_to_own(embeddings, means, self.numbers)
        image, voxel = self._voxels
        objects = embeddings[image, :, voxel]  # (L, E)
        means = self.sum_over_objects(objects) / sizes
        return means, (objects - means.flatten(0, 1).index_select(0, self._object_of)).norm(dim=1)

    def sum_over_objects(self, values: Tensor) -> Tensor:
        """Sum over each object's voxels: (L, ...) of the L annotated voxels -> (B, C, ...); on a GPU of all, (B, N)."""
        if runs_triton(values):
            from .triton_objects import sums_of_objects

            return sums_of_objects(values[:, None], self.numbers, self.most)[..., 0]
        shape = len(self.numbers), self.most, *values.shape[1:]
        return values.new_zeros(shape).flatten(0, 1).index_add(0, self._object_of, values).view(shape)

    @cached_property
    def _voxels(self) -> tuple[Tensor, Tensor]:
        """Image and voxel of each of the L annotated voxels."""
        return self.annotated.nonzero(as_tuple=True)

    @cached_property
    def _object_of(self) -> Tensor:
        """(L,) the object of each as an index into B * C."""
        return self._voxels[0] * self.most + self.numbers[self._voxels]


def _number_objects(labels: Tensor, annotated: Tensor) -> tuple[Tensor, int]:
    """Count each image's objects from 0: (B, N) numbers where `annotated`, and the most that an image has."""
    voxels = annotated.nonzero(as_tuple=True)
    ids, id_of = torch.unique(labels[voxels], return_inverse=True)
    pair_of = voxels[0] * len(ids) + id_of  # an image and an id of any image
    present = torch.bincount(pair_of, minlength=len(labels) * len(ids)).view(len(labels), len(ids)) > 0
    numbers_of_ids = present.cumsum(1) - 1
    numbers = torch.zeros_like(labels, dtype=torch.long)
    numbers[voxels] = numbers_of_ids.flatten()[pair_of]
    return numbers, int(numbers_of_ids.max()) + 1 if len(ids) else 0


def _number_on_gpu(labels: Tensor, annotated: Tensor) -> tuple[Tensor, int]:
    """The same for a GPU, which is waited for once; the numbers of an image may leave some out."""
    ids, numbers = torch.unique(labels, return_inverse=True)
    room = max(FEW_OBJECTS, 2 ** (len(ids) - 1).bit_length())
    return numbers.to(torch.int32), room
