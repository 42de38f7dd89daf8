"""From embeddings to instances: one door, `cluster_embeddings`, and the methods behind it."""

from __future__ import annotations

from collections.abc import Callable

import cc3d
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from skimage.segmentation import watershed
from sklearn.cluster import HDBSCAN

from .agglomeration import agglomerate
from .pairwise import squared_distances

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]

MERGE_DISTANCE = 4.0  # in delta_var: the loss wants objects 8 apart, so half of it lies between one and two objects
SAMPLE = 10_000  # points that HDBSCAN and mean shift look at; the rest is assigned to the clusters they find
AGREEMENT = 0.6  # median IoU of student and teacher below which consistency clustering drops a cluster (paper)
ANCHORS = 10  # random voxels of a cluster that the teacher's instances are compared at


def cluster_embeddings(
    embeddings: ArrayLike | torch.Tensor,
    foreground: ArrayLike | torch.Tensor | None = None,
    method: str = "auto",
    delta_var: float = 0.5,
    min_size: int = 50,
    teacher_embeddings: ArrayLike | torch.Tensor | None = None,
) -> Labels:
    """Group pixel or voxel embeddings into instances.

    Args:
        embeddings: (E, *spatial), 2D or 3D.
        foreground: (*spatial), true where objects may be; everywhere when not given, as in dense tissue.
        method: ``auto`` merges touching regions of similar embedding (see `agglomeration`), ``mean_shift`` with
            a flat kernel of radius `delta_var`, ``hdbscan``, or ``consistency``: mean shift, then only the
            clusters that the teacher selects as well (Section 3.4 of the paper).
        delta_var: radius of a cluster in embedding space, as in the loss.
        min_size: smaller connected components, in voxels, are given to the instances they touch, or dropped.
        teacher_embeddings: (E, *spatial) of the momentum network; ``consistency`` needs them.

    Returns:
        (*spatial) int32 instance map, 0 = background, ids 1..K; every instance is one connected component.

    Raises:
        ValueError: arguments that do not fit together; embeddings that are not finite.
    """
    vectors = _checked_embeddings(embeddings)
    mask = _checked_foreground(foreground, vectors.shape[1:])
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if delta_var <= 0:
        raise ValueError(f"delta_var must be positive, got {delta_var}")
    if not mask.any():
        return np.zeros(mask.shape, np.int32)
    if method == "consistency":
        if teacher_embeddings is None:
            raise ValueError("method 'consistency' needs teacher_embeddings, got None")
        teacher = _checked_embeddings(teacher_embeddings)
        if teacher.shape != vectors.shape:
            raise ValueError(f"teacher_embeddings must have the shape {vectors.shape}, got {teacher.shape}")
        clusters = consistency_clusters(vectors, teacher, mask, delta_var, min_size)
    else:
        clusters = METHODS[method](vectors, mask, delta_var, min_size)
    return clean_components(clusters, mask, min_size)


def auto_clusters(embeddings: Floats, foreground: Mask, delta_var: float, min_size: int) -> Labels:
    """Agglomeration of touching regions: exact where objects touch, blind to what is far away."""
    return agglomerate(embeddings, foreground, MERGE_DISTANCE * delta_var)


def mean_shift_clusters(embeddings: Floats, foreground: Mask, delta_var: float, min_size: int) -> Labels:
    """Flat-kernel mean shift of a random sample; every voxel then joins the nearest mode."""
    points = torch.from_numpy(np.ascontiguousarray(embeddings[:, foreground].T))  # (N, E)
    modes = mean_shift_modes(_sample(points), delta_var)
    return _fill(foreground, nearest(points, modes))


