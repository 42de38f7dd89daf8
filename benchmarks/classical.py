"""What one gets without learning: smoothing, Otsu's threshold, and a watershed.

Nuclei are what is brighter than Otsu's threshold, parted by the watershed of the distance to the background (Otsu 1979;
Beucher and Meyer 1993). Cells and neurites fill the tissue: there the watershed floods the smoothed image itself, from
the minima of a smoother one. The settings are fixed, the same for every set; lengths are in voxels of the finest axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

Image = NDArray[np.floating]  # (*spatial)
Instances = NDArray[np.int32]  # (*spatial), 0 = background
SMOOTHING = 1.5  # standard deviation of the Gaussian
SEED_SMOOTHING = 4.0  # the same where it makes one seed of each cell
SEED_DISTANCE = 4  # two seeds are farther apart than that
SMALLEST = 30  # voxels of an object on background


def segment_nuclei(image: Image, voxel_size: Sequence[float]) -> Instances:
    """Objects that are brighter than the background, from an image (*spatial)."""
    edges = np.asarray(voxel_size) / min(voxel_size)
    smooth = ndimage.gaussian_filter(image.astype(np.float32), SMOOTHING / edges)
    bright = smooth > threshold_otsu(smooth)
    pieces, _ = ndimage.label(bright)  # skimage's `remove_small_objects` takes other arguments where Python is 3.10
    objects = bright & (np.bincount(pieces.ravel()) >= SMALLEST)[pieces]
    distance = ndimage.distance_transform_edt(objects, sampling=edges)
    seeds = _seeds(ndimage.gaussian_filter(distance, SMOOTHING / edges), objects)
    return watershed(-distance, seeds, mask=objects).astype(np.int32)


def segment_cells(image: Image, voxel_size: Sequence[float], boundaries: str) -> Instances:
    """Objects that fill the tissue, from an image (*spatial) with ``bright`` or ``dark`` boundaries."""
    edges = np.asarray(voxel_size) / min(voxel_size)
    smooth = ndimage.gaussian_filter(image.astype(np.float32), SMOOTHING / edges)
    sign = 1 if boundaries == "bright" else -1
    inside = ndimage.gaussian_filter(-sign * image.astype(np.float32), SEED_SMOOTHING / edges)
    seeds = _seeds(inside, np.ones(image.shape, bool))
    return watershed(sign * smooth, seeds).astype(np.int32)


def _seeds(height: Image, mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """A number at each local maximum inside the mask, 0 elsewhere."""
    peaks = peak_local_max(height, min_distance=SEED_DISTANCE, labels=mask.astype(np.int32), exclude_border=False)
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return seeds
