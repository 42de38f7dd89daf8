"""Instances in one piece: to split what is not, and what to do with pieces that are too small, divided or lost."""

from __future__ import annotations

from itertools import product
from typing import cast

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from skimage.segmentation import watershed

from ..arrays import Labels, Mask

Regions = NDArray[np.generic]
Sizes = NDArray[np.int64]


def face_components(labels: NDArray[np.generic]) -> NDArray[np.uint32]:
    """Number the connected components of each id of (*spatial) from 1; 0 stays 0. By faces, in 2D by edges."""
    components = cc3d.connected_components(labels, connectivity=4 if labels.ndim == 2 else 6, out_dtype=np.uint32)
    return cast("NDArray[np.uint32]", components)  # its types name all that out_dtype may be


def count_pieces(instances: Labels, count: int) -> tuple[Sizes, Sizes]:
    """How many connected components and voxels of (*spatial) each of the ids 0..count - 1 has; of 0 only voxels."""
    _, owner, sizes = owned_components(instances)
    voxels = np.bincount(owner, weights=sizes, minlength=count).astype(np.int64)
    return np.bincount(owner[1:], minlength=count), voxels


def keep_largest_pieces(instances: Labels, regions: Regions) -> Labels:
    """Keep the largest connected component of each instance; give the others to what they touch, or drop them.

    Args:
        instances: (*spatial), 0 = background.
        regions: (*spatial), over whose borders nothing is given to another instance.
    """
    components, owner, sizes = owned_components(instances)
    by_size = sizes[1:].argsort(kind="stable") + 1
    largest = np.zeros(int(instances.max()) + 1, np.int64)
    largest[owner[by_size]] = by_size  # the last one written stays
    kept = np.where(largest[instances] == components, instances, 0)
    for region in np.unique(regions[kept != instances]):
        here = regions == region
        kept = give_to_neighbors(kept, (kept != instances) & here, (instances > 0) & here)
    return kept.astype(np.int32)


def give_to_neighbors(instances: Labels, crumbs: Mask, allowed: Mask) -> Labels:
    """Let the instances around crumbs grow into them, step by step; what none can reach stays background.

    Args:
        instances: (*spatial), 0 = background, also at the crumbs.
        crumbs: (*spatial).
        allowed: (*spatial), where instances and crumbs may meet, and at all crumbs.
    """
    around = binary_dilation(crumbs) & allowed  # the flooding takes memory for each voxel of the instances that grow
    grown = watershed(np.zeros(instances.shape, np.uint8), instances, mask=around)
    return np.where(crumbs, grown, instances).astype(np.int32)


def restore_lost(instances: Labels, source: Labels, source_regions: Regions, regions: Regions) -> Labels:
    """Give each instance of `source` that is not in `instances` one voxel.

    It is the nearest one to the place of the instance that is background, or that can be taken without dividing or
    removing another instance; none where the voxels around the place have no such one.

    Args:
        instances, regions: (*spatial), of one grid.
        source, source_regions: of another grid that covers the same space.
    """
    result = instances.copy()
    is_lost = np.ones(int(source.max()) + 1, bool)
    is_lost[np.unique(instances)] = False
    is_lost[0] = False
    members = np.flatnonzero(is_lost[source])
    members = members[source.ravel()[members].argsort(kind="stable")]
    _, first, sizes = np.unique(source.ravel()[members], return_index=True, return_counts=True)
    scale = np.array(instances.shape) / source.shape
    reach = np.ceil(scale).astype(int) + 1
    for member in members[first + sizes // 2]:  # of each the voxel in the middle of its list
        center = (np.array(np.unravel_index(member, source.shape)) + 0.5) * scale - 0.5
        low = np.maximum(np.round(center).astype(int) - reach, 0)
        high = np.minimum(np.round(center).astype(int) + reach + 1, instances.shape)
        near = sorted(product(*map(range, low, high)), key=lambda voxel: sum(((voxel - center) / scale) ** 2))
        for voxel in near:
            if regions[voxel] == source_regions.flat[member] and _is_spare(result, voxel):
                result[voxel] = source.flat[member]
                break
    return result


def _is_spare(instances: Labels, voxel: tuple[int, ...]) -> bool:
    """Whether a voxel is background or what is left of its instance is one piece, as far as its neighbours tell."""
    owner = instances[voxel]
    around = tuple(slice(max(0, index - 1), index + 2) for index in voxel)
    others = instances[around] == owner
    others[tuple(min(index, 1) for index in voxel)] = False
    return owner == 0 or owned_components(others.astype(np.int32))[2].size == 2


def owned_components(instances: Labels) -> tuple[NDArray[np.uint32], Sizes, Sizes]:
    """Connected components of instances (*spatial) from 1, and of each its instance and its size; of 0, too."""
    components = face_components(instances)
    sizes = np.bincount(components.ravel())
    owner = np.zeros(len(sizes), np.int64)
    owner[components.ravel()] = instances.ravel()
    return components, owner, sizes


def keep_instances(instances: NDArray[np.integer], kept: Mask) -> Labels:
    """Keep those of the ids 1..K for which `kept` (K,) is true, and number them 1..K' in the order they had."""
    new_id = np.concatenate([[0], np.where(kept, kept.cumsum(), 0)]).astype(np.int32)
    return new_id[instances]


def clean_components(clusters: Labels, min_size: int) -> Labels:
    """Split clusters into connected components; give small ones to the large ones they touch, or drop them."""
    components = face_components(clusters)
    sizes = np.bincount(components.ravel())
    keep = sizes[1:] >= min_size
    kept = keep_instances(components, keep)
    crumbs = (components > 0) & (kept == 0)
    if not crumbs.any() or not keep.any():
        return kept
    return give_to_neighbors(kept, crumbs, components > 0)
