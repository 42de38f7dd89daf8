"""Where two regions touch, and how far the embeddings jump there.

A jump is measured at each face between two direct neighbours, over a few voxels on both sides: networks need some
voxels to go over from one object's embedding to the next one's, and the mean of a few is less noisy than one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from .regions import PORTION
from .voxels import ForegroundVoxels

DEPTH = 3  # voxels on each side of a face whose embeddings are averaged; fewer where the region is thinner


class Interfaces(NamedTuple):
    """Sums over the faces between the voxels of P touching pairs of regions."""

    pairs: Tensor  # (P, 2), the smaller id first
    jumps: Tensor  # (P,) float64
    faces: Tensor  # (P,)


def measure_interfaces(voxels: ForegroundVoxels, regions: Tensor) -> Interfaces:
    """Measure all faces between two regions; `regions` are (N,) ids from 1."""
    count = int(regions.max()) + 1
    keys, jumps = [], []
    for axis in range(voxels.foreground.ndim):
        first, second, jump = jumps_along(voxels, regions, axis)
        one, other = (regions.index_select(0, side).long() for side in (first, second))
        keys.append(torch.minimum(one, other) * count + torch.maximum(one, other))
        jumps.append(jump.double())
    unique, pair_of = torch.cat(keys).unique(return_inverse=True)
    return Interfaces(
        pairs=torch.stack([unique // count, unique % count], dim=1),
        jumps=torch.bincount(pair_of, torch.cat(jumps), len(unique)),
        faces=torch.bincount(pair_of, minlength=len(unique)),
    )


def jumps_along(voxels: ForegroundVoxels, regions: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """The voxels on the two sides of each face between two regions along `axis`, and the jump there: (F,) each.

    A jump is the distance between the mean embeddings of the two sides, of which each is up to `DEPTH` voxels in a row
    from the face that belong to the region at the face.
    """
    first, second = voxels.faces(axis)
    inside = regions.index_select(0, first) == regions.index_select(0, second)
    # the next voxel of the same region, or the one for what lies outside, whose embedding is 0
    onwards, backwards = (torch.full_like(voxels.after[axis], voxels.count) for _ in range(2))
    onwards[first[inside]] = second[inside]
    backwards[second[inside]] = first[inside]
    first, second = first[~inside], second[~inside]
    jumps = [
        _distances(voxels.vectors, _row(start, backwards), _row(end, onwards))
        for start, end in zip(first.split(PORTION), second.split(PORTION), strict=True)
    ]
    return first, second, torch.cat(jumps)


def _row(start: Tensor, following: Tensor) -> list[Tensor]:
    row = [start]
    while len(row) < DEPTH:
        row.append(following.index_select(0, row[-1]))
    return row


def _distances(vectors: Tensor, row: list[Tensor], other: list[Tensor]) -> Tensor:
    """Distance between the means of two rows of voxels at each of F faces, `DEPTH` indices (F,) each."""
    outside = len(vectors) - 1
    weights = [1 / sum((voxel < outside).float() for voxel in side) for side in (row, other)]
    weight = torch.stack([weights[0]] * DEPTH + [-weights[1]] * DEPTH, dim=1)
    difference = embedding_bag(torch.stack([*row, *other], dim=1), vectors, per_sample_weights=weight, mode="sum")
    return torch.linalg.vector_norm(difference, dim=1)
