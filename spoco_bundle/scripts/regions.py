"""Small regions of alike embeddings, from which instances are put together (see `agglomeration`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]


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
        before, after = neighbors_along(total.ndim, axis)
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


def region_centers(regions: Labels) -> NDArray[np.float64]:
    """Mean position of each region in voxels, (R, ndim); index 0 is the background."""
    flat = regions.ravel()
    sizes = np.maximum(np.bincount(flat), 1)
    centers = [
        np.bincount(flat, weights=np.broadcast_to(along, regions.shape).ravel())
        for along in np.ogrid[tuple(slice(size) for size in regions.shape)]
    ]
    return np.stack(centers, 1) / sizes[:, None]


def neighbors_along(ndim: int, axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Two views of an array whose elements are direct neighbours along `axis`."""
    before, after = [slice(None)] * ndim, [slice(None)] * ndim
    before[axis], after[axis] = slice(None, -1), slice(1, None)
    return tuple(before), tuple(after)
