"""Where annotating one more object teaches most: where a trained network is unsure, and at what it has not yet seen.

Candidates are the instances that were found, and the regions that look a little like objects but were not. A candidate
is doubtful where student and teacher do not both select it around its mean embedding. That is the soft overlap of
`confidence`: in the student's embeddings it tells how stable the cluster is, in the teacher's whether the two agree.

Doubtful candidates are often alike, and the second of a kind teaches less than the first. So they are chosen one by
one, and each counts by its doubt times how much its size and brightness differ from those of the nearest object that is
annotated or chosen already (a core-set: Sener and Savarese, "Active Learning for Convolutional Neural Networks: A
Core-Set Approach", ICLR 2018).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..arrays import Floats, Labels, Mask
from ..clustering.confidence import instance_scores
from ..geometry.balls import ball_radius
from ..geometry.pieces import face_components, keep_instances
from ..network.foreground import THRESHOLD

Values = NDArray[np.float64]

FAINT = 0.46  # of the foreground's threshold: from there on a voxel may belong to an object that was missed
RIM = 2  # voxels around an instance in which the probability falls without there being another object
KIND = 0.1  # standard deviations between two looks at which the second counts 0.4 times: 0.25 found fewer wrong objects
ANNOTATED = 0.1  # share of annotated voxels above which a region shows an annotated object


class Candidates(NamedTuple):
    """The n regions of an image of which each could be annotated next; indices and lengths in voxels."""

    places: NDArray[np.int64]  # (n, ndim) an inner voxel
    extents: Values  # (n,) diameter of the ball, in 2D the disc, of the region's volume
    doubts: Values  # (n,) in [0, 1]
    features: Values  # (n, 3) as from `appearance`


def candidate_regions(
    instances: Labels,
    probability: Floats | None,
    looked_at: Mask,
    min_size: int,
    foreground_threshold: float = THRESHOLD,
) -> Labels:
    """Instances, and what may have been missed, but not where an object is annotated.

    Args:
        instances: (*spatial), 0 = background, ids 1..K.
        probability: (*spatial) to be foreground; None where every voxel is.
        looked_at: (*spatial) voxels that have any label: objects, painted background, ignored.
        min_size: of what may have been missed, in voxels.
        foreground_threshold: probability above which instances were looked for.

    Returns:
        (*spatial) regions with ids 1..n.
    """
    regions = instances
    if probability is not None:
        near = ndimage.binary_dilation((instances > 0) | looked_at, iterations=RIM)
        missed = face_components((probability > FAINT * foreground_threshold) & ~near).astype(np.int32)
        missed = keep_instances(missed, np.bincount(missed.ravel())[1:] >= min_size)
        regions = np.where(missed > 0, missed + instances.max(), instances)
    sizes = np.bincount(regions.ravel())
    shares = np.bincount(regions[looked_at], minlength=len(sizes)) / np.maximum(sizes, 1)
    return keep_instances(regions, shares[1:] < ANNOTATED)


def find_candidates(
    regions: Labels, looked_at: Mask, image: Floats, student: Floats, teacher: Floats, delta_var: float
) -> Candidates:
    """Measure regions as from `candidate_regions`; image (*spatial), embeddings (E, *spatial).

    Their places lie where nobody has looked yet: of each region most voxels are not in `looked_at` (*spatial).
    """
    agreement = instance_scores(regions, student, delta_var) * instance_scores(regions, teacher, delta_var)
    sizes = np.bincount(regions.ravel())[1:].astype(np.float64)
    extents = 2 * ball_radius(sizes, regions.ndim)
    return Candidates(inner_places(np.where(looked_at, 0, regions)), extents, 1 - agreement, appearance(regions, image))


def appearance(regions: Labels, image: Floats) -> Values:
    """(n, 3): logarithm of the size, mean brightness and its standard deviation, of the regions 1..n of (*spatial)."""
    inside = regions > 0
    owner, brightness = regions[inside], image[inside].astype(np.float64)
    count = int(regions.max()) + 1
    sizes, first, second = (
        np.bincount(owner, weights=brightness**power, minlength=count)[1:count] for power in (0, 1, 2)
    )
    mean = first / sizes
    return np.stack([np.log(sizes), mean, np.sqrt(np.maximum(second / sizes - mean**2, 0))], axis=1)


def inner_places(regions: Labels) -> NDArray[np.int64]:
    """(n, ndim): of each region 1..n of (*spatial), the voxel that is farthest from all others, so never outside."""
    places = [np.zeros((0, regions.ndim), np.int64)]
    for id_, box in enumerate(ndimage.find_objects(regions), start=1):
        depth = ndimage.distance_transform_edt(np.pad(regions[box] == id_, 1))
        deepest = np.unravel_index(depth.argmax(), depth.shape)
        places.append(np.array([[index - 1 + side.start for index, side in zip(deepest, box, strict=True)]]))
    return np.concatenate(places)


def rank(images: list[Candidates], annotated: Values, count: int) -> list[tuple[int, int, float]]:
    """Choose at most `count` candidates of all images, the one that teaches most first.

    Args:
        images: the candidates of each.
        annotated: (A, 3) `appearance` of the annotated objects of all images.
        count: how many.

    Returns:
        for each its image, its number there, and its score in [0, 1], which never rises along the list. No two of one
        image are nearer than the extent of the one chosen first, so that no region is listed twice.
    """
    owners = np.concatenate([np.full(len(found.doubts), image) for image, found in enumerate(images)])
    numbers = np.concatenate([np.arange(len(found.doubts)) for found in images])
    places, extents, doubts, features = (np.concatenate(columns) for columns in zip(*images, strict=True))
    if not len(doubts):
        return []
    scale = np.maximum(np.concatenate([features, annotated]).std(0), 1e-6)
    distance = np.full(len(doubts), np.inf)
    for one in annotated:
        distance = np.minimum(distance, np.linalg.norm((features - one) / scale, axis=1))
    chosen: list[tuple[int, int, float]] = []
    free = np.ones(len(doubts), bool)
    while len(chosen) < count and free.any():
        gains = np.where(free, doubts * -np.expm1(-((distance / KIND) ** 2) / 2), -1)
        best = int(gains.argmax())
        chosen.append((int(owners[best]), int(numbers[best]), float(gains[best])))
        near = np.linalg.norm(places - places[best], axis=1) < extents[best]
        free &= ~(near & (owners == owners[best]))
        distance = np.minimum(distance, np.linalg.norm((features - features[best]) / scale, axis=1))
    return chosen
