"""Where two regions touch, and how far the embeddings jump there.

A jump is measured at each face between two direct neighbours, over a few voxels on both sides: networks need some
voxels to go over from one object's embedding to the next one's, and the mean of a few is less noisy than one.

Where embeddings go over slowly, or a thin region lies between two objects, no face shows how far apart these are. So
pairs of voxels some way from each other count a little as well, also those whose regions do not touch: once others
have merged in between, the two may.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from ..geometry.voxels import ForegroundVoxels
from .regions import PAIRS, distances

DEPTH = 3  # voxels on each side of a face whose embeddings are averaged; fewer where the region is thinner
DISTANCE = 8  # voxels along an axis from one voxel of a distant pair to the other
WEIGHT = 0.04  # of a distant pair in the mean jump; that of a face is 1
DRIFT = 0.5  # share of the jump of a distant pair that is taken for drift inside an object


class Interfaces(NamedTuple):
    """Sums over the faces and the distant pairs between the voxels of P pairs of regions."""

    pairs: Tensor  # (P, 2), the smaller id first
    jumps: Tensor  # (P,) float64, each times its weight
    weights: Tensor  # (P,) float64
    faces: Tensor  # (P,), 0 where the two do not touch


def measure_interfaces(voxels: ForegroundVoxels, regions: Tensor) -> Interfaces:
    """Measure all faces and distant pairs between two regions; `regions` are (N + 1,) ids from 1, 0 outside."""
    count = int(regions.max()) + 1
    measured = []
    for axis in range(voxels.foreground.ndim):
        for jumps_of, weight, faces in ((jumps_along, 1.0, 1), (distant_jumps, WEIGHT, 0)):
            for first, second, jump in jumps_of(voxels, regions, axis):
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


def jumps_along(voxels: ForegroundVoxels, regions: Tensor, axis: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The voxels on the two sides of each face between two regions along `axis`, and the jump there: (F,) each.

    A portion of the voxels at a time. A jump is the distance between the mean embeddings of the two sides, of which
    each is up to `DEPTH` voxels in a row from the face that belong to the region at the face.

    Args:
        regions: (N + 1,), 0 outside.
    """
    # the next voxel of the same region, or the one for what lies outside, whose embedding is 0
    onwards, backwards = voxels.after(axis), voxels.before(axis)
    for side in (onwards, backwards):
        for portion in voxels.portions():
            side[portion].masked_fill_(regions.index_select(0, side[portion]) != regions[portion], voxels.count)
    for portion in voxels.portions():
        after = voxels.after(axis, portion)
        first, second = _chosen((after < voxels.count) & (onwards[portion] == voxels.count), portion, after)
        jumps = [
            _row_distances(voxels.vectors, _row(start, backwards), _row(end, onwards))
            for start, end in zip(first.split(PAIRS), second.split(PAIRS), strict=True)
        ]
        yield first, second, torch.cat(jumps)


def distant_jumps(voxels: ForegroundVoxels, regions: Tensor, axis: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The voxels of each pair `DISTANCE` apart along `axis` that are in two regions, and the jump, as `jumps_along`.

    All voxels in a row between the two are in the foreground. Embeddings may drift on the way, so that the jump is the
    distance between the two embeddings without the share `DRIFT`.
    """
    after = voxels.after(axis)
    for portion in voxels.portions():
        second = after[portion]
        for _ in range(DISTANCE - 1):
            second = after.index_select(0, second)
        apart = (second < voxels.count) & (regions.index_select(0, second) != regions[portion])
        first, second = _chosen(apart, portion, second)
        yield first, second, distances(voxels.vectors, first, second) * (1 - DRIFT)


def _chosen(chosen: Tensor, portion: slice, other: Tensor) -> tuple[Tensor, Tensor]:
    """Of each chosen voxel of a portion, a mask, its index and that of the other one."""
    first = chosen.nonzero()[:, 0]
    return first.add(portion.start).to(other.dtype), other.index_select(0, first)


def _row(start: Tensor, following: Tensor) -> list[Tensor]:
    row = [start]
    while len(row) < DEPTH:
        row.append(following.index_select(0, row[-1]))
    return row


def _row_distances(vectors: Tensor, row: list[Tensor], other: list[Tensor]) -> Tensor:
    """Distance between the means of two rows of voxels at each of F faces, `DEPTH` indices (F,) each."""
    outside = len(vectors) - 1
    weights = [1 / reduce(torch.add, ((voxel < outside).float() for voxel in side)) for side in (row, other)]
    weight = torch.stack([weights[0]] * DEPTH + [-weights[1]] * DEPTH, dim=1)
    difference = embedding_bag(torch.stack([*row, *other], dim=1), vectors, per_sample_weights=weight, mode="sum")
    return torch.linalg.vector_norm(difference, dim=1)
