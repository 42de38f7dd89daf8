"""Grow instances where embeddings are calm: a watershed into small regions, then merging of neighbours.

The regions that touch are merged in the order of the distance between their mean embeddings, until none is
closer than a threshold. Only neighbours merge, so two far objects may share an embedding, and a mean over a region
tolerates embeddings that drift inside one object better than any fixed radius.
"""

from __future__ import annotations

import heapq
import math

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
    merged = merge_regions(sizes, sums, touching_regions(regions), merge_distance)
    return settle_borders(merged[regions], embeddings)


def small_regions(embeddings: Floats, foreground: NDArray[np.bool_]) -> Labels:
    """Watershed of the local change of the embeddings, from its minima: (*spatial) ids from 1, 0 outside."""
    change = ndimage.gaussian_filter(local_change(embeddings), 0.7)
    change[~foreground] = np.inf  # no minimum lies outside, so every piece of the foreground holds one
    lowest = ndimage.minimum_filter(change, size=3)
    # plateaus are one basin
    markers, _ = ndimage.label((change <= lowest) & foreground, structure=np.ones((3,) * foreground.ndim))
    regions = watershed(change, markers.astype(np.int32), mask=foreground).astype(np.int32)
    # but a piece that touches another one by a corner may have its minimum there
    left, _ = ndimage.label(foreground & (regions == 0))
    return np.where(left > 0, left + regions.max(), regions).astype(np.int32)


def local_change(embeddings: Floats) -> Floats:
    """Mean distance of each voxel's embedding to those of its direct neighbours: (E, *spatial) -> (*spatial)."""
    total = np.zeros(embeddings.shape[1:], np.float32)
    count = np.zeros(embeddings.shape[1:], np.uint8)
    for axis in range(total.ndim):
        before, after = _shifted(total.ndim, axis)
        # channel by channel, because all differences together would need the memory of the embeddings once more
        step = np.zeros_like(total[after])
        for channel in embeddings:
            step += np.square(channel[after] - channel[before])
        np.sqrt(step, out=step)
        for side in (before, after):
            total[side] += step
            count[side] += 1
    return np.divide(total, np.maximum(count, 1), out=total)


def region_statistics(embeddings: Floats, regions: Labels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Voxels per region, (R,), and the sum of their embeddings, (R, E); index 0 is the background."""
    flat = regions.ravel()
    count = int(flat.max()) + 1
    sizes = np.bincount(flat, minlength=count).astype(np.float64)
    sums = np.stack([np.bincount(flat, weights=channel.ravel(), minlength=count) for channel in embeddings], 1)
    return sizes, sums


def touching_regions(regions: Labels) -> NDArray[np.int64]:
    """Pairs of regions that share a face, (P, 2), the smaller id first."""
    count = int(regions.max()) + 1
    keys = []
    for axis in range(regions.ndim):
        before, after = _shifted(regions.ndim, axis)
        first, second = regions[before].ravel(), regions[after].ravel()
        different = (first != second) & (first > 0) & (second > 0)
        first, second = first[different].astype(np.int64), second[different].astype(np.int64)
        keys.append(np.minimum(first, second) * count + np.maximum(first, second))
    unique = np.unique(np.concatenate(keys))
    return np.stack([unique // count, unique % count], axis=1)


def merge_regions(
    sizes: NDArray[np.float64], sums: NDArray[np.float64], pairs: NDArray[np.int64], merge_distance: float
) -> Labels:
    """Merge the closest pair of neighbours again and again: (R,) old region -> consecutive new id, 0 stays 0.

    A pair's distance is looked up when its turn comes, and the pair is put back if it has grown since. That a
    distance has shrunk is noticed only then, too: the price for a time that does not grow with a region's neighbours.
    """
    centers = sums / np.maximum(sizes, 1)[:, None]
    distances = np.linalg.norm(centers[pairs[:, 0]] - centers[pairs[:, 1]], axis=1)
    near = distances < merge_distance
    queue = [(gap, *pair) for gap, pair in zip(distances[near].tolist(), pairs[near].tolist(), strict=True)]
    heapq.heapify(queue)
    # lists, because for single short vectors they are several times faster than arrays
    weights, means, parent = sizes.tolist(), centers.tolist(), list(range(len(sizes)))

    def root(region: int) -> int:
        while parent[region] != region:
            parent[region] = parent[parent[region]]
            region = parent[region]
        return region

    while queue:
        recorded, first, second = heapq.heappop(queue)
        first, second = root(first), root(second)
        if first == second:
            continue
        gap = math.dist(means[first], means[second])
        if gap > recorded + 1e-12:
            if gap < merge_distance:
                heapq.heappush(queue, (gap, first, second))
            continue
        if weights[first] < weights[second]:
            first, second = second, first
        parent[second] = first
        weights[first] += weights[second]
        share = weights[second] / weights[first]
        means[first] = [a + share * (b - a) for a, b in zip(means[first], means[second], strict=True)]
    return _consecutive(np.array([root(region) for region in range(len(parent))]))


def settle_borders(instances: Labels, embeddings: Floats, rounds: int = 3) -> Labels:
    """Give voxels at a border to the one of the instances they touch whose mean embedding is nearest."""
    settled = np.pad(instances, 1)  # so that every voxel has a neighbour on each side
    inside = settled[(slice(1, -1),) * instances.ndim]
    offsets = [side * stride // settled.itemsize for stride in settled.strides for side in (-1, 1)]
    for _ in range(rounds):
        sizes, sums = region_statistics(embeddings, inside)
        means = (sums / np.maximum(sizes, 1)[:, None]).astype(np.float32)
        border = _touching_another(inside).nonzero()
        vectors = embeddings[(slice(None), *border)].T  # (M, E)
        index = np.ravel_multi_index([axis + 1 for axis in border], settled.shape)
        flat = settled.ravel()
        choice = flat[index]
        gaps = _squared_length(means[choice] - vectors)
        for offset in offsets:
            other = flat[index + offset]
            others_gaps = np.where(other > 0, _squared_length(means[other] - vectors), np.inf)
            nearer = others_gaps < gaps
            gaps[nearer], choice[nearer] = others_gaps[nearer], other[nearer]
        if np.array_equal(choice, flat[index]):
            break
        flat[index] = choice
    return inside.copy()


def _touching_another(instances: Labels) -> NDArray[np.bool_]:
    """Where a voxel shares a face with one of another instance, the background left out."""
    border = np.zeros(instances.shape, bool)
    for axis in range(instances.ndim):
        before, after = _shifted(instances.ndim, axis)
        first, second = instances[before], instances[after]
        different = (first != second) & (first > 0) & (second > 0)
        border[before] |= different
        border[after] |= different
    return border


def _squared_length(vectors: Floats) -> Floats:
    """(M, E) -> (M,)."""
    return np.einsum("me,me->m", vectors, vectors)


def _consecutive(roots: NDArray[np.int64]) -> Labels:
    """Number the roots 0, 1, 2, ...; region 0 is its own root and the smallest, so it stays 0."""
    return np.unique(roots, return_inverse=True)[1].astype(np.int32)


def _shifted(ndim: int, axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Two views of an array whose elements are direct neighbours along `axis`."""
    before, after = [slice(None)] * ndim, [slice(None)] * ndim
    before[axis], after[axis] = slice(None, -1), slice(1, None)
    return tuple(before), tuple(after)
