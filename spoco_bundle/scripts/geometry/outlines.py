"""Instances on another grid without stairs: each voxel goes to the instance that fills most of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..arrays import Floats, Labels
from .pieces import count_pieces, keep_largest_pieces, restore_lost

Indices = NDArray[np.int64]
RegionMaps = tuple[NDArray[np.generic], NDArray[np.generic]]  # on the old and on the new grid
T = TypeVar("T", bound=np.generic)

# What an instance needs of a voxel that it shares with background. It gets less than a half only if the voxels with
# more do not make it one piece: a line one voxel wide fills an eighth to a quarter of voxels twice as large.
LEVELS = (1 / 2, 1 / 4, 1 / 8, 1 / 16, 0)
PORTION = 2**18  # pairs of an old and a new voxel that are looked at at once
DECISIVE = 100  # times the weight that decides between equals: large, but three axes of 4096 voxels fit into 63 bits
NOTHING = np.iinfo(np.int32).max  # above all numbers of instances


class Claims(NamedTuple):
    """Of each voxel of a grid (*spatial): the instance that fills most of it, and how it shares with background."""

    instance: Labels  # 0 where none fills any of it
    share: Floats  # of that instance, divided by what it and background fill together


def resample_instances(
    instances: NDArray[np.integer],
    shape: Sequence[int],
    regions: RegionMaps | None = None,
) -> NDArray[np.integer]:
    """Resample an instance map with smooth outlines, every instance in one piece.

    What an instance fills of a voxel is, along axes on which the grid gets finer, its indicator interpolated linearly;
    along axes on which it gets coarser, the part of the voxel that it covers. So it is for background. A voxel belongs
    to what fills most of it; of equals, along coarser axes, to what is at its centre, else to background or the lowest
    id.

    An instance that thereby falls into pieces or loses more than half of its volume also gets voxels of which
    background fills more, in as few steps as it takes (see `LEVELS`). If it is in several pieces after all, the largest
    stays; the others go to the instances that they touch, or to background. If there is none, it gets the nearest voxel
    that it can get without dividing another instance.

    Guaranteed: each instance of the result is one connected component (by faces; in 2D by edges) and lies in its
    region; and none is missing, unless around its place all voxels lie in other regions or hold other instances
    together.

    Args:
        instances: (*spatial), ids > 0, each in one piece; 0 = background.
        shape: of the result; both grids cover the same space.
        regions: maps of the same regions, such as classes, on both grids, (*spatial) and (*shape). In the region 0
            there is no instance. Nothing reaches over the borders of regions, which are those of the second map.

    Returns:
        (*shape) instance map of the same type.

    >>> resample_instances(np.array([0, 7, 7, 9]), (8,)).tolist()
    [0, 0, 7, 7, 7, 7, 9, 9]
    """
    if regions is None and tuple(shape) == instances.shape:
        return instances.copy()
    inside = instances if regions is None else np.where(regions[0] == 0, 0, instances)
    ids = np.union1d(inside, 0)
    numbers = ids.searchsorted(inside).astype(np.int32)
    claims = largest_shares(numbers, shape, regions)
    half = np.bincount(numbers.ravel(), minlength=len(ids)) * (math.prod(shape) / numbers.size / 2)
    result, broken = np.zeros(shape, np.int32), np.arange(len(ids)) > 0
    for level in LEVELS:
        won = broken[claims.instance] & (claims.share > level) & (result == 0)
        result[won] = claims.instance[won]
        pieces, sizes = count_pieces(np.where(broken[result], result, 0), len(ids))
        broken &= (pieces != 1) | (sizes < half)
        if not broken.any():
            break
    else:
        if regions is None:
            regions = np.broadcast_to(1, numbers.shape), np.broadcast_to(1, result.shape)
        result = keep_largest_pieces(result, regions[1])
        result = restore_lost(result, numbers, *regions)
    return ids[result].astype(instances.dtype)


def largest_shares(numbers: Labels, shape: Sequence[int], regions: RegionMaps | None = None) -> Claims:
    """Find what fills most of each voxel of another grid.

    Args:
        numbers: (*spatial) instances 1..K, 0 = background.
        shape, regions: see `resample_instances`; what lies in another region fills nothing.
    """
    weights = [axis_weights(old, new) for old, new in zip(numbers.shape, shape, strict=True)]
    instance, highest = _extremes(numbers, weights)
    several = instance != highest
    if regions is not None:
        several |= np.logical_or.reduce([extreme != regions[1] for extreme in _extremes(regions[0], weights)])
    mixed = np.flatnonzero(several)
    share = (instance > 0).astype(np.float32)
    corners = math.prod(sources.shape[1] for sources, _ in weights)
    portion = max(1, PORTION // corners)
    for start in range(0, len(mixed), portion):
        part = mixed[start : start + portion]
        sources, filled = np.zeros((1, len(part)), np.int64), np.ones((1, len(part)), np.int64)
        places = np.unravel_index(part, shape)
        for place, side, (source, weight) in zip(places, numbers.shape, weights, strict=True):
            sources = (sources[:, None] * side + source.T.take(place, 1)).reshape(-1, len(part))
            filled = (filled[:, None] * weight.T.take(place, 1)).reshape(-1, len(part))
        if regions is not None:
            filled[regions[0].ravel()[sources] != regions[1][places]] = 0
        instance.ravel()[part], share.ravel()[part] = _largest(numbers.ravel()[sources], filled)
    return Claims(instance, share)


def _extremes(values: NDArray[T], weights: Sequence[tuple[Indices, Indices]]) -> tuple[NDArray[T], NDArray[T]]:
    """The lowest and the highest of the values (*spatial) that contribute to each new voxel."""
    lowest = highest = values
    for axis, (sources, _) in reversed([*enumerate(weights)]):
        lowest = np.minimum.reduce([lowest.take(source, axis) for source in sources.T])
        highest = np.maximum.reduce([highest.take(source, axis) for source in sources.T])
    return lowest, highest


def _largest(numbers: Labels, filled: Indices) -> Claims:
    """The instance that fills most of each of n voxels: (C, n) parts of it by their numbers, and what each fills."""
    is_background = numbers == 0
    background = np.where(is_background, filled, 0).sum(0)
    rest, best, instance = filled.sum(0) - background, np.zeros_like(background), np.zeros(len(background), np.int32)
    numbers = np.where(is_background, NOTHING, numbers)
    voxels = np.flatnonzero(rest)
    numbers, filled = numbers.take(voxels, 1), filled.take(voxels, 1)
    while voxels.size:  # one instance of each voxel after the other, the lowest number first
        candidate = numbers.min(0)
        is_candidate = numbers == candidate
        total = np.where(is_candidate, filled, 0).sum(0)
        larger = total > best[voxels]
        best[voxels[larger]], instance[voxels[larger]] = total[larger], candidate[larger]
        rest[voxels] -= total
        left = np.flatnonzero(rest[voxels] > best[voxels])
        numbers = np.where(is_candidate, NOTHING, numbers).take(left, 1)
        voxels, filled = voxels[left], filled.take(left, 1)
    return Claims(instance, (best / np.maximum(best + background, 1)).astype(np.float32))


def axis_weights(old: int, new: int) -> tuple[Indices, Indices]:
    """Which old voxels of an axis contribute to each new one, and how much: (new, K) indices and weights.

    On a finer grid linear interpolation between voxel centres, constant beyond the outermost ones; else how much of the
    new voxel the old one covers, and a trifle more for the one at its centre: were two halves always decided for
    background, instances would shrink. Weights are whole numbers with equal sums, so that equal shares are found equal.

    >>> axis_weights(2, 3)  # a half and a half in the middle
    (array([[0, 1],
           [0, 1],
           [1, 1]]), array([[6, 0],
           [3, 3],
           [6, 0]]))
    """
    voxel = np.arange(new)[:, None]
    if new > old:
        lower, beyond = np.divmod(((2 * voxel + 1) * old - new).clip(0, 2 * new * (old - 1)), 2 * new)
        return np.hstack([lower, (lower + 1).clip(max=old - 1)]), np.hstack([2 * new - beyond, beyond])
    first, last = voxel * old // new, -(-(voxel + 1) * old // new)
    sources = first + np.arange((last - first).max())
    covered = np.minimum((sources + 1) * new, (voxel + 1) * old) - np.maximum(sources * new, voxel * old)
    holds_center = sources == (2 * voxel + 1) * old // (2 * new)
    return sources.clip(max=old - 1), DECISIVE * covered.clip(0) + holds_center
