"""From embeddings to instances: one door, `cluster_embeddings`, and the methods behind it."""

from __future__ import annotations

import math
from numbers import Integral, Real

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import find_objects
from sklearn.cluster import HDBSCAN
from torch import Tensor

from ..geometry.distances import squared_distances
from ..geometry.pieces import face_components, give_to_neighbors
from ..geometry.tensors import plain_tensor
from ..network.device_memory import on_host_if_too_large
from ..refusals import InputError
from .agglomeration import agglomerate

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]

# In delta_var: the loss wants objects 8 apart, so half of it lies between one and two objects. On nuclei in 2D and 3D,
# mean shift with modes 4 apart finds far more of them than with 2.
MERGE_DISTANCE = 4.0
SAMPLE = 10_000  # points that HDBSCAN and mean shift look at together; the rest is assigned to the clusters they find
SEEDS = 1_000  # points of a sample that mean shift starts from
ROUNDS = 10  # samples that mean shift draws from what it has not explained yet
AGREEMENT = 0.6  # median IoU of student and teacher below which consistency clustering drops a cluster (paper)
STEPS = 3  # of mean shift that the teacher makes from an anchor
ANCHORS = 10  # random voxels of a cluster that the teacher's instances are compared at
LARGEST = 1e15  # of an embedding's values: the squares of larger ones do not fit into float32
PORTION = 2**24  # distances computed at once

METHODS = ("auto", "mean_shift", "hdbscan", "consistency")


def cluster_embeddings(
    embeddings: ArrayLike | Tensor,
    foreground: ArrayLike | Tensor | None = None,
    method: str = "auto",
    delta_var: float = 0.5,
    min_size: int = 50,
    teacher_embeddings: ArrayLike | Tensor | None = None,
    merge_threshold: float | None = None,
) -> Labels:
    """Group pixel or voxel embeddings into instances.

    Args:
        embeddings: (E, *spatial), 2D or 3D, any real numbers; on which device, see below.
        foreground: (*spatial), true where objects may be; everywhere when not given, as in dense tissue.
        method: ``auto`` merges touching regions without a border between them (see `agglomeration`), ``mean_shift``
            with a flat kernel of radius `delta_var`, ``hdbscan``, or ``consistency``: mean shift, then only the
            clusters that the teacher selects as well (Section 3.4 of the paper).
        delta_var: radius of a cluster in embedding space, as in the loss; ``hdbscan`` needs none.
        min_size: smaller connected components, in voxels, are given to the instances they touch, or dropped.
        teacher_embeddings: (E, *spatial) of the momentum network; ``consistency`` needs them.
        merge_threshold: for ``auto``: the mean jump of the embeddings, in delta_var, that is a border; lower makes
            more and smaller instances. None: estimated from the embeddings (`agglomeration.estimated_threshold`).

    Returns:
        (*spatial) int32 instance map, 0 = background, ids 1..K; every instance is one connected component. The same
        input gives the same map.

    Raises:
        ValueError: arguments that do not fit together; embeddings that are not finite.

    What touches each embedding (regions and their borders, mean shift, the assignment to clusters) runs on the device
    of the embeddings; merging regions, HDBSCAN and connected components run on the CPU.
    """
    vectors = _checked_embeddings(embeddings, "embeddings")
    mask = _checked_foreground(foreground, tuple(vectors.shape[1:]))
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if not isinstance(delta_var, Real) or not 0 < delta_var <= LARGEST:
        raise InputError(f"delta_var must be positive and at most {LARGEST:g}, got {delta_var!r}")
    if not isinstance(min_size, Integral) or min_size < 0:
        raise InputError(f"min_size must be a whole number of voxels and not negative, got {min_size!r}")
    if merge_threshold is not None and not (isinstance(merge_threshold, Real) and merge_threshold > 0):
        raise InputError(f"merge_threshold must be positive, got {merge_threshold!r}")
    if method == "consistency" and teacher_embeddings is None:
        raise InputError("method 'consistency' needs teacher_embeddings, got None")
    if not mask.any():
        return np.zeros(mask.shape, np.int32)
    if method == "consistency":
        teacher = _checked_embeddings(teacher_embeddings, "teacher_embeddings")
        if teacher.shape != vectors.shape:
            raise InputError(
                f"teacher_embeddings must have the shape {tuple(vectors.shape)}, got {tuple(teacher.shape)}"
            )
        clusters = consistency_clusters(vectors, teacher, mask, delta_var, min_size)
    elif method == "mean_shift":
        clusters = mean_shift_clusters(vectors, mask, delta_var)
    elif method == "auto":
        clusters = on_host_if_too_large(agglomerate, vectors, torch.from_numpy(mask), delta_var, merge_threshold)
    else:
        clusters = hdbscan_clusters(vectors, mask, min_size)
    return clean_components(clusters, min_size)


