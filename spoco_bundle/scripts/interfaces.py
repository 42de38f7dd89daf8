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
    measured = []
    for axis in range(voxels.foreground.ndim):  # summed up axis by axis, which saves memory
        first, second, jump = jumps_along(voxels, regions, axis)
        one, other = (regions.index_select(0, side).long() for side in (first, second))
        keys = torch.minimum(one, other).mul_(count).add_(torch.maximum(one, other))
        measured.append(_sums(keys, jump.double(), torch.ones_like(keys)))
    keys, jumps, faces = _sums(*(torch.cat(columns) for columns in zip(*measured, strict=True)))
    return Interfaces(torch.stack([keys // count, keys % count], dim=1), jumps, faces)


def _sums(keys: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """The distinct keys, (P,), and for each the sum of the values, (F,) each, that share it."""
    unique, position = keys.unique(return_inverse=True)
    return unique, *(value.new_zeros(len(unique)).index_add_(0, position, value) for value in values)


def jumps_along(voxels: ForegroundVoxels, regions: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """The voxels on the two sides of each face between two regions along `axis`, and the jump there: (F,) each.

    A jump is the distance between the mean embeddings of the two sides, of which each is up to `DEPTH` voxels in a row
    from the face that belong to the region at the face.
    """
    first, second = voxels.faces(axis)
    inside = regions.index_select(0, first) == regions.index_select(0, second)
    # the next voxel of the same region, or the one for what lies outside, whose embedding is 0
    onwards, backwards = (first.new_full((voxels.count + 1,), voxels.count) for _ in range(2))
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
