"""Slips of the brush, by which an id is no whole object: a training learns them as they are painted, in silence."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, find_objects
from torch import Tensor

from ..arrays import Labels, Mask
from ..geometry.pieces import face_components, owned_components
from .label_convention import number_objects

logger = logging.getLogger(__name__)

FILES = 30  # the most label maps that are looked at: of more, a slip or two matter little
LIKE_THE_LARGEST = 8  # times as many voxels as a piece may the largest one have, for both to look like objects
STRAY = 4  # times as large is an object's bounding box with its smaller pieces as without, where they are stray voxels
AN_OUTLINE = 8  # times as many voxels as it encloses may an outline have; whole objects of real sets have 20 or more
NAMED = 5  # ids in a sentence
EXPECTED = {  # by what is found
    "in several pieces": "one whole object for each id; number the objects of a mask, paint all slices of one",
    "with stray voxels far away": "none, as an object with a larger bounding box is trained on more",
    "as outlines": "filled objects, as 0 inside is unlabelled",
    "one voxel thick": "whole objects, in all their slices",
}


def find_slips(labels: Tensor, ignored: Tensor) -> dict[str, list[int]]:
    """Ids of the objects in labels (*spatial) that look as if they were not painted whole, by what is found.

    Nothing is said of what may go on behind the border or behind `ignored` voxels, (*spatial).
    """
    ids, numbered = number_objects(labels, None, None)
    numbers = numbered.numpy().astype(np.int32)
    components, owner, sizes = owned_components(numbers)
    inner = np.ones(len(sizes), bool)
    inner[components[_beside_unseen(ignored.numpy())]] = False
    largest = np.zeros(len(ids) + 1, np.int64)
    np.maximum.at(largest, owner, sizes)
    like = (owner > 0) & (sizes * LIKE_THE_LARGEST >= largest[owner])
    pieces, inner_pieces, cut_pieces = (
        np.bincount(owner[which], minlength=len(ids) + 1)[1:] for which in (like, like & inner, ~inner)
    )
    edges, main_edges = (_box_edges(which) for which in (numbers, np.where(like[components], numbers, 0)))
    found = {
        "in several pieces": (pieces > 1) & (inner_pieces > 0),
        "with stray voxels far away": edges.prod(1) > STRAY * main_edges.prod(1),
        "as outlines": _enclosed_voxels(numbers, len(ids)) * AN_OUTLINE > np.bincount(numbers.ravel())[1:],
        "one voxel thick": (edges == 1).any(1) & (cut_pieces == 0),
    }
    told = np.zeros(len(ids), bool)
    slips = {}
    for name, which in found.items():
        slips[name] = ids.numpy()[which & ~told].tolist()
        told |= which
    return slips


def warn_of_slips(slips: Mapping[str, Mapping[str, Sequence[int]]]) -> None:
    """Say in one sentence for each kind of slip where to look, from what `find_slips` found in each label map."""
    for name, expected in EXPECTED.items():
        ids_of = {file: found[name] for file, found in slips.items() if found[name]}
        if ids_of:
            file, ids = next(iter(ids_of.items()))
            named = ", ".join(map(str, ids[:NAMED])) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")
            others = f" (other label maps with such ids: {len(ids_of) - 1})" if len(ids_of) > 1 else ""
            logger.warning("%s: found ids %s: %s, expected %s%s", file, name, named, expected, others)


def _beside_unseen(ignored: Mask) -> Mask:
    """The voxels of (*spatial) at the border, at ignored ones, or ignored themselves."""
    unseen = np.pad(ignored, 1, constant_values=True)
    return np.asarray(binary_dilation(unseen)[(slice(1, -1),) * ignored.ndim])


def _box_edges(numbers: Labels) -> NDArray[np.int64]:
    """Edges of the bounding boxes of the numbers 1..K in (*spatial), (K, ndim)."""
    edges = [[side.stop - side.start for side in box] for box in find_objects(numbers)]
    return np.array(edges, np.int64).reshape(-1, numbers.ndim)


def _enclosed_voxels(numbers: Labels, count: int) -> NDArray[np.int64]:
    """How many unlabelled voxels each of the numbers 1..count encloses alone, in the planes in which it does most."""
    stack = numbers if numbers.ndim == 3 else numbers[None]
    across = range(3) if numbers.ndim == 3 else [0]
    return np.max([_enclosed_in_planes(np.moveaxis(stack, axis, 0), count) for axis in across], axis=0)


def _enclosed_in_planes(stack: Labels, count: int) -> NDArray[np.int64]:
    """The same in the planes of a stack, each by itself: an outline painted in slices is open above and below."""
    planes = np.arange(1, len(stack) + 1, dtype=np.int32)[:, None, None]
    gaps = face_components(np.where(stack == 0, planes, 0))  # an id for each plane, so that none goes on in the next
    gap_sizes = np.bincount(gaps.ravel())
    lowest, highest = np.full(len(gap_sizes), count + 1), np.zeros(len(gap_sizes), np.int64)
    for gap_lines, lines in ((np.moveaxis(gaps, axis, 0), np.moveaxis(stack, axis, 0)) for axis in (1, 2)):
        for gap, number in ((gap_lines[1:], lines[:-1]), (gap_lines[:-1], lines[1:])):
            beside = (gap > 0) & (number > 0)
            np.minimum.at(lowest, gap[beside], number[beside])
            np.maximum.at(highest, gap[beside], number[beside])
        lowest[gap_lines[[0, -1]]] = 0  # open at the border
    owner = np.where(lowest == highest, highest, 0)
    return np.bincount(owner, weights=gap_sizes, minlength=count + 1)[1:].astype(np.int64)
