"""Where two regions touch, and how far the embeddings jump there.

A jump is measured at each face between two direct neighbours, over a few voxels on both sides: networks need some
voxels to go over from one object's embedding to the next one's, and the mean of a few is less noisy than one.

Where embeddings go over slowly, or a thin region lies between two objects, no face shows how far apart these are. So
pairs of voxels some way from each other count a little as well, also those whose regions do not touch: once others
have merged in between, the two may.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from .regions import PORTION, distances
from .voxels import ForegroundVoxels

DEPTH = 3  # voxels on each side of a face whose embeddings are averaged; fewer where the region is thinner
DISTANCE = 8  # voxels along an axis from one voxel of a distant pair to the other
WEIGHT = 0.04  # of a distant pair in the mean jump; that of a face is 1
DRIFT = 0.5  # share of the jump of a distant pair that is taken for drift inside an object
SUMMED = 2**18  # jumps summed up together: more take more memory, of fewer there are more sums to keep


class Interfaces(NamedTuple):
    """Sums over the faces and the distant pairs between the voxels of P pairs of regions."""

    pairs: Tensor  # (P, 2), the smaller id first
    jumps: Tensor  # (P,) float64, each times its weight
    weights: Tensor  # (P,) float64
    faces: Tensor  # (P,), 0 where the two do not touch


def measure_interfaces(voxels: ForegroundVoxels, regions: Tensor) -> Interfaces:
    """Measure all faces and distant pairs between two regions; `regions` are (N,) ids from 1."""
    count = int(regions.max()) + 1
    measured = []
    for axis in range(voxels.foreground.ndim):
        for jumps_of, weight, faces in ((jumps_along, 1.0, 1), (distant_jumps, WEIGHT, 0)):
            columns = jumps_of(voxels, regions, axis)
            for first, second, jump in zip(*(column.split(SUMMED) for column in columns), strict=True):
                one, other = (regions.index_select(0, side).long() for side in (first, second))
                keys = torch.minimum(one, other).mul_(count).add_(torch.maximum(one, other))
                keys, jumps, number = _sums(keys, jump.double(), torch.ones_like(keys))
                measured.append((keys, jumps * weight, number.double() * weight, number * faces))
    keys, *sums = _sums(*(torch.cat(columns) for columns in zip(*measured, strict=True)))
    return Interfaces(torch.stack([keys // count, keys % count], dim=1), *sums)


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
        _row_distances(voxels.vectors, _row(start, backwards), _row(end, onwards))
        for start, end in zip(first.split(PORTION), second.split(PORTION), strict=True)
    ]
    return first, second, torch.cat(jumps)


def distant_jumps(voxels: ForegroundVoxels, regions: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """The voxels of each pair `DISTANCE` apart along `axis` that are in two regions, and the jump: (F,) each.

    All voxels in a row between the two are in the foreground. Embeddings may drift on the way, so that the jump is the
    distance between the two embeddings without the share `DRIFT`.
    """
    after = voxels.neighbors(axis)[1]
    second = after
    for _ in range(DISTANCE - 1):
        second = after.index_select(0, second)
    first = (second < voxels.count).nonzero()[:, 0].to(voxels.index_dtype)
    second = second.index_select(0, first)
    apart = regions.index_select(0, first) != regions.index_select(0, second)
    first, second = first[apart], second[apart]
    return first, second, distances(voxels.vectors, first, second) * (1 - DRIFT)


def _row(start: Tensor, following: Tensor) -> list[Tensor]:
    row = [start]
    while len(row) < DEPTH:
        row.append(following.index_select(0, row[-1]))
    return row


def _row_distances(vectors: Tensor, row: list[Tensor], other: list[Tensor]) -> Tensor:
    """Distance between the means of two rows of voxels at each of F faces, `DEPTH` indices (F,) each."""
    outside = len(vectors) - 1
    weights = [1 / sum((voxel < outside).float() for voxel in side) for side in (row, other)]
    weight = torch.stack([weights[0]] * DEPTH + [-weights[1]] * DEPTH, dim=1)
    difference = embedding_bag(torch.stack([*row, *other], dim=1), vectors, per_sample_weights=weight, mode="sum")
    return torch.linalg.vector_norm(difference, dim=1)
