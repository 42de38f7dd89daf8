"""Clean truth: every object in one piece, none of them a chip, and how deep inside its object a voxel lies."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

from ..arrays import Floats, Labels
from ..geometry.balls import ball_volume
from ..geometry.pieces import owned_components
from .smoothing import voxel_steps


def largest_pieces(owner: Labels, smallest: int) -> Labels:
    """Keep of each object its largest connected piece, if it has `smallest` voxels, and number from 1."""
    pieces, objects, sizes = owned_components(owner)
    order = np.lexsort((sizes, objects))
    is_largest = np.append(np.diff(objects[order]) != 0, True)
    kept = order[is_largest]
    kept = kept[(objects[kept] > 0) & (sizes[kept] >= smallest)]
    numbers = np.zeros(len(sizes), np.int32)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return numbers[pieces]


def fewest_voxels(ndim: int, diameter: float, anisotropy: float) -> int:
    """Return the fewest voxels an object may keep: 6 % of an average one; less is a chip, not an object."""
    squeezed = 1.0 if ndim == 2 else anisotropy
    return max(8, round(0.06 * ball_volume(diameter / 2, ndim) / squeezed))


def depth_in_objects(labels: Labels, anisotropy: float) -> Floats:
    """Return each voxel's physical distance to the border of its object."""
    edge = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        moved = np.moveaxis(edge, axis, 0)
        differs = np.diff(np.moveaxis(labels, axis, 0), axis=0) != 0
        moved[1:] |= differs
        moved[:-1] |= differs
    if not edge.any():
        return np.full(labels.shape, np.inf, np.float32)
    distance = distance_transform_edt(~edge, sampling=voxel_steps(labels.ndim, anisotropy))
    return distance.astype(np.float32) + 0.5
