"""Small regions of alike embeddings, from which instances are put together (see `agglomeration`)."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ..geometry.voxels import ForegroundVoxels

PAIRS = 2**16  # of vectors whose distances are computed together, to save memory
WALL = 4.0  # in delta_var: half of what lies between two objects (2 delta_dist) in the paper's settings
# Where embeddings scatter, `WALL` would part one voxel from the next. So a wall is at least this many times as high as
# the lower quartile of all steps from voxel to voxel, which is a step inside an object, however thin objects are.
SCATTER = 2.5
SAMPLE = 100_000  # voxels at which steps are looked at
BLURS = 2  # of a quarter, a half and a quarter along each axis; fewer make more and smaller regions


def small_regions(voxels: ForegroundVoxels, delta_var: float = 0.5) -> Tensor:
    """Watershed of the local change of the embeddings: the region of each voxel, (N + 1,) ids from 1, 0 outside.

    From each voxel one goes to the lowest of those around it, from there to the lowest around, and so on: all voxels
    from which one comes to the same minimum are a region. No step leads through a wall, a face where embeddings jump
    far from one voxel to the next: in thin objects the minimum may lie behind it.
    """
    change, walls = local_change(voxels, wall_height(voxels, delta_var))
    downhill = lowest_around(smoothed(change, voxels, walls), voxels, walls)
    minimum = downhill == torch.arange(len(downhill), dtype=downhill.dtype, device=downhill.device)
    minimum[-1] = False
    while not torch.equal(further := downhill.index_select(0, downhill), downhill):  # twice as far in each round
        downhill = further
    number = minimum.cumsum(0, dtype=downhill.dtype)  # of a minimum among all of them, from 1
    number[-1] = 0
    return plateaus(minimum, number, voxels, walls).index_select(0, number.index_select(0, downhill))


def wall_height(voxels: ForegroundVoxels, delta_var: float) -> float:
    """How far embeddings must jump from a voxel to the next one to make a wall."""
    return max(WALL * delta_var, SCATTER * typical_steps(voxels)[0])


def typical_steps(voxels: ForegroundVoxels) -> tuple[float, float]:
    """How far embeddings jump from a voxel to the next one: the lower quartile of a sample, and what 5 % exceed.

    0 where no two voxels touch.
    """
    stride = -(-voxels.count // SAMPLE)
    # with a common divisor the sample of a volume that is all foreground could lie on one of its faces
    while math.gcd(stride, math.prod(voxels.foreground.shape)) > 1:
        stride += 1
    chosen = torch.arange(0, voxels.count, stride, device=voxels.vectors.device)
    jumps = []
    for axis in range(voxels.foreground.ndim):
        after = voxels.after(axis, chosen)
        inside = after < voxels.count
        jumps.append(distances(voxels.vectors, chosen[inside], after[inside]))
    steps = torch.cat(jumps).sort().values
    lower, upper = (float(steps[int(share * len(steps))]) if len(steps) else 0.0 for share in (0.25, 0.95))
    return lower, upper


def local_change(voxels: ForegroundVoxels, wall: float = math.inf) -> tuple[Tensor, Tensor]:
    """Mean distance of each voxel's embedding to those of its direct neighbours, and where walls are.

    A wall is a distance above `wall`; its voxels count as no neighbours of each other from then on.

    Returns:
        (N + 1,), of which the last, of what lies outside, is as high as the highest, so that minima lie inside;
        (ndim, N + 1) bool: a wall between the voxel and the one after it along an axis.
    """
    total = voxels.vectors.new_zeros(voxels.count + 1)
    neighbors = torch.zeros_like(total, dtype=torch.uint8)
    walls = torch.zeros(voxels.foreground.ndim, len(total), dtype=torch.bool, device=total.device)
    for axis in range(voxels.foreground.ndim):
        steps = torch.zeros_like(total)  # to the voxel after each one, 0 where there is none
        for portion in voxels.portions():
            after = voxels.after(axis, portion)
            here = torch.arange(portion.start, portion.stop, device=after.device)
            steps[portion] = distances(voxels.vectors, here, after).masked_fill_(after == voxels.count, 0)
            neighbors[portion] += after < voxels.count
        walls[axis] = steps > wall
        total += steps
        for portion in voxels.portions():
            before = voxels.before(axis, portion)
            total[portion] += steps.index_select(0, before)
            neighbors[portion] += before < voxels.count
    total.div_(neighbors.clamp_min_(1))
    total[-1] = total.max()
    return total, walls


def smoothed(values: Tensor, voxels: ForegroundVoxels, walls: Tensor) -> Tensor:
    """Blur (N + 1,) values a little; the last, of what lies outside, stays."""
    for axis in [*range(len(walls))] * BLURS:
        blurred = values.clone()
        for portion in voxels.portions():
            before, after = (values.index_select(0, side) for side in _open_neighbors(voxels, walls, axis, portion))
            blurred[portion] = before.add_(values[portion], alpha=2).add_(after).div_(4)
        values = blurred
    return values


def lowest_around(values: Tensor, voxels: ForegroundVoxels, walls: Tensor) -> Tensor:
    """Where the lowest is of each voxel's own value and those around it, corners included: indices, (N + 1,).

    That of a voxel than which none is lower is its own.
    """
    lowest = torch.arange(len(values), dtype=voxels.index_dtype, device=values.device)
    for axis in range(len(walls)):
        along = lowest.clone()
        for portion in voxels.portions():
            for neighbor in _open_neighbors(voxels, walls, axis, portion):
                beside = along.index_select(0, neighbor)
                is_lower = values.index_select(0, beside) < values.index_select(0, lowest[portion])
                lowest[portion] = torch.where(is_lower, beside, lowest[portion])
    return lowest


def plateaus(minimum: Tensor, number: Tensor, voxels: ForegroundVoxels, walls: Tensor) -> Tensor:
    """Minima that touch without a wall between them are one: of each of M, its plateau, (M + 1,) ids from 1, 0 first.

    minimum: (N + 1,) bool. number: (N + 1,), of each minimum among all of them, from 1.
    """
    pairs = []
    for axis in range(len(walls)):
        for portion in voxels.portions():
            after = _open_neighbors(voxels, walls, axis, portion)[1]
            first = (minimum[portion] & minimum.index_select(0, after)).nonzero()[:, 0]
            sides = number[portion].index_select(0, first), number.index_select(0, after.index_select(0, first))
            pairs.append(torch.stack(sides).cpu().numpy())
    joined, minima = np.concatenate(pairs, axis=1), int(minimum.count_nonzero())
    graph = coo_array((np.ones(joined.shape[1], bool), tuple(joined)), shape=(minima + 1, minima + 1))
    return torch.from_numpy(connected_components(graph, directed=False)[1]).to(minimum.device)


def _open_neighbors(voxels: ForegroundVoxels, walls: Tensor, axis: int, portion: slice) -> tuple[Tensor, Tensor]:
    """The voxels before and after each one of a portion, N for those behind a wall as well."""
    before, after = voxels.before(axis, portion), voxels.after(axis, portion)
    behind = walls[axis].index_select(0, before)
    return before.masked_fill_(behind, voxels.count), after.masked_fill_(walls[axis, portion], voxels.count)


def distances(vectors: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Distance between the vectors at each pair of indices, (F,) each, a portion at a time: (F,)."""
    result = vectors.new_empty(len(first))
    for portion, one, other in zip(*(column.split(PAIRS) for column in (result, first, second)), strict=True):
        difference = vectors.index_select(0, one).sub_(vectors.index_select(0, other))
        torch.linalg.vector_norm(difference, dim=1, out=portion)
    return result
