"""Small regions of alike embeddings, from which instances are put together (see `agglomeration`)."""

from __future__ import annotations

from collections.abc import Iterable

import cc3d
import numpy as np
import torch
from torch import Tensor

from .voxels import ForegroundVoxels

PORTION = 2**16  # faces looked at together, to save memory
BLURS = 2  # of a quarter, a half and a quarter along each axis; fewer make more and smaller regions


def small_regions(voxels: ForegroundVoxels) -> Tensor:
    """Watershed of the local change of the embeddings: the region of each voxel, (N,) ids from 1.

    From each voxel one goes to the lowest of those around it, from there to the lowest around, and so on: all voxels
    from which one comes to the same minimum are a region.
    """
    change = smoothed(local_change(voxels), voxels)
    lowest, downhill = lowest_around(change, voxels)
    minimum = change <= lowest
    while not torch.equal(further := downhill.index_select(0, downhill), downhill):  # twice as far in each round
        downhill = further
    # minima that touch, also by an edge or a corner, are one: a plateau
    connectivity = 26 if voxels.foreground.ndim == 3 else 8
    plateaus = cc3d.connected_components(voxels.image(minimum), connectivity=connectivity, out_dtype=np.uint32)
    region_of_minimum = torch.from_numpy(plateaus.view(np.int32)).to(voxels.place.device).ravel()[voxels.place]
    return region_of_minimum.index_select(0, downhill)


def local_change(voxels: ForegroundVoxels) -> Tensor:
    """Mean distance of each voxel's embedding to those of its direct neighbours: (N,)."""
    total = voxels.vectors.new_zeros(voxels.count)
    neighbors = torch.zeros_like(total)
    for axis in range(voxels.foreground.ndim):
        first, second = voxels.faces(axis)
        step = _distances(voxels.vectors, first, second)
        for side in (first, second):
            total.index_add_(0, side, step)
            neighbors.index_add_(0, side, torch.ones_like(step))
    return total / neighbors.clamp_min(1)


def _distances(vectors: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Distance between the vectors at each pair of indices, (F,) each, a portion at a time: (F,)."""
    return torch.cat(
        [
            torch.linalg.vector_norm(vectors.index_select(0, one) - vectors.index_select(0, other), dim=1)
            for one, other in zip(first.split(PORTION), second.split(PORTION), strict=True)
        ]
    )


def smoothed(values: Tensor, voxels: ForegroundVoxels) -> Tensor:
    """Blur (N,) values a little; what lies outside counts as high as the highest, so that minima lie inside."""
    highest = values.max()
    for axis in [*range(voxels.foreground.ndim)] * BLURS:
        padded = torch.cat([values, highest[None]])
        before, after = (padded.index_select(0, side[axis, :-1]) for side in (voxels.before, voxels.after))
        values = (before + 2 * values + after) / 4
    return values


def lowest_around(values: Tensor, voxels: ForegroundVoxels) -> tuple[Tensor, Tensor]:
    """The lowest of each voxel's own value and those around it, corners included, and its index: (N,) each.

    The index of a voxel than which none is lower is its own.
    """
    lowest = torch.cat([values, values.new_full((1,), torch.inf)])
    where = torch.arange(len(lowest), dtype=voxels.after.dtype, device=lowest.device)
    for axis in range(voxels.foreground.ndim):
        along, from_there = lowest, where
        for neighbor in (voxels.before[axis], voxels.after[axis]):
            beside = along.index_select(0, neighbor)
            lower = beside < lowest
            lowest = torch.where(lower, beside, lowest)
            where = torch.where(lower, from_there.index_select(0, neighbor), where)
    return lowest[:-1], where[:-1]


def region_sums(regions: Tensor, columns: Iterable[Tensor], count: int) -> Tensor:
    """Sum of D columns of values, (N,) each, over each region: (count, D) float64; index 0 is no region's."""
    return torch.stack([torch.bincount(regions, column.double(), count) for column in columns], dim=1)