def hdbscan_clusters(embeddings: Floats, foreground: Mask, delta_var: float, min_size: int) -> Labels:
    """HDBSCAN of a random sample; every voxel then joins the cluster with the nearest mean."""
    points = torch.from_numpy(np.ascontiguousarray(embeddings[:, foreground].T))
    sample = _sample(points)
    smallest = max(5, round(min_size * len(sample) / len(points)))
    if len(sample) <= smallest:
        return _fill(foreground, torch.zeros(len(points), dtype=torch.long))
    found = HDBSCAN(
        min_cluster_size=smallest, min_samples=min(5, len(sample)), allow_single_cluster=True, copy=True
    ).fit(sample.numpy())
    clusters = torch.from_numpy(found.labels_).long()  # -1 is noise
    if clusters.max() < 0:
        return _fill(foreground, torch.zeros(len(points), dtype=torch.long))
    means = torch.stack([sample[clusters == k].mean(0) for k in range(int(clusters.max()) + 1)])
    return _fill(foreground, nearest(points, means))


def consistency_clusters(
    embeddings: Floats, teacher: Floats, foreground: Mask, delta_var: float, min_size: int
) -> Labels:
    """Mean shift on the student, keeping a cluster only where the teacher selects the same voxels.

    Of each connected cluster some random voxels are drawn; around each, the teacher selects the voxels within
    `delta_var` in its own embedding space, and of these only the connected component that holds the voxel.
    """
    clusters = clean_components(mean_shift_clusters(embeddings, foreground, delta_var, min_size), foreground, min_size)
    random = np.random.default_rng(0)
    for cluster, box in enumerate(_bounding_boxes(clusters), start=1):
        member = clusters[box] == cluster
        voxels = np.argwhere(member)
        chosen = voxels[random.permutation(len(voxels))[:ANCHORS]]
        overlaps = [_selected_overlap(teacher[(slice(None), *box)], member, anchor, delta_var) for anchor in chosen]
        if np.median(overlaps) < AGREEMENT:
            clusters[box][member] = 0
    return clusters


def keep_instances(instances: Labels, kept: Mask) -> Labels:
    """Keep those of the ids 1..K for which `kept` (K,) is true, and number them 1..K' in the order they had."""
    new_id = np.concatenate([[0], np.where(kept, kept.cumsum(), 0)]).astype(np.int32)
    return new_id[instances]


def clean_components(clusters: Labels, foreground: Mask, min_size: int) -> Labels:
    """Split clusters into connected components; give small ones to the large ones they touch, or drop them."""
    components = cc3d.connected_components(clusters, connectivity=6 if clusters.ndim == 3 else 4, out_dtype=np.uint32)
    sizes = np.bincount(components.ravel())
    keep = sizes[1:] >= min_size
    kept = keep_instances(components, keep)
    crumbs = (components > 0) & (kept == 0)
    if not crumbs.any() or not keep.any():
        return kept
    return watershed(np.zeros(kept.shape, np.uint8), kept, mask=(kept > 0) | crumbs).astype(np.int32)