def mean_shift_clusters(embeddings: Tensor, foreground: Mask, delta_var: float) -> Labels:
    """Flat-kernel mean shift of random samples; every voxel then joins the nearest mode."""
    points = _points(embeddings, foreground)
    return _fill(foreground, nearest(points, mean_shift_modes(points, delta_var)))


def hdbscan_clusters(embeddings: Tensor, foreground: Mask, min_size: int) -> Labels:
    """HDBSCAN of a random sample; every voxel then joins the cluster with the nearest mean."""
    points = _points(embeddings, foreground)
    sample = _sample(points)
    smallest = max(5, round(min_size * len(sample) / len(points)))
    if len(sample) <= smallest:
        return foreground.astype(np.int32)
    found = HDBSCAN(
        min_cluster_size=smallest, min_samples=min(5, len(sample)), allow_single_cluster=True, copy=True
    ).fit(sample.cpu().numpy())
    clusters = torch.from_numpy(found.labels_).to(points.device)  # -1 is noise
    if clusters.max() < 0:
        return foreground.astype(np.int32)
    means = torch.stack([sample[clusters == k].mean(0) for k in range(int(clusters.max()) + 1)])
    return _fill(foreground, nearest(points, means))


def consistency_clusters(
    embeddings: Tensor, teacher: Tensor, foreground: Mask, delta_var: float, min_size: int
) -> Labels:
    """Mean shift on the student, keeping a cluster only where the teacher selects the same voxels.

    Of each connected cluster some random voxels are drawn; around each, the teacher selects the voxels of the
    foreground within `delta_var` in its own embedding space, and of these only the connected component that holds
    the voxel.
    """
    clusters = clean_components(mean_shift_clusters(embeddings, foreground, delta_var), min_size)
    random = np.random.default_rng(0)
    vectors = teacher.cpu().numpy()
    for cluster, box in enumerate(_bounding_boxes(clusters), start=1):
        member = clusters[box] == cluster
        voxels = np.argwhere(member)
        chosen = voxels[random.permutation(len(voxels))[:ANCHORS]]
        nearby = vectors[(slice(None), *box)], foreground[box], member
        overlaps = [_selected_overlap(*nearby, anchor, delta_var) for anchor in chosen]
        if np.median(overlaps) < AGREEMENT:
            clusters[box][member] = 0
    return clusters


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


