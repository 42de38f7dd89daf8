"""Small regions of alike embeddings, from which instances are put together (see `agglomeration`)."""

from __future__ import annotations

import cc3d
import torch
from torch import Tensor

from .voxels import ForegroundVoxels

BLURS = 2  # of a quarter, a half and a quarter along each axis; fewer make more and smaller regions


def small_regions(voxels: ForegroundVoxels) -> Tensor:
    """Watershed of the local change of the embeddings: the region of each voxel, (N,) ids from 1.

    From each voxel one goes to the lowest of those around it, from there to the lowest around, and so on: all voxels
    from which one comes to the same minimum are a region.
    """
    change = smoothed(local_change(voxels), voxels)
    lowest, downhill = lowest_around(change, voxels)
    minimum = change <= lowest
    downhill = torch.where(minimum, torch.arange(voxels.count, device=downhill.device), downhill)
    while not torch.equal(further := downhill[downhill], downhill):  # twice as far in each round
        downhill = further
    # minima that touch, also by an edge or a corner, are one: a plateau
    plateaus = cc3d.connected_components(voxels.image(minimum), connectivity=26 if voxels.foreground.ndim == 3 else 8)
    region_of_minimum = torch.from_numpy(plateaus.astype("int64")).to(downhill.device)[voxels.foreground]
    return region_of_minimum[downhill]


def local_change(voxels: ForegroundVoxels) -> Tensor:
    """Mean distance of each voxel's embedding to those of its direct neighbours: (N,)."""
    total = voxels.vectors.new_zeros(voxels.count)
    neighbors = torch.zeros_like(total)
    for axis in range(voxels.foreground.ndim):
        first, second = voxels.faces(axis)
        step = torch.linalg.vector_norm(
            voxels.vectors.index_select(0, first) - voxels.vectors.index_select(0, second), dim=1
        )
        for side in (first, second):  # each voxel is at most once on a side
            total[side] += step
            neighbors[side] += 1
    return total / neighbors.clamp_min(1)


def smoothed(values: Tensor, voxels: ForegroundVoxels) -> Tensor:
    """Blur (N,) values a little; what lies outside counts as high as the highest, so that minima lie inside."""
    highest = values.max()
    for axis in [*range(voxels.foreground.ndim)] * BLURS:
        padded = torch.cat([values, highest[None]])
        values = (padded[voxels.before[axis, :-1]] + 2 * values + padded[voxels.after[axis, :-1]]) / 4
    return values


def lowest_around(values: Tensor, voxels: ForegroundVoxels) -> tuple[Tensor, Tensor]:
    """The lowest of each voxel's own value and those around it, corners included, and its index: (N,) each."""
    lowest = torch.cat([values, values.new_full((1,), torch.inf)])
    where = torch.arange(len(lowest), device=lowest.device)
    for axis in range(voxels.foreground.ndim):
        along, from_there = lowest, where
        for neighbor in (voxels.before[axis], voxels.after[axis]):
            lower = along[neighbor] < lowest
            lowest = torch.where(lower, along[neighbor], lowest)
            where = torch.where(lower, from_there[neighbor], where)
    return lowest[:-1], where[:-1]


def region_sums(regions: Tensor, values: Tensor, count: int) -> Tensor:
    """Sum of the values, (N, D), of each region: (count, D) float64; index 0 is no region's."""
    # column by column, because all of them in float64 would need twice the memory of the embeddings
    return torch.stack([torch.bincount(regions, column.double(), count) for column in values.T], dim=1)
