"""Instances on a finer grid without stairs: each voxel goes to the instance that fills most of it, interpolated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]


def resample_instances(instances: NDArray[np.integer], shape: Sequence[int]) -> NDArray[np.integer]:
    """Resample an instance map with the outlines that linear interpolation gives.

    Along axes on which the grid gets finer, the indicator of each instance is interpolated linearly, and so is that of
    the background; a voxel belongs to the largest of them. Along the other axes voxels are picked, because there most
    shares would be equal. An instance that is the largest nowhere keeps the voxels that lie nearest to its own.

    Args:
        instances: (*spatial), any ids, 0 = background.
        shape: of the result; both grids cover the same space.

    >>> resample_instances(np.array([0, 7, 7, 9]), (8,)).tolist()
    [0, 0, 7, 7, 7, 7, 9, 9]
    """
    if tuple(shape) == instances.shape:
        return instances.copy()
    ids, numbers = np.unique(np.append(instances.ravel(), 0), return_inverse=True)
    numbers = np.where(ids == 0, 0, 1 + np.arange(len(ids)))[numbers[:-1]].reshape(instances.shape)
    weights = [axis_weights(old, new) for old, new in zip(instances.shape, shape, strict=True)]
    reaches = [_reach(shares) for shares in weights]
    best, covered = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    result = np.zeros(shape, np.int64)
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        if box is None:
            continue
        target, share = _interpolated(numbers[box] == number, box, weights, reaches)
        covered[target] += share
        larger = share > best[target]
        best[target][larger], result[target][larger] = share[larger], number
    result[best <= 1 - covered] = 0
    lost = np.setdiff1d(numbers, result)
    if lost.size:
        at_nearest = numbers[np.ix_(*(shares.argmax(1) for shares in weights))]
        result = np.where(np.isin(at_nearest, lost), at_nearest, result)
    return np.append(instances.dtype.type(0), ids)[result].astype(instances.dtype)


def _interpolated(
    member: NDArray[np.bool_],
    box: Sequence[slice],
    weights: Sequence[Floats],
    reaches: Sequence[tuple[Indices, Indices]],
) -> tuple[tuple[slice, ...], Floats]:
    """Where in the result an instance has an influence, and its share of these voxels."""
    share, target = member.astype(np.float32), []
    for axis, (side, shares, (first, last)) in enumerate(zip(box, weights, reaches, strict=True)):
        target.append(slice(last.searchsorted(side.start), first.searchsorted(side.stop)))
        share = np.moveaxis(np.tensordot(shares[target[-1], side], share, (1, axis)), 0, axis)
    return tuple(target), share


def _reach(shares: Floats) -> tuple[Indices, Indices]:
    """The first and the last old voxel that contribute to each new one; both never fall."""
    contributes = shares > 0
    return contributes.argmax(1), contributes.shape[1] - 1 - contributes[:, ::-1].argmax(1)


def axis_weights(old: int, new: int) -> Floats:
    """What each old voxel of an axis contributes to each new one: (new, old), rows sum to 1.

    On a finer grid linear interpolation between voxel centres, constant beyond the outermost ones; else the voxel that
    holds the new one's centre.

    >>> axis_weights(2, 4).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    if new <= old:
        return np.eye(old, dtype=np.float32)[((np.arange(new) + 0.5) * old / new).astype(int)]
    position = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
    lower = np.floor(position).astype(int)
    weights = np.zeros((new, old), np.float32)
    np.add.at(weights, (np.arange(new), lower), 1 - (position - lower))
    np.add.at(weights, (np.arange(new), np.minimum(lower + 1, old - 1)), position - lower)
    return weights
