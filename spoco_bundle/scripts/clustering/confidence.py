"""How sure the network is of an instance: the overlap with the true object that its own embeddings promise.

Around its mean embedding every instance selects a soft version of itself: a voxel belongs to it by a Gaussian kernel of
the distance between its embedding and that mean, as in the instance term of the loss. There the soft mask is compared
with the annotated object, here with the instance that clustering has found. The two disagree where the network has not
drawn the instance's voxels together, as in a fragment or in what looks like no annotated object, and where voxels
around it would fit as well, as in an object that was cut in two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import find_objects
from torch import Tensor

from ..arrays import Labels
from ..geometry.pieces import keep_instances
from ..network.device_memory import on_host_if_too_large

Scores = NDArray[np.float64]

# Distance in delta_var at which a voxel belongs half. The loss has 1, but few annotated objects leave the others looser
# than that; on nuclei in 2D and 3D, 2 tells true instances from wrong ones better than 1, 1.5, 2.5, 3 or 4.
KERNEL_RADIUS = 2.0
ONE_AT_A_TIME = Lock()  # the number of threads is one for the whole process
MARGIN = 2  # voxels around the bounding box of an instance, in which its neighbours and the background show
NEGLIGIBLE_EXPONENT = 30.0  # 2^-30: a million such voxels belong less than one thousandth of a voxel
TILE = 8  # voxels
# Voxels of a bounding box outside its instance: with fewer, it takes longer to tell which are in reach than to ask all.
MANY_OUTSIDE = 50_000


def instance_scores(instances: Labels, embeddings: ArrayLike | Tensor, delta_var: float = 0.5) -> Scores:
    """Soft IoU of each instance with what the kernel around its mean embedding selects.

    Args:
        instances: (*spatial), 0 = background, ids 1..K without gaps.
        embeddings: (E, *spatial); the scores are computed on their device.
        delta_var: radius of an instance in embedding space, as in the loss.

    Returns:
        (K,) scores of the ids 1..K, each in [0, 1]: 1 where all embeddings of an instance are equal and none nearby
        is like them.

    Example:
        >>> instance_scores(np.array([1, 1, 0, 0]), [[0, 0, 1, 9]])  # the third belongs half
        array([0.8])
    """
    with ONE_AT_A_TIME, _one_thread():
        return on_host_if_too_large(_soft_ious, torch.as_tensor(embeddings).float(), instances, delta_var)


@contextmanager
def _one_thread() -> Iterator[None]:
    """On a CPU: in many small steps threads wait for each other, above all where other programs run as well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _soft_ious(embeddings: Tensor, instances: Labels, delta_var: float) -> Scores:
    """See `instance_scores`."""
    flat = embeddings.flatten(1)
    reach = KERNEL_RADIUS * delta_var * math.sqrt(NEGLIGIBLE_EXPONENT)
    extremes = None
    sizes, sums = [], []  # a GPU is not asked for each instance what its sums are
    boxes = find_objects(instances)
    for tight_box, voxels in zip(boxes, _voxels_of_each(instances, embeddings.device), strict=True):
        members = flat.index_select(1, voxels)  # (E, n)
        mean = members.mean(1)
        box = tuple(slice(max(0, side.start - MARGIN), side.stop + MARGIN) for side in tight_box)
        if math.prod(side.stop - side.start for side in box) > members.shape[1] + MANY_OUTSIDE:
            extremes = extremes or [_of_tiles(extreme, embeddings) for extreme in (torch.amin, torch.amax)]
            box = _within_reach(box, mean, reach, *extremes)
        around = embeddings[(slice(None), *box)]
        sums.append(torch.stack([_kernel_sum(one, mean, delta_var) for one in (members, around)]))
        sizes.append(members.shape[1])
    if not sums:
        return np.zeros(0)
    inside, total = torch.stack(sums, dim=1).cpu().numpy()
    return inside / (np.array(sizes) + np.maximum(0, total - inside))


def _voxels_of_each(instances: Labels, device: torch.device) -> tuple[Tensor, ...]:
    """Indices into the flat image of the voxels of each of the ids 1..K, in the order of the image."""
    flat = instances.ravel()
    inside = np.flatnonzero(flat)
    order = flat[inside].argsort(kind="stable")
    sizes = np.bincount(flat[inside])[1:]
    return torch.from_numpy(inside[order]).to(device).split(sizes.tolist())


def _kernel_sum(embeddings: Tensor, mean: Tensor, delta_var: float) -> Tensor:
    """How many of the voxels (E, ...) belong to the mean (E,), each by its kernel: 0-d float64."""
    difference = embeddings - mean.reshape(-1, *[1] * (embeddings.ndim - 1))
    squared = difference.square_().sum(0)
    return squared.mul_(-1 / (KERNEL_RADIUS * delta_var) ** 2).exp2_().sum(dtype=torch.float64)


def _of_tiles(extreme: Callable[..., Tensor], embeddings: Tensor) -> Tensor:
    """The least or the greatest embedding of each tile of `TILE` voxels along each axis, dimension by dimension."""
    for axis in range(1, embeddings.ndim):
        embeddings = torch.cat([extreme(tile, axis, keepdim=True) for tile in embeddings.split(TILE, axis)], axis)
    return embeddings


def _within_reach(box: tuple[slice, ...], mean: Tensor, reach: float, least: Tensor, most: Tensor) -> tuple[slice, ...]:
    """The part of a box outside of which no voxel is as near to the mean as `reach`: for long objects a small one."""
    tiles = tuple(slice(side.start // TILE, -(-side.stop // TILE)) for side in box)
    center = mean.reshape(-1, *[1] * len(box))
    gap = torch.maximum(least[(slice(None), *tiles)] - center, center - most[(slice(None), *tiles)]).clamp_min_(0)
    near = (gap.square_().sum(0) <= reach**2).nonzero().cpu().numpy().T  # a GPU is waited for
    if near.size == 0:  # the mean of scattered embeddings may be like none of them
        return (slice(0, 0),) * len(box)
    return tuple(
        slice(max(side.start, TILE * (first.start + at.min())), min(side.stop, TILE * (first.start + at.max() + 1)))
        for side, first, at in zip(box, tiles, near, strict=True)
    )


def drop_unsure(instances: Labels, scores: Scores, min_score: float) -> tuple[Labels, Scores]:
    """Drop the instances whose score is below `min_score`.

    Args:
        instances: (*spatial), 0 = background, ids 1..K.
        scores: (K,).

    Returns:
        instance map with ids 1..K' in the order they had, and their scores (K',).
    """
    sure = scores >= min_score
    return keep_instances(instances, sure), scores[sure]
