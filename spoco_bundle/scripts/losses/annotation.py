"""What an annotation says about each voxel, for the loss; which voxels are of which object.

On a CPU only the annotated voxels are looked at, which are few. A GPU would have to be asked how many they are, and
waits while it answers: there its kernels go through all voxels, and all sizes are known beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..transforms.label_convention import where_id
from .triton_support import runs_triton

UNLABELED = 0
LEAST_ROOM = 16  # a GPU has room for so many at least
LARGE_OBJECT = 2**15  # voxels, as many as a patch of 32^3 has: the sum of more loses more than three digits


@dataclass(frozen=True)
class Annotation:
    """What the annotation says about the voxels of a batch; the masks are (B, N) bool."""

    labels: Tensor  # (B, N) integers
    background_label: int | None = None
    ignore_label: int | None = None
    given_numbers: tuple[Tensor, int] | None = None  # `numbers` and `room` of an equal annotation, if there was one

    @classmethod
    def of(
        cls,
        labels: Tensor,
        background_label: int | None,
        ignore_label: int | None,
        given_numbers: tuple[Tensor, int] | None = None,
    ) -> Annotation:
        """Of label maps, (B, *spatial); ids need not be contiguous."""
        return cls(labels.as_subclass(Tensor).flatten(1), background_label, ignore_label, given_numbers)

    @cached_property
    def known(self) -> Tensor:
        """Not ignored."""
        return ~where_id(self.labels, self.ignore_label)

    @cached_property
    def background(self) -> Tensor:
        """Painted as background."""
        return where_id(self.labels, self.background_label) & self.known

    @cached_property
    def unlabeled(self) -> Tensor:
        """Nobody looked."""
        return (self.labels == UNLABELED) & self.known & ~self.background

    @cached_property
    def annotated(self) -> Tensor:
        """Part of an annotated object."""
        return self.known & ~self.unlabeled & ~self.background

    @property
    def numbers(self) -> Tensor:
        """(B, N) which object of its image an annotated voxel is part of, counted from 0."""
        return self._numbers[0]

    @property
    def room(self) -> int:
        """C, above all `numbers`; an image may have fewer objects, on a GPU every image (see `room_for`)."""
        return self._numbers[1]

    @cached_property
    def _numbers(self) -> tuple[Tensor, int]:
        if self.given_numbers:
            return self.given_numbers
        return _number_on_gpu(self.labels) if runs_triton(self.labels) else _number(self.labels, self._voxels)

    @cached_property
    def sizes(self) -> Tensor:
        """(B, C) voxels of each object, 0 of those that an image does not have."""
        if runs_triton(self.labels):
            return self.sum_over_objects(self.annotated.to(torch.int32)).long()
        shape = len(self.labels), self.room
        return torch.bincount(self._object_of, minlength=shape[0] * shape[1]).view(shape)

    @cached_property
    def _has_large_objects(self) -> bool:
        """Whether float32, in which a CPU adds up voxel by voxel, is too narrow for some sum."""
        return self.labels.device.type == "cpu" and bool((self.sizes > LARGE_OBJECT).any())

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

            means = sums_of_objects(embeddings, self._own, self.room) / sizes
            return means, distances_to_own(embeddings, means, self._own)
        image, voxel = self._voxels
        objects = embeddings.mT[image, voxel]  # (L, E)
        means = self.sum_over_objects(objects) / sizes
        return means, (objects - means.flatten(0, 1).index_select(0, self._object_of)).norm(dim=1)

    def sum_over_objects(self, values: Tensor) -> Tensor:
        """Sum over each object's voxels: (L, ...) of the annotated ones -> (B, C, ...); on a GPU (B, N), of all."""
        if runs_triton(values):
            from .triton_objects import sums_of_objects

            return sums_of_objects(values[:, None], self._own, self.room)[..., 0]
        shape = len(self.labels), self.room, *values.shape[1:]
        wide = values.double() if self._has_large_objects else values
        sums = wide.new_zeros(shape).flatten(0, 1).index_add(0, self._object_of, wide)
        return sums.view(shape).to(values.dtype)

    @cached_property
    def _voxels(self) -> tuple[Tensor, Tensor]:
        """Image and voxel of each of the L annotated voxels."""
        image, voxel = self.annotated.nonzero(as_tuple=True)
        return image, voxel

    @cached_property
    def _object_of(self) -> Tensor:
        """(L,) the object of each as an index into B * C."""
        return self._voxels[0] * self.room + self.numbers[self._voxels]

    @cached_property
    def _own(self) -> Tensor:
        """(B, N) the numbers as a GPU's kernels take them: -1 where there is no object."""
        return torch.where(self.annotated, self.numbers, -1).to(torch.int32)


def _number(labels: Tensor, voxels: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    """Count each image's objects from 0: (B, N) numbers at these voxels, and the most objects that an image has."""
    ids, id_of = torch.unique(labels[voxels], return_inverse=True)
    pair_of = voxels[0] * len(ids) + id_of  # an image and an id of any image
    present = torch.bincount(pair_of, minlength=len(labels) * len(ids)).view(len(labels), len(ids)) > 0
    numbers_of_ids = present.cumsum(1) - 1
    numbers = torch.zeros_like(labels, dtype=torch.long)
    numbers[voxels] = numbers_of_ids.flatten()[pair_of]
    return numbers, int(numbers_of_ids.max()) + 1 if len(ids) else 0


def _number_on_gpu(labels: Tensor) -> tuple[Tensor, int]:
    """Count each image's ids from 0, whatever they are, and the room for them: a GPU is waited for once or twice."""
    ids, numbers = torch.unique(labels, return_inverse=True)
    if len(labels) == 1 or len(ids) <= LEAST_ROOM:
        return numbers, room_for(len(ids))
    firsts = len(ids) * torch.arange(len(labels) + 1, device=labels.device)  # so that no two images share a number
    pairs, numbers = torch.unique(numbers + firsts[:-1, None], return_inverse=True)
    starts = torch.searchsorted(pairs, firsts)
    return numbers - starts[:-1, None], room_for(int(starts.diff().max()))


def room_for(count: int) -> int:
    """A little more than a count: few counts have rooms of their own, so that few steps have sizes of their own.

    >>> [room_for(count) for count in (1, 16, 17, 25, 33, 300)]
    [16, 16, 24, 32, 48, 384]
    """
    step = max(LEAST_ROOM, 2 ** (max(count - 1, 1).bit_length() - 1)) // 2
    return max(LEAST_ROOM, -(-count // step) * step)
