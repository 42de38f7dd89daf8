"""How large annotated objects are: of each one its volume and its extents, and those of a typical one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..refusals import InputError

LEAST_ERROR = 0.6  # of the logarithm of one object's extent: objects of one kind differ by that much
DRAWS = 200  # of objects, for a standard error


class ObjectSizes(NamedTuple):
    """Of the K objects in a label map (*spatial)."""

    volumes: NDArray[np.number]  # (K,) voxels
    chords: NDArray[np.float64]  # (K, ndim) mean length, in voxels, that straight lines along each axis run inside

    def in_voxels(self, edges: NDArray[np.float64]) -> ObjectSizes:
        """The same in other voxels, which are `edges` (ndim,) times shorter."""
        return ObjectSizes(self.volumes * edges.prod(), self.chords * edges)


def measure_objects(label_map: ArrayLike, ignored: ArrayLike | None = None) -> ObjectSizes:
    """Measure the objects of a label map (*spatial); 0 is none.

    A line that goes on in the same object behind `ignored` voxels, (*spatial), has not left it.
    """
    labels = np.asarray(label_map)
    ids, volumes = np.unique(labels, return_counts=True)
    chords = []
    for axis in range(labels.ndim):
        along = np.moveaxis(labels, axis, 0)
        before = along[:-1]
        if ignored is not None:
            position = np.arange(len(along)).reshape(-1, *[1] * (along.ndim - 1))
            known = np.where(np.moveaxis(np.asarray(ignored), axis, 0), 0, position)
            before = np.take_along_axis(along, np.maximum.accumulate(known, axis=0)[:-1], axis=0)
        starts = np.concatenate([along[:1].ravel(), along[1:][along[1:] != before]])
        # not the place of each voxel's id, which for a large volume would take several times its memory
        chords.append(volumes / np.bincount(ids.searchsorted(starts), minlength=len(ids)))
    return ObjectSizes(volumes[ids > 0], np.stack(chords, axis=1)[ids > 0])


def typical_extents(images: Sequence[ObjectSizes]) -> list[float]:
    """Extent of a typical object along each axis, in voxels: that of an ellipsoid with the same mean chord.

    Unlike a bounding box, chords measure the thickness of what is long, bent or cut by the border. The median over the
    objects is weighted by the root of their volumes, so that chips count little, and a giant does not decide alone.
    All images count the same, as in the metrics: by its objects, one that is full of them would decide for all others.
    Only where less than one usual object is annotated, as with a chip at the border, does an image count less.

    Raises:
        ValueError: there is no object.

    >>> typical_extents([measure_objects([0, 7, 7, 7, 0])])
    [3.0]
    """
    chords = np.concatenate([sizes.chords for sizes in images])
    if not len(chords):
        raise InputError("no annotated object found in any label map, expected one, of `classes` if given")
    weights = _equal_images([np.sqrt(sizes.volumes) for sizes in images])
    extent_of_chord = {1: 1.0, 2: 4 / math.pi, 3: 1.5}[chords.shape[1]]  # of an ellipsoid
    return [extent_of_chord * _weighted_median(along_axis, weights) for along_axis in chords.T]


def extent_errors(images: Sequence[ObjectSizes]) -> list[float]:
    """How uncertain `typical_extents` are along each axis: the standard errors of their logarithms.

    From the bootstrap (Efron 1979): as many objects, drawn from the annotated ones again and again. Two or three that
    happen to be alike say no more than others do: at least `LEAST_ERROR` over the root of their number.
    """
    weights = _equal_images([np.sqrt(sizes.volumes) for sizes in images])
    logarithms = np.log(np.concatenate([sizes.chords for sizes in images]))
    count, random = len(weights), np.random.default_rng(0)
    orders = [np.lexsort((weights, along_axis)) for along_axis in logarithms.T]  # files and ids may come in any order
    medians = []
    for _ in range(DRAWS):
        drawn = np.bincount(random.integers(0, count, count), minlength=count)
        medians.append(
            [
                _weighted_median(along_axis[order], weights[order] * drawn)
                for along_axis, order in zip(logarithms.T, orders, strict=True)
            ]
        )
    least = LEAST_ERROR / math.sqrt(count)
    return [max(least, float(error)) for error in np.std(medians, axis=0)]


def typical_volume(images: Sequence[ObjectSizes]) -> float:
    """The median volume of the objects, in voxels; all images that have some count the same."""
    volumes = np.concatenate([sizes.volumes for sizes in images])
    return _weighted_median(volumes, _equal_images([np.ones(len(sizes.volumes)) for sizes in images]))


def _equal_images(weights: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Weights of the objects of all images, (K,), from those inside each image: their sum is the same, if not below it.

    It is the weight of a usual object, so that an image with less than one counts as much as it has.
    """
    usual = np.median(np.concatenate(weights))
    return np.concatenate([usual * inside / max(usual, inside.sum()) for inside in weights if len(inside)])


def _weighted_median(values: NDArray[np.number], weights: NDArray[np.float64]) -> float:
    """The value below and above which lies half of the weight, or the middle of the two between which it does."""
    order = values.argsort(kind="stable")
    share = weights[order].cumsum() / weights.sum()
    rounding = 1e-9
    return float(values[order][share.searchsorted([0.5 - rounding, 0.5 + rounding])].mean())
