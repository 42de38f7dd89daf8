"""Where two regions touch: how far the embeddings jump there, and how far they change inside the regions anyway.

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
    """Sums over the faces between the voxels of P touching pairs of regions, and over those inside R - 1 regions."""

    pairs: Tensor  # (P, 2), the smaller id first
    jumps: Tensor  # (P,) float64
    faces: Tensor  # (P,)
    inner_jumps: Tensor  # (R,) float64, index 0 is no region's
    inner_faces: Tensor  # (R,)


def measure_interfaces(voxels: ForegroundVoxels, regions: Tensor) -> Interfaces:
    """Measure all faces; `regions` are (N,) ids from 1."""
    count = int(regions.max()) + 1
    inner_jumps = regions.new_zeros(count, dtype=torch.float64)
    inner_faces = regions.new_zeros(count, dtype=torch.int64)
    keys, jumps = [], []
    for axis in range(voxels.foreground.ndim):
        jump = jumps_along(voxels, regions, axis).double()
        first, second = (regions.index_select(0, side) for side in voxels.faces(axis))
        inside = first == second
        inner_jumps += torch.bincount(first[inside], jump[inside], count)
        inner_faces += torch.bincount(first[inside], minlength=count)
        one, other = first[~inside].long(), second[~inside].long()
        keys.append(torch.minimum(one, other) * count + torch.maximum(one, other))
        jumps.append(jump[~inside])
    unique, pair_of = torch.cat(keys).unique(return_inverse=True)
    return Interfaces(
        pairs=torch.stack([unique // count, unique % count], dim=1),
        jumps=torch.bincount(pair_of, torch.cat(jumps), len(unique)),
        faces=torch.bincount(pair_of, minlength=len(unique)),
        inner_jumps=inner_jumps,
        inner_faces=inner_faces,
    )


def jumps_along(voxels: ForegroundVoxels, regions: Tensor, axis: int) -> Tensor:
    """Distance between the mean embeddings on the two sides of each face along `axis`: (F,).

    A side's mean is that of the up to `DEPTH` voxels in a row from the face that belong to the region at the face.
    """
    first, second = voxels.faces(axis)
    inside = regions.index_select(0, first) == regions.index_select(0, second)
    # the next voxel of the same region, or the one for what lies outside, whose embedding is 0
    onwards, backwards = (torch.full_like(voxels.after[axis], voxels.count) for _ in range(2))
    onwards[first[inside]] = second[inside]
    backwards[second[inside]] = first[inside]
    return torch.cat(
        [
            _distances(voxels.vectors, _row(start, backwards), _row(end, onwards))
            for start, end in zip(first.split(PORTION), second.split(PORTION), strict=True)
        ]
    )


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
