"""Which instance is which true object: the basis of the report's colours, counts and histogram."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import contingency_table

Labels = NDArray[np.integer]
Colors = NDArray[np.uint8]  # (ids + 1, 3)

FOUND_IOU = 0.5  # above it two objects can only have each other
ALONE = (235, 40, 40)  # one colour for both kinds of error: what is red is wrong
UNJUDGED = (235, 235, 235)


@dataclass(frozen=True)
class Agreement:
    """How the instances 1..P agree with the true objects 1..T; entry 0 of each array is the background's.

    Attributes:
        partner: (P + 1,) the true object with IoU of at least 0.5, else 0.
        best_iou: (T + 1,) of each true object, the best IoU with any instance.
        is_judged: (P + 1,) false where the truth is sparse and most of the instance lies where nobody looked.
    """

    partner: NDArray[np.intp]
    best_iou: NDArray[np.float64]
    is_judged: NDArray[np.bool_]

    @property
    def found(self) -> int:
        """Number of true objects that were found."""
        return int((self.best_iou[1:] >= FOUND_IOU).sum())


def sequential(labels: Labels) -> Labels:
    """Renumber the ids to 1..N, 0 staying 0."""
    ids = np.union1d(labels, [0])
    return np.searchsorted(ids, labels)


def compare(prediction: Labels, truth: Labels, sparse: bool) -> Agreement:
    """Compare two label maps (*spatial) with ids 1..P and 1..T.

    >>> compare(np.array([1, 1, 2, 2]), np.array([0, 1, 2, 2]), sparse=False).partner.tolist()
    [0, 1, 2]
    """
    table = contingency_table(truth, prediction, sparse_type="array").tocoo()  # (T + 1, P + 1)
    sizes, truth_sizes = np.bincount(prediction.ravel()), np.bincount(truth.ravel())
    is_pair = (table.row > 0) & (table.col > 0)
    row, column, voxels = table.row[is_pair], table.col[is_pair], table.data[is_pair]
    iou = voxels / (sizes[column] + truth_sizes[row] - voxels)
    best_iou, partner = np.zeros(len(truth_sizes)), np.zeros(len(sizes), np.intp)
    np.maximum.at(best_iou, row, iou)
    partner[column[iou >= FOUND_IOU]] = row[iou >= FOUND_IOU]
    is_judged: NDArray[np.bool_] = np.ones(len(sizes), bool)
    if sparse:
        unlabelled = np.bincount(prediction[truth == 0], minlength=len(sizes))
        is_judged = (2 * unlabelled <= sizes) | (partner > 0)
    return Agreement(partner, best_iou, is_judged)


def palette(count: int) -> Colors:
    """Distinct bright colours for objects 1..count, none of them red or white; entry 0 is black.

    Successive hues are a golden section of the circle apart, so that neighbours in number never look alike.
    """
    colors = np.zeros((count + 1, 3), np.uint8)
    for number in range(1, count + 1):
        hue = 0.12 + 0.78 * (number * 0.618034 % 1)  # 0 and 1 are red
        rgb = colorsys.hsv_to_rgb(hue, (0.85, 0.6)[number % 2], (1.0, 0.8)[number // 2 % 2])
        colors[number] = np.round(255 * np.array(rgb))
    return colors


def truth_colors(agreement: Agreement) -> Colors:
    """Each true object in its own colour, those that were missed in red."""
    colors = palette(len(agreement.best_iou) - 1)
    missed = agreement.best_iou < FOUND_IOU
    missed[0] = False
    colors[missed] = ALONE
    return colors


def instance_colors(agreement: Agreement) -> Colors:
    """Each instance in the colour of its true object, wrong ones in red, those nobody can judge in white."""
    colors = palette(len(agreement.best_iou) - 1)[agreement.partner]
    alone = agreement.partner == 0
    alone[0] = False
    colors[alone & agreement.is_judged] = ALONE
    colors[alone & ~agreement.is_judged] = UNJUDGED
    return colors
