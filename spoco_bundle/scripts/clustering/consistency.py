"""Consistency clustering (Section 3.4 of the paper): of the student's clusters those that the teacher selects, too."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from torch import Tensor

from ..arrays import Floats, Labels, Mask
from ..geometry.pieces import clean_components, face_components
from .mean_shift import mean_shift_clusters

AGREEMENT = 0.6  # median IoU of student and teacher below which consistency clustering drops a cluster (paper)
STEPS = 3  # of mean shift that the teacher makes from an anchor
ANCHORS = 10  # random voxels of a cluster that the teacher's instances are compared at


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