def mean_shift_modes(points: Tensor, radius: float) -> Tensor:
    """Modes of the density of points with a flat kernel: (N, E) -> (K, E), more than `MERGE_DISTANCE` radii apart.

    Samples are drawn again among the points that no mode explains, so that small clusters are found as well.
    """
    modes, unexplained = points[:0], points
    for _ in range(ROUNDS):
        sample = _sample(unexplained).double()  # in float32 the number of threads would show in the result
        seeds = sample[:: max(1, len(sample) // SEEDS)]
        found = _densest(_climb(seeds, sample, radius), sample, radius).to(points.dtype)
        if len(modes):
            found = found[_gaps(found, modes) > MERGE_DISTANCE * radius]
        if not len(found):
            break
        modes = torch.cat([modes, found])
        unexplained = unexplained[_gaps(unexplained, found) > MERGE_DISTANCE * radius]
        if not len(unexplained):
            break
    return modes


def _climb(seeds: Tensor, points: Tensor, radius: float, steps: int = 50) -> Tensor:
    """Move each seed, (S, E), to the mean of the points near it until it moves no more."""
    centers, moving = seeds.clone(), torch.arange(len(seeds), device=seeds.device)
    for _ in range(steps):
        near = (squared_distances(centers[moving], points.T) <= radius**2).to(points.dtype)  # (S, N)
        moved = near @ points / near.sum(1, keepdim=True).clamp_min(1)
        step = (moved - centers[moving]).norm(dim=1)
        centers[moving] = moved
        moving = moving[step > 1e-3 * radius]
        if not len(moving):
            break
    return centers


def _densest(centers: Tensor, points: Tensor, radius: float) -> Tensor:
    """Of centres within `MERGE_DISTANCE` radii of each other keep the one with most points near it."""
    density = (squared_distances(centers, points.T) <= radius**2).sum(1)
    centers = centers[density.argsort(descending=True, stable=True)]
    close = (torch.cdist(centers, centers) <= MERGE_DISTANCE * radius).cpu()
    kept = torch.ones(len(centers), dtype=torch.bool)
    for index in range(len(centers)):
        if kept[index]:
            kept[index + 1 :] &= ~close[index, index + 1 :]
    return centers[kept.to(centers.device)]


def nearest(points: Tensor, centers: Tensor) -> Tensor:
    """Index of the nearest centre of each point: (N, E), (K, E) -> (N,)."""
    return torch.cat([squared_distances(centers, part.T).argmin(0) for part in _portions(points, centers)])


def _gaps(points: Tensor, centers: Tensor) -> Tensor:
    """Distance of each point to the nearest centre: (N, E), (K, E) -> (N,)."""
    squared = [squared_distances(centers, part.T).amin(0) for part in _portions(points, centers)]
    return torch.cat(squared).clamp_min(0).sqrt()


def _portions(points: Tensor, centers: Tensor) -> tuple[Tensor, ...]:
    return points.split(max(1, PORTION // len(centers)))


def _selected_overlap(
    teacher: Floats, foreground: Mask, member: Mask, anchor: NDArray[np.int64], delta_var: float
) -> float:
    """IoU of a cluster with what the teacher selects around one of its voxels, within the foreground."""
    center = teacher[(slice(None), *anchor)]
    selected = _within(teacher, center, delta_var)
    for _ in range(STEPS):  # towards the densest place, so that an anchor at the rim of its cluster selects all of it
        center = teacher[:, selected].mean(1, dtype=np.float64).astype(np.float32)  # large offsets add up
        selected = _within(teacher, center, delta_var)
        if not selected.any():
            return 0.0
    selected &= foreground
    selected[tuple(anchor)] = True
    components = face_components(selected)
    selected = components == components[tuple(anchor)]
    return float((selected & member).sum() / (selected | member).sum())


def _within(vectors: Floats, center: Floats, radius: float) -> Mask:
    """Where the vectors, (E, *spatial), lie in a ball around `center`, (E,)."""
    difference = vectors - center.reshape(-1, *[1] * (vectors.ndim - 1))
    return np.einsum("e...,e...->...", difference, difference) <= radius**2


def _bounding_boxes(clusters: Labels) -> list[tuple[slice, ...]]:
    """Bounding box of each id 1..K, grown by its own extent on each side so that overflow of the teacher shows."""
    return [
        tuple(
            slice(max(0, side.start - (side.stop - side.start)), side.stop + (side.stop - side.start)) for side in box
        )
        for box in find_objects(clusters)
    ]


def _points(embeddings: Tensor, foreground: Mask) -> Tensor:
    """The embeddings of the foreground, one a row: (E, *spatial) -> (N, E)."""
    return embeddings[:, torch.from_numpy(foreground).to(embeddings.device)].T.contiguous()


def _sample(points: Tensor) -> Tensor:
    """At most `SAMPLE` points, the same ones at every call."""
    if len(points) <= SAMPLE:
        return points
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    return points[order[:SAMPLE].to(points.device)]


def _fill(foreground: Mask, clusters: Tensor) -> Labels:
    """Write cluster 0, 1, ... of each foreground voxel into an image as 1, 2, ..."""
    result = np.zeros(foreground.shape, np.int32)
    result[foreground] = clusters.cpu().numpy() + 1
    return result


def _checked_embeddings(embeddings: ArrayLike | Tensor, name: str) -> Tensor:
    """As float32."""
    if isinstance(embeddings, Tensor):
        vectors = plain_tensor(embeddings)
    else:
        array = np.asarray(embeddings)
        if array.dtype.kind not in "fiub":
            raise InputError(f"{name} must be real numbers, got the data type {array.dtype}")
        with np.errstate(over="ignore"):  # what does not fit into float32 becomes infinite, and is refused below
            vectors = torch.from_numpy(np.require(array, np.float32, ["C", "W"]))
    if vectors.is_complex():
        raise InputError(f"{name} must be real numbers, got the data type {vectors.dtype}")
    if vectors.ndim not in (3, 4):
        raise InputError(f"{name} must have the shape (E, *spatial) in 2D or 3D, got {tuple(vectors.shape)}")
    if not vectors.numel():
        raise InputError(f"{name} must have no empty axis, got the shape {tuple(vectors.shape)}")
    vectors = vectors.float()
    smallest, largest = (float(value) for value in vectors.aminmax())  # NaN where there is one
    if not math.isfinite(smallest) or not math.isfinite(largest):  # `isfinite` of all would need a copy of them
        raise InputError(f"{name} must be finite, got {int((~vectors.isfinite()).sum())} NaN or infinite values")
    if max(-smallest, largest) > LARGEST:
        raise InputError(f"{name} must lie within +-{LARGEST:g}, got values from {smallest:g} to {largest:g}")
    return vectors


def _checked_foreground(foreground: ArrayLike | Tensor | None, shape: tuple[int, ...]) -> Mask:
    if foreground is None:
        return np.ones(shape, bool)
    if isinstance(foreground, Tensor):
        foreground = foreground.detach().cpu()
        foreground = (foreground.float() if foreground.is_floating_point() else foreground).numpy()
    mask = np.asarray(foreground)
    if mask.dtype.kind not in "fiub":
        raise InputError(f"foreground must be a mask of 0 and 1, got the data type {mask.dtype}")
    if mask.dtype.kind == "f" and not np.isin(mask, (0, 1)).all():
        raise InputError("foreground must be a mask of 0 and 1, got other floating-point values")
    if mask.shape != shape:
        raise InputError(f"foreground must have the embeddings' spatial shape {shape}, got {mask.shape}")
    return mask.astype(bool)
