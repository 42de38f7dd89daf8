"""Is there background around the objects, or only more objects? What was annotated tells.

Sparse annotation says nothing about background, but each annotated object shows its surroundings. Where objects are
scattered, they look different from what is right beside them; in dense tissue the surroundings are objects, too. So a
small classifier learns to tell the voxels of some annotated objects from the unlabelled voxels around them, and is
asked about the other objects: in dense tissue it can only guess. Where nearly everything around the objects is
annotated as well, there is nothing to tell apart, and the tissue is dense. Of few objects a classifier learns little,
of one or two nothing; there a network that has learned what objects are tells with which foreground it finds them
better.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage.feature import multiscale_basic_features
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from ..arrays import Floats
from ..geometry.balls import ball_radius
from ..transforms.cropping import OBJECTS

logger = logging.getLogger(__name__)

Features = tuple[Floats, Floats]  # (N, F) of an object's voxels, and of those around it

DISTINCT = 0.74  # area under the ROC curve; what real and generated images reach: docs/training.md
UNSURE = 0.7  # of one object, less for many: by how much the classifier may be wrong, and a network decides
UNASKED = 0.5  # instead of its word where there is none: background taken for objects costs more than the opposite
CLEARLY_BETTER = 0.2  # IoU, by which a network that is sure finds the objects better with one foreground
FOLDS = 5  # of the cross-validation
FEWEST_OBJECTS = 3  # fewer say too little
CLEARLY_FOUND = 0.4  # IoU of the objects with what a network finds, below which it knows none like them
REACH = 0.7  # how far the surroundings extend, in radii of the object
SURROUNDED = 0.6  # share of annotated voxels around an object from which on they say what its surroundings are
FILES, OBJECTS_IN_A_FILE, VOXELS = 8, 30, 200  # the most that are looked at: files, objects in each, voxels of each
CROP = 64  # largest side, in working voxels, of what is looked at around an object


def choose_foreground(
    data: Sequence[Mapping[str, Any]],
    transform: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    background_label: int | None = None,
    overlaps: Callable[[], Mapping[str, float]] | None = None,
) -> str:
    """``everywhere`` in dense tissue, where the annotated objects look like their surroundings; else ``estimated``.

    Args:
        data: the training files.
        transform: reads one entry of `data` and brings it to the working grid: image (C, *spatial), label
            (1, *spatial), and the objects' boxes, see `cropping.FindObjectsd`.
        background_label: id of painted background; where there is one, there is background.
        overlaps: how well a network finds the annotated objects with either foreground, before any training, 0 to 1; it
            is asked where there are too few objects for the classifier to be sure.
    """
    if background_label is not None:
        return "estimated"
    every = math.ceil(len(data) / FILES)
    objects = [
        features
        for entry in data[::every]
        for features in features_of_objects(transform(dict(entry)), np.random.default_rng(0))
    ]
    free = [features for features in objects if len(features[0])]
    if len(objects) >= FEWEST_OBJECTS and len(free) < len(objects) / 2:
        logger.info("foreground: everywhere, as most of the annotated objects are surrounded by annotated ones")
        return "everywhere"
    if len(free) < FEWEST_OBJECTS:
        choice = "estimated" if _in_favour_of_background(overlaps) >= 0 else "everywhere"
        logger.info(
            "foreground: %s; too few of the annotated objects, %d of %d, can be compared with unlabelled voxels around",
            choice,
            len(free),
            len(objects),
        )
        return choice
    distinctness, unsure = told_from_surroundings(free), UNSURE / len(free)
    is_sure = abs(distinctness - DISTINCT) > unsure
    least = DISTINCT if is_sure else DISTINCT - unsure * _in_favour_of_background(overlaps)
    choice = "estimated" if distinctness > least else "everywhere"
    logger.info(
        "foreground: %s, as annotated objects are told from their surroundings with an area under the ROC curve of "
        "%.2f (above %.2f there is background, near 0.5 only more objects)",
        choice,
        distinctness,
        least,
    )
    return choice


def _in_favour_of_background(overlaps: Callable[[], Mapping[str, float]] | None) -> float:
    """What a network says: from -1, it clearly finds the objects better without, to 1; 0 if it hardly finds them."""
    if overlaps is None:
        return UNASKED
    found = overlaps()
    logger.info(
        "foreground: the weights to start from overlap with the few annotated objects by %.2f, and by %.2f where they "
        "look for them everywhere",
        found["estimated"],
        found["everywhere"],
    )
    if not max(found.values()) > CLEARLY_FOUND:
        return 0.0
    return max(-1.0, min(1.0, (found["estimated"] - found["everywhere"]) / CLEARLY_BETTER))


def features_of_objects(sample: Mapping[str, Any], random: np.random.Generator) -> Iterable[Features]:
    """Features at some voxels of each annotated object and of its unlabelled surroundings, as many of both.

    Of none where annotated objects surround it.
    """
    image, labels = (np.asarray(sample[key].as_tensor()) for key in ("image", "label"))
    boxes = sample[OBJECTS]
    numbers = [number for number, _ in boxes]
    for index in random.permutation(len(boxes))[:OBJECTS_IN_A_FILE]:
        number, box = boxes[index]
        member = labels[0][box] == number
        reach = 1 + REACH * ball_radius(int(member.sum()), member.ndim)
        voxel = [side.start for side in box] + random.choice(np.argwhere(member))
        crop = _crop_around(voxel, box, math.ceil(reach), labels.shape[1:])
        inside = labels[0][crop] == number
        distance = distance_transform_edt(~inside)
        near = (distance > 1) & (distance <= reach)
        around = near & (labels[0][crop] == 0)
        others = np.count_nonzero(near & np.isin(labels[0][crop], numbers))
        surrounded = others > SURROUNDED * np.count_nonzero(near)
        count = 0 if surrounded else min(VOXELS, int(inside.sum()), int(around.sum()))
        if count or surrounded:
            features = _features(image[(slice(None), *crop)])
            of_object, of_surroundings = (random.permutation(features[where])[:count] for where in (inside, around))
            yield of_object, of_surroundings


def _features(image: Floats) -> Floats:
    """Features of each voxel, (*spatial, F), of an image (C, *spatial)."""
    thin = [(0, int(size == 1)) for size in image.shape[1:]]  # one voxel has no gradient
    thick_image = np.pad(image, [(0, 0), *thin], mode="edge")
    features = multiscale_basic_features(thick_image, sigma_min=1, sigma_max=1, channel_axis=0)
    return features[tuple(map(slice, image.shape[1:]))]


def told_from_surroundings(objects: Sequence[Features]) -> float:
    """Area under the ROC curve, 0 to 1, of a classifier that never saw the objects that it is asked about."""
    numbers = np.arange(len(objects)) % min(FOLDS, len(objects))
    areas = []
    for fold in np.unique(numbers):
        training, truth = _joined([objects[i] for i in np.flatnonzero(numbers != fold).tolist()])
        tested, expected = _joined([objects[i] for i in np.flatnonzero(numbers == fold).tolist()])
        areas.append(roc_auc_score(expected, _classifier().fit(training, truth).decision_function(tested)))
    return float(np.mean(areas))


def _classifier() -> Pipeline:
    """Linear in the features and their squares: objects may be brighter or darker than what is around them."""
    squares = FunctionTransformer(lambda features: np.hstack([features, np.square(features)]))
    return make_pipeline(StandardScaler(), squares, StandardScaler(), LogisticRegression(C=0.01, max_iter=300))


def _joined(objects: Sequence[Features]) -> tuple[Floats, NDArray[np.bool_]]:
    """Features of all voxels, (N, F), and which of them are objects', (N,)."""
    inside, around = (np.concatenate(features) for features in zip(*objects, strict=True))
    return np.concatenate([inside, around]), np.arange(len(inside) + len(around)) < len(inside)


def _crop_around(
    voxel: NDArray[np.int64], box: Sequence[slice], margin: int, shape: Sequence[int]
) -> tuple[slice, ...]:
    """The box with a margin, but no larger than `CROP` around the voxel."""
    return tuple(
        slice(max(0, side.start - margin, center - CROP // 2), min(size, side.stop + margin, center + CROP // 2))
        for side, center, size in zip(box, voxel.tolist(), shape, strict=True)
    )