def mean_shift_modes(points: torch.Tensor, radius: float, seeds: int = 1000) -> torch.Tensor:
    """Modes of the density of points with a flat kernel: (N, E) -> (K, E), at least `radius` apart.

    Seeds are drawn again among the points that no mode explains (farther than two radii), so that small clusters
    are found as well.
    """
    modes = points[:0]
    unexplained = points
    while len(unexplained):
        every = max(1, len(unexplained) // seeds)
        modes = torch.cat([modes, _climb(unexplained[::every].clone(), points, radius)])
        modes = _densest(modes, points, radius)
        far = torch.cat([squared_distances(modes, part.T).amin(0) for part in unexplained.split(2**16)])
        left = unexplained[far > (2 * radius) ** 2]
        if len(left) == len(unexplained):
            break
        unexplained = left
    return modes


def _climb(centers: torch.Tensor, points: torch.Tensor, radius: float, steps: int = 50) -> torch.Tensor:
    """Move each centre, (S, E), to the mean of the points near it until none moves."""
    for _ in range(steps):
        near = (squared_distances(centers, points.T) <= radius**2).to(points.dtype)  # (S, N)
        moved = near @ points / near.sum(1, keepdim=True).clamp_min(1)
        still = (moved - centers).norm(dim=1).max() < 1e-3 * radius
        centers = moved
        if still:
            break
    return centers


def _densest(centers: torch.Tensor, points: torch.Tensor, radius: float) -> torch.Tensor:
    """Of centres closer than `radius` keep the one with most points near it."""
    density = (squared_distances(centers, points.T) <= radius**2).sum(1)
    centers = centers[density.argsort(descending=True, stable=True)]
    kept: list[torch.Tensor] = []
    while len(centers):
        kept.append(centers[0])
        centers = centers[(centers - centers[0]).norm(dim=1) > radius]
    return torch.stack(kept)


def nearest(points: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """Index of the nearest centre of each point: (N, E), (K, E) -> (N,)."""
    return torch.cat([squared_distances(centers, part.T).argmin(0) for part in points.split(2**16)])


def _selected_overlap(teacher: Floats, member: Mask, anchor: NDArray[np.int64], delta_var: float) -> float:
    """IoU of a cluster with what the teacher selects around one of its voxels."""
    axes = (-1, *[1] * member.ndim)
    around_anchor = np.linalg.norm(teacher - teacher[(slice(None), *anchor)].reshape(axes), axis=0) <= delta_var
    # one step towards the densest place, so that an anchor at the rim of its cluster selects all of it
    center = teacher[:, around_anchor].mean(1)
    selected = np.linalg.norm(teacher - center.reshape(axes), axis=0) <= delta_var
    selected[tuple(anchor)] = True
    components = cc3d.connected_components(selected, connectivity=6 if member.ndim == 3 else 4)
    selected = components == components[tuple(anchor)]
    return float((selected & member).sum() / (selected | member).sum())


def _bounding_boxes(clusters: Labels) -> list[tuple[slice, ...]]:
    """Bounding box of each id 1..K, grown by one object's extent so that overflow of the teacher shows."""
    boxes = cc3d.statistics(clusters.astype(np.uint32), no_slice_conversion=False)["bounding_boxes"][1:]
    return [
        tuple(
            slice(max(0, side.start - (side.stop - side.start)), side.stop + (side.stop - side.start)) for side in box
        )
        for box in boxes
    ]


def _sample(points: torch.Tensor) -> torch.Tensor:
    """At most `SAMPLE` points, the same ones at every call."""
    if len(points) <= SAMPLE:
        return points
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    return points[order[:SAMPLE]]


def _fill(foreground: Mask, clusters: torch.Tensor) -> Labels:
    """Write cluster 0, 1, ... of each foreground voxel into an image as 1, 2, ..."""
    result = np.zeros(foreground.shape, np.int32)
    result[foreground] = clusters.numpy().astype(np.int32) + 1
    return result


def _checked_embeddings(embeddings: ArrayLike | torch.Tensor) -> Floats:
    if isinstance(embeddings, torch.Tensor):
        embeddings = embeddings.detach().cpu().float().numpy()
    vectors = np.asarray(embeddings, np.float32)
    if vectors.ndim not in (3, 4):
        raise ValueError(f"embeddings must have the shape (E, *spatial) in 2D or 3D, got {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError(f"embeddings must be finite, got {int((~np.isfinite(vectors)).sum())} NaN or infinite values")
    return vectors


def _checked_foreground(foreground: ArrayLike | torch.Tensor | None, shape: tuple[int, ...]) -> Mask:
    if foreground is None:
        return np.ones(shape, bool)
    if isinstance(foreground, torch.Tensor):
        foreground = foreground.detach().cpu().numpy()
    mask = np.asarray(foreground)
    if mask.dtype.kind == "f" and not np.isin(mask, (0, 1)).all():
        raise ValueError("foreground must be a mask of 0 and 1, got other floating-point values")
    mask = mask.astype(bool)
    if mask.shape != shape:
        raise ValueError(f"foreground must have the embeddings' spatial shape {shape}, got {mask.shape}")
    return mask


METHODS: dict[str, Callable[..., Labels]] = {
    "auto": auto_clusters,
    "mean_shift": mean_shift_clusters,
    "hdbscan": hdbscan_clusters,
    "consistency": consistency_clusters,
}
