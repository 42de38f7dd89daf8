"""Long objects are learned in pieces: no network can tell where the middle of an object is whose ends it does not see.

A neurite runs through the whole patch, and a pull towards its mean is a pull towards a point that only this patch has.
So an object is cut where it is longer than a few usual ones, each time at other places. What a network can learn from
that is what is the same for all cuts: embeddings are drawn together across the object and drift along it, and jump at
its borders. Such a drift is no border to the clustering (see `agglomeration`), which puts the pieces together again.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Mapping, Set
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from torch import Tensor


class RandCutLongObjectsd(Randomizable, MapTransform):
    """Give the pieces of long annotated objects ids of their own.

    Args:
        keys: label maps (1, *spatial) on the working grid; 0 is unlabelled.
        size: in voxels; objects whose voxels are all closer to each other stay whole, and the middles of pieces are at
            least so far from each other.
        background_label, ignore_label: ids that are no objects.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: float,
        background_label: int | None = None,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__(keys)
        if not size > 0:
            raise ValueError(f"size must be positive, got {size}")
        self.size = size
        self.special = [label for label in (0, background_label, ignore_label) if label is not None]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            labels = result[key]
            present = torch.unique(torch.as_tensor(labels)).tolist()
            unused = unused_ids({*present, *self.special})
            for id_ in present:
                if id_ in self.special:
                    continue
                voxels = (torch.as_tensor(labels)[0] == id_).nonzero()
                piece = self.randomize(voxels)
                ids = [id_, *itertools.islice(unused, int(piece.max()))]
                labels[(0, *voxels.unbind(1))] = torch.tensor(ids, dtype=labels.dtype)[piece]
        return result

    def randomize(self, voxels: Tensor) -> Tensor:
        """Draw a voxel, and others that are `size` away from all before, and tell which is nearest: (N, D) -> (N,)."""
        positions = voxels.double()
        nearest, piece = torch.full((len(voxels),), torch.inf, dtype=torch.float64), torch.zeros(len(voxels)).long()
        number = 0
        while (far := (nearest >= self.size).nonzero()[:, 0]).numel():
            middle = positions[far[self.R.randint(len(far))]]
            distance = (positions - middle).norm(dim=1)
            piece[distance < nearest] = number
            nearest = torch.minimum(nearest, distance)
            number += 1
        return piece


def unused_ids(taken: Set[int]) -> Iterator[int]:
    """1, 2, 3, ... without those that are taken."""
    return (id_ for id_ in itertools.count(1) if id_ not in taken)
