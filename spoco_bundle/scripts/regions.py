"""Small regions of alike embeddings, from which instances are put together (see `agglomeration`)."""

from __future__ import annotations

import math

import cc3d
import numpy as np
import torch
from torch import Tensor

from .voxels import ForegroundVoxels

PORTION = 2**16  # faces looked at together, to save memory
WALL = 4.0  # in delta_var: half of what lies between two objects (2 delta_dist) in the paper's settings
BLURS = 2  # of a quarter, a half and a quarter along each axis; fewer make more and smaller regions


def small_regions(voxels: ForegroundVoxels, delta_var: float = 0.5) -> Tensor:
    """Watershed of the local change of the embeddings: the region of each voxel, (N,) ids from 1.

    From each voxel one goes to the lowest of those around it, from there to the lowest around, and so on: all voxels
    from which one comes to the same minimum are a region. No step leads through a wall, a face where embeddings jump
    far from one voxel to the next: in thin objects the minimum may lie behind it.
    """
    change, *around = local_change(voxels, WALL * delta_var)
    change = smoothed(change, *around)
    lowest, downhill = lowest_around(change, *around)
    minimum = change <= lowest
    while not torch.equal(further := downhill.index_select(0, downhill), downhill):  # twice as far in each round
        downhill = further
    # minima that touch, also by an edge or a corner, are one: a plateau
    connectivity = 26 if voxels.foreground.ndim == 3 else 8
    plateaus = cc3d.connected_components(voxels.image(minimum), connectivity=connectivity, out_dtype=np.uint32)
    region_of_minimum = torch.from_numpy(plateaus.view(np.int32)).to(voxels.place.device).ravel()[voxels.place]
    return region_of_minimum.index_select(0, downhill)


def local_change(voxels: ForegroundVoxels, wall: float = math.inf) -> tuple[Tensor, Tensor, Tensor]:
    """Mean distance of each voxel's embedding to those of its direct neighbours, (N,), and these neighbours.

    The neighbours are `voxels.before` and `voxels.after` without those beyond a wall, a distance above `wall`.
    """
    total = voxels.vectors.new_zeros(voxels.count)
    neighbors = torch.zeros_like(total)
    before, after = voxels.before.clone(), voxels.after.clone()
    for axis in range(voxels.foreground.ndim):
        first, second = voxels.faces(axis)
        step = _distances(voxels.vectors, first, second)
        for side in (first, second):
            total.index_add_(0, side, step)
            neighbors.index_add_(0, side, torch.ones_like(step))
        is_wall = step > wall
        after[axis].index_fill_(0, first[is_wall].long(), voxels.count)
        before[axis].index_fill_(0, second[is_wall].long(), voxels.count)
    return total / neighbors.clamp_min(1), before, after


def _distances(vectors: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Distance between the vectors at each pair of indices, (F,) each, a portion at a time: (F,)."""
    return torch.cat(
        [
            torch.linalg.vector_norm(vectors.index_select(0, one) - vectors.index_select(0, other), dim=1)
            for one, other in zip(first.split(PORTION), second.split(PORTION), strict=True)
        ]
    )


def smoothed(values: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Blur (N,) values a little; what lies outside counts as high as the highest, so that minima lie inside.

    before, after: (ndim, N + 1), see `ForegroundVoxels`.
    """
    highest = values.max()
    for axis in [*range(len(after))] * BLURS:
        padded = torch.cat([values, highest[None]])
        one, other = (padded.index_select(0, side[axis, :-1]) for side in (before, after))
        values = (one + 2 * values + other) / 4
    return values


def lowest_around(values: Tensor, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest of each voxel's own value and those around it, corners included, and its index: (N,) each.

    The index of a voxel than which none is lower is its own. before, after: as for `smoothed`.
    """
    lowest = torch.cat([values, values.new_full((1,), torch.inf)])
    where = torch.arange(len(lowest), dtype=after.dtype, device=lowest.device)
    for axis in range(len(after)):
        along, from_there = lowest, where
        for neighbor in (before[axis], after[axis]):
            beside = along.index_select(0, neighbor)
            lower = beside < lowest
            lowest = torch.where(lower, beside, lowest)
            where = torch.where(lower, from_there.index_select(0, neighbor), where)
    return lowest[:-1], where[:-1]
