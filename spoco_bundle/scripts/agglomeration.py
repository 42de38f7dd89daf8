"""Grow instances where embeddings are calm: a watershed into small regions, then merging of neighbours.

The regions that touch are merged in the order of the distance between their mean embeddings, until none is
closer than a threshold. Only neighbours merge, so two far objects may share an embedding, and a mean over a region
tolerates embeddings that drift inside one object better than any fixed radius.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]


def agglomerate(embeddings: Floats, foreground: NDArray[np.bool_], merge_distance: float) -> Labels:
    """Cluster embeddings into spatially connected instances.

    Args:
        embeddings: (E, *spatial).
        foreground: (*spatial), where instances may be.
        merge_distance: neighbours with mean embeddings closer than this become one.

    Returns:
        (*spatial) instance map, 0 outside the foreground.
    """
    regions = small_regions(embeddings, foreground)
    sizes, sums = region_statistics(embeddings, regions)
    pairs, contacts = touching_regions(regions)
    merged = merge_regions(sizes, sums, pairs, contacts, merge_distance)
    return merged[regions]


def small_regions(embeddings: Floats, foreground: NDArray[np.bool_]) -> Labels:
    """Watershed of the local change of the embeddings, from its minima."""
    change = ndimage.gaussian_filter(local_change(embeddings), 0.7)
    lowest = ndimage.minimum_filter(change, size=3)
    # masked minima, so that no basin starts outside; plateaus are one basin
    markers, _ = ndimage.label((change <= lowest) & foreground, structure=np.ones((3,) * foreground.ndim))
    return watershed(change, markers.astype(np.int32), mask=foreground).astype(np.int32)


def local_change(embeddings: Floats) -> Floats:
    """Mean distance of each voxel's embedding to those of its direct neighbours: (E, *spatial) -> (*spatial)."""
    total = np.zeros(embeddings.shape[1:], np.float32)
    count = np.zeros_like(total)
    for axis in range(total.ndim):
        before, after = _shifted(total.ndim, axis)
        step = np.linalg.norm(embeddings[(slice(None), *after)] - embeddings[(slice(None), *before)], axis=0)
        for side in (before, after):
            total[side] += step
            count[side] += 1
    return total / np.maximum(count, 1)


def region_statistics(embeddings: Floats, regions: Labels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Voxels per region, (R,), and the sum of their embeddings, (R, E); index 0 is the background."""
    flat = regions.ravel()
    count = int(flat.max()) + 1
    sizes = np.bincount(flat, minlength=count).astype(np.float64)
    sums = np.stack([np.bincount(flat, weights=channel.ravel(), minlength=count) for channel in embeddings], 1)
    return sizes, sums


def touching_regions(regions: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of regions that share faces, (P, 2) with the smaller id first, and how many faces they share, (P,)."""
    count = int(regions.max()) + 1
    keys = []
    for axis in range(regions.ndim):
        before, after = _shifted(regions.ndim, axis)
        first, second = regions[before].ravel(), regions[after].ravel()
        different = (first != second) & (first > 0) & (second > 0)
        first, second = first[different].astype(np.int64), second[different].astype(np.int64)
        keys.append(np.minimum(first, second) * count + np.maximum(first, second))
    unique, contacts = np.unique(np.concatenate(keys), return_counts=True)
    return np.stack([unique // count, unique % count], axis=1), contacts


def merge_regions(
    sizes: NDArray[np.float64],
    sums: NDArray[np.float64],
    pairs: NDArray[np.int64],
    contacts: NDArray[np.int64],
    merge_distance: float,
) -> Labels:
    """Merge the closest pair of neighbours again and again: (R,) old region -> consecutive new id, 0 stays 0."""
    sizes, sums = sizes.copy(), sums.copy()
    neighbours: list[set[int]] = [set() for _ in sizes]
    for first, second in pairs.tolist():
        neighbours[first].add(second)
        neighbours[second].add(first)
    parent = np.arange(len(sizes))
    version = [0] * len(sizes)

    def distance(first: int, second: int) -> float:
        return float(np.linalg.norm(sums[first] / sizes[first] - sums[second] / sizes[second]))

    means = sums / np.maximum(sizes, 1)[:, None]
    distances = np.linalg.norm(means[pairs[:, 0]] - means[pairs[:, 1]], axis=1)
    queue = [
        (gap, first, second, 0, 0)
        for gap, (first, second) in zip(distances.tolist(), pairs.tolist(), strict=True)
        if gap < merge_distance
    ]
    heapq.heapify(queue)
    while queue:
        _, first, second, first_version, second_version = heapq.heappop(queue)
        if version[first] != first_version or version[second] != second_version:
            continue  # one of the two has changed since this entry was made
        if len(neighbours[first]) < len(neighbours[second]):
            first, second = second, first
        parent[second] = first
        sizes[first] += sizes[second]
        sums[first] += sums[second]
        version[first] += 1
        version[second] = -1
        neighbours[first] |= neighbours[second]
        neighbours[first] -= {first, second}
        for other in neighbours[second]:
            neighbours[other].discard(second)
            if other != first:
                neighbours[other].add(first)
        for other in neighbours[first]:
            gap = distance(first, other)
            if gap < merge_distance:
                heapq.heappush(queue, (gap, first, other, version[first], version[other]))
    return _consecutive(_roots(parent))


def _roots(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """Follow every chain of merges to its end."""
    while True:
        grandparent = parent[parent]
        if np.array_equal(grandparent, parent):
            return parent
        parent = grandparent


def _consecutive(roots: NDArray[np.int64]) -> Labels:
    """Number the roots 0, 1, 2, ...; region 0 is its own root and the smallest, so it stays 0."""
    return np.unique(roots, return_inverse=True)[1].astype(np.int32)


def _shifted(ndim: int, axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Two views of an array whose elements are direct neighbours along `axis`."""
    before, after = [slice(None)] * ndim, [slice(None)] * ndim
    before[axis], after[axis] = slice(None, -1), slice(1, None)
    return tuple(before), tuple(after)
