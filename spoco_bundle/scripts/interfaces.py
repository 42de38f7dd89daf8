"""Where two regions touch: how far the embeddings jump there, and how far they change inside the regions anyway.

A jump is measured at each face between two direct neighbours, over a few voxels on both sides: networks need some
voxels to go over from one object's embedding to the next one's, and the mean of a few is less noisy than one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .regions import neighbors_along

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]

DEPTH = 3  # voxels on each side of a face whose embeddings are averaged; fewer where the region is thinner


class Interfaces(NamedTuple):
    """Sums over the faces between the voxels of P touching pairs of regions, and over those inside R regions."""

    pairs: NDArray[np.int64]  # (P, 2), the smaller id first
    jumps: NDArray[np.float64]  # (P,)
    faces: NDArray[np.int64]  # (P,)
    inner_jumps: NDArray[np.float64]  # (R,), index 0 is the background and stays 0
    inner_faces: NDArray[np.int64]  # (R,)


def measure_interfaces(embeddings: Floats, regions: Labels) -> Interfaces:
    """Measure all faces.

    Args:
        embeddings: (E, *spatial).
        regions: (*spatial), ids from 1, 0 belongs to none.
    """
    count = int(regions.max()) + 1
    inner_jumps, inner_faces = np.zeros(count), np.zeros(count, np.int64)
    keys, jumps = [], []
    for axis in range(regions.ndim):
        jump = jumps_along(embeddings, regions, axis)
        first, second = (regions[side] for side in neighbors_along(regions.ndim, axis))
        inside = (first == second) & (first > 0)
        owner = first[inside]
        inner_jumps += np.bincount(owner, weights=jump[inside], minlength=count)
        inner_faces += np.bincount(owner, minlength=count)
        between = (first != second) & (first > 0) & (second > 0)
        one, other = first[between].astype(np.int64), second[between].astype(np.int64)
        keys.append(np.minimum(one, other) * count + np.maximum(one, other))
        jumps.append(jump[between])
    unique, pair_of = np.unique(np.concatenate(keys), return_inverse=True)
    return Interfaces(
        pairs=np.stack([unique // count, unique % count], axis=1),
        jumps=np.bincount(pair_of, weights=np.concatenate(jumps), minlength=len(unique)),
        faces=np.bincount(pair_of, minlength=len(unique)),
        inner_jumps=inner_jumps,
        inner_faces=inner_faces,
    )


def jumps_along(embeddings: Floats, regions: Labels, axis: int) -> Floats:
    """Distance between the mean embeddings on the two sides of each face: one less than `regions` along `axis`.

    A side's mean is that of the up to `DEPTH` voxels nearest to the face that belong to the region at the face.
    """
    regions = np.moveaxis(regions, axis, 0)
    squared = np.zeros((max(0, len(regions) - 1), *regions.shape[1:]), np.float32)
    if not squared.size:
        return np.moveaxis(squared, 0, axis)
    before, after = _Trailing(regions), _Trailing(regions[::-1])
    for channel in np.moveaxis(embeddings, axis + 1, 1):
        difference = before.means(channel)[:-1]
        difference -= after.means(channel[::-1])[::-1][1:]
        squared += np.square(difference, out=difference)
    return np.moveaxis(np.sqrt(squared, out=squared), 0, axis)


class _Trailing:
    """Means over a voxel and those before it on the first axis, as far as they belong to its region."""

    def __init__(self, regions: Labels) -> None:
        depth = min(DEPTH, len(regions))
        self.together = [(regions[back:] == regions[:-back]).astype(np.float32) for back in range(1, depth)]
        count = np.ones(regions.shape, np.float32)
        for back, together in enumerate(self.together, start=1):
            count[back:] += together
        self.share = 1 / count

    def means(self, channel: Floats) -> Floats:
        total = channel.astype(np.float32)
        for back, together in enumerate(self.together, start=1):
            total[back:] += together * channel[:-back]
        return np.multiply(total, self.share, out=total)
