"""Small regions of alike embeddings, from which instances are put together (see `agglomeration`)."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from .voxels import ForegroundVoxels

PORTION = 2**16  # faces looked at together, to save memory
WALL = 4.0  # in delta_var: half of what lies between two objects (2 delta_dist) in the paper's settings
# Where embeddings scatter, `WALL` would part one voxel from the next. So a wall is at least this many times as high as
# the lower quartile of all steps from voxel to voxel, which is a step inside an object, however thin objects are.
SCATTER = 2.5
SAMPLE = 100_000  # voxels at which steps are looked at
BLURS = 2  # of a quarter, a half and a quarter along each axis; fewer make more and smaller regions


def small_regions(voxels: ForegroundVoxels, delta_var: float = 0.5) -> Tensor:
    """Watershed of the local change of the embeddings: the region of each voxel, (N,) ids from 1.

    From each voxel one goes to the lowest of those around it, from there to the lowest around, and so on: all voxels
    from which one comes to the same minimum are a region. No step leads through a wall, a face where embeddings jump
    far from one voxel to the next: in thin objects the minimum may lie behind it.
    """
    change, walls = local_change(voxels, wall_height(voxels, delta_var))
    change = smoothed(change, voxels, walls)
    lowest, downhill = lowest_around(change, voxels, walls)
    minimum = change <= lowest
    while not torch.equal(further := downhill.index_select(0, downhill), downhill):  # twice as far in each round
        downhill = further
    number = minimum.cumsum(0, dtype=downhill.dtype) - 1  # of a minimum among all of them
    return plateaus(minimum, number, voxels, walls).index_select(0, number.index_select(0, downhill))


def wall_height(voxels: ForegroundVoxels, delta_var: float) -> float:
    """How far embeddings must jump from a voxel to the next one to make a wall."""
    return max(WALL * delta_var, SCATTER * typical_steps(voxels)[0])


def typical_steps(voxels: ForegroundVoxels) -> tuple[float, float]:
    """How far embeddings jump from a voxel to the next one: the lower quartile of a sample, and what 5 % exceed.

    0 where no two voxels touch.
    """
    chosen = torch.arange(0, voxels.count, -(-voxels.count // SAMPLE), device=voxels.vectors.device)
    steps = []
    for axis in range(voxels.foreground.ndim):
        after = voxels.neighbors(axis)[1].index_select(0, chosen)
        inside = after < voxels.count
        steps.append(distances(voxels.vectors, chosen[inside], after[inside]))
    steps = torch.cat(steps).sort().values
    return tuple(float(steps[int(share * len(steps))]) if len(steps) else 0.0 for share in (0.25, 0.95))


def local_change(voxels: ForegroundVoxels, wall: float = math.inf) -> tuple[Tensor, Tensor]:
    """Mean distance of each voxel's embedding to those of its direct neighbours, and where walls are.

    A wall is a distance above `wall`; its voxels count as no neighbours of each other from then on.

    Returns:
        (N,), and (ndim, N + 1) bool: a wall between the voxel and the one after it along an axis.
    """
    total = voxels.vectors.new_zeros(voxels.count)
    neighbors = torch.zeros_like(total, dtype=torch.uint8)
    walls = torch.zeros(voxels.foreground.ndim, voxels.count + 1, dtype=torch.bool, device=total.device)
    for axis in range(voxels.foreground.ndim):
        first, second = voxels.faces(axis)
        step = distances(voxels.vectors, first, second)
        for side in (first, second):
            total.index_add_(0, side, step)
            neighbors.index_add_(0, side, torch.ones_like(side, dtype=torch.uint8))
        walls[axis].index_fill_(0, first[step > wall].long(), True)
    return total / neighbors.clamp_min(1), walls


def smoothed(values: Tensor, voxels: ForegroundVoxels, walls: Tensor) -> Tensor:
    """Blur (N,) values a little; what lies outside counts as high as the highest, so that minima lie inside."""
    highest = values.max()
    for axis in [*range(len(walls))] * BLURS:
        padded = torch.cat([values, highest[None]])
        before, after = (padded.index_select(0, side[:-1]) for side in _open_neighbors(voxels, walls, axis))
        values = before.add_(values, alpha=2).add_(after).div_(4)
    return values


def lowest_around(values: Tensor, voxels: ForegroundVoxels, walls: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest of each voxel's own value and those around it, corners included, and its index: (N,) each.

    The index of a voxel than which none is lower is its own.
    """
    lowest = torch.cat([values, values.new_full((1,), torch.inf)])
    where = torch.arange(len(lowest), dtype=voxels.index_dtype, device=lowest.device)
    for axis in range(len(walls)):
        along, from_there = lowest, where
        for neighbor in _open_neighbors(voxels, walls, axis):
            beside = along.index_select(0, neighbor)
            lower = beside < lowest
            lowest = torch.where(lower, beside, lowest)
            where = torch.where(lower, from_there.index_select(0, neighbor), where)
    return lowest[:-1], where[:-1]


def plateaus(minimum: Tensor, number: Tensor, voxels: ForegroundVoxels, walls: Tensor) -> Tensor:
    """Minima that touch without a wall between them are one: the plateau of each of M minima, (M,) ids from 1.

    minimum: (N,) bool. number: (N,), of each minimum among all of them.
    """
    pairs = []
    for axis in range(len(walls)):
        after = _open_neighbors(voxels, walls, axis)[1][:-1]
        first = (minimum & torch.cat([minimum, minimum.new_zeros(1)]).index_select(0, after)).nonzero()[:, 0]
        pairs.append(torch.stack([number[first], number.index_select(0, after[first])]).cpu().numpy())
    joined, minima = np.concatenate(pairs, axis=1), int(minimum.sum())
    graph = coo_array((np.ones(joined.shape[1], bool), tuple(joined)), shape=(minima, minima))
    return torch.from_numpy(connected_components(graph, directed=False)[1] + 1).to(minimum.device)


def _open_neighbors(voxels: ForegroundVoxels, walls: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """`ForegroundVoxels.neighbors` without those behind a wall."""
    before, after = voxels.neighbors(axis)
    behind = walls[axis].index_select(0, before)
    return before.masked_fill_(behind, voxels.count), after.masked_fill_(walls[axis], voxels.count)


def distances(vectors: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Distance between the vectors at each pair of indices, (F,) each, a portion at a time: (F,)."""
    result = vectors.new_empty(len(first))
    for portion, one, other in zip(result.split(PORTION), first.split(PORTION), second.split(PORTION), strict=True):
        difference = vectors.index_select(0, one).sub_(vectors.index_select(0, other))
        torch.linalg.vector_norm(difference, dim=1, out=portion)
    return result
