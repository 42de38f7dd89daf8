"""How well does a predicted instance map agree with the truth? Every answer from one table of overlaps.

    instance_metrics(prediction, ground_truth)                 # every object is annotated
    instance_metrics(prediction, ground_truth, sparse=True)    # only some are; 0 means "nobody looked"

`InstanceMetrics` does the same for batches and averages over images and over processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric
from numpy.typing import NDArray

from ..refusals import InputError
from ..transforms.label_convention import check_special_label, without_special

Labels = NDArray[np.integer] | torch.Tensor

METRIC_NAMES = (
    "ap50",
    "ap",
    "f1",
    "sbd",
    "dic",
    "pq",
    "arand",
    "voi_split",
    "voi_merge",
    "annotated_iou",
)

LESS_IS_BETTER = ("dic", "arand", "voi_split", "voi_merge")

# k / 20 and not 0.5 + 0.05 * n: only a correctly rounded threshold compares exactly with a ratio of counts.
IOU_THRESHOLDS = np.arange(10, 20) / 20  # 0.5, 0.55, ..., 0.95


def instance_metrics(
    prediction: Labels, ground_truth: Labels, sparse: bool = False, background_label: int | None = None
) -> dict[str, float]:
    """Compare a predicted instance map with the annotated one.

    T are the annotated objects, P the predicted ones. A pair matches when its intersection over union (IoU)
    is at least the threshold, one to one; TP is the number of matches, FP = |P| - TP, FN = |T| - TP.

    ==================  =====  =========================================================================
    key                 best   definition
    ==================  =====  =========================================================================
    ``ap50``            1      TP / (TP + FP + FN) at IoU 0.5 (Caicedo et al., Nature Methods 2019)
    ``ap``              1      mean of the same over IoU 0.5, 0.55, ..., 0.95
    ``f1``              1      2 TP / (2 TP + FP + FN) at IoU 0.5
    ``sbd``             1      symmetric best Dice: min(BD(P, T), BD(T, P)), BD(A, B) the mean over a in A of
                               the best Dice with any b in B (Scharr et al., Mach. Vis. Appl. 2016)
    ``dic``             0      | |P| - |T| |, the absolute difference in count (same paper); not bounded
    ``pq``              1      panoptic quality: sum of IoU over matches / (TP + FP / 2 + FN / 2), a match
                               here with IoU above 0.5, strictly (Kirillov et al., CVPR 2019, eq. 1)
    ``arand``           0      adapted Rand error over annotated voxels (Arganda-Carreras et al., Front.
                               Neuroanat. 2015), at most 1; background of P counts as one segment
    ``voi_split``       0      H(P | T) over annotated voxels, in bits (Meila, J. Multivar. Anal. 2007)
    ``voi_merge``       0      H(T | P) over annotated voxels, in bits; not bounded, as ``voi_split``
    ``annotated_iou``   1      mean over T of the best IoU with any object of P
    ==================  =====  =========================================================================

    An object can match only one partner above IoU 0.5. At exactly 0.5 it can have two: the two equal halves
    of an object; one of them is then the match and the other is unmatched.

    ``sparse=True``: 0 in the truth means that nobody looked, unlike `background_label`. A predicted object with
    more than half of its voxels there can be neither right nor wrong and is dropped before counting (the void rule of
    Kirillov et al., sect. 4.2) in ``ap50``, ``ap``, ``f1``, ``sbd``, ``dic`` and ``pq``. IoU and Dice always use whole
    predicted objects, because annotated objects are wholly annotated: what spills out of one is wrong. The
    other four metrics look only at annotated objects anyway and do not change.

    Empty maps, never NaN: with no object in truth and prediction everything is perfect. With objects in one
    of them only, the metrics between 0 and 1 take their worst value, ``dic`` counts, and VOI takes the
    entropy of the map that has objects, the worst that map allows: as ``voi_merge`` if the prediction is
    empty, as ``voi_split`` if the truth is. With ``sparse=True`` dropped objects do not count here: a truth
    without objects can contradict nothing, and everything is perfect.

    Args:
        prediction: (*spatial), integers, 0 = no object; ids may be any and have gaps.
        ground_truth: (*spatial), the same; 0 = background, or unlabelled with ``sparse``.
        sparse: True if only some objects are annotated.
        background_label: an id in the truth that is no object but known background; None where there is none.

    Returns:
        one finite number per name in `METRIC_NAMES`.

    Raises:
        TypeError: a map is not of an integer type.
        ValueError: shapes differ, an id is negative, or `background_label` is no integer.

    Example:
        >>> truth, prediction = np.array([5, 5, 0, 0, 9, 9]), np.array([7, 7, 7, 0, 0, 0])
        >>> instance_metrics(prediction, truth)["ap50"]  # finds 5 with IoU 2/3, misses 9
        0.5
    """
    check_special_label("background_label", background_label)
    instances, labels = _checked(prediction, "prediction"), _checked(ground_truth, "ground_truth")
    objects = labels if background_label is None else np.where(labels == background_label, 0, labels)
    overlaps = counted = _overlaps(instances, objects)
    if sparse:
        table = overlaps if objects is labels else _overlaps(instances, labels)  # the same predicted objects
        counted = replace(overlaps, kept=_not_mostly_unlabelled(table))
    split, merge = _variation_of_information(overlaps, counted)
    values = {
        **_detection(counted),
        "sbd": _symmetric_best_dice(counted),
        "dic": abs(counted.prediction_count - counted.truth_count),
        "arand": _adapted_rand_error(overlaps, counted),
        "voi_split": split,
        "voi_merge": merge,
        "annotated_iou": _annotated_iou(overlaps, counted),
    }
    return {name: float(values[name]) for name in METRIC_NAMES}


@dataclass(frozen=True)
class _Overlaps:
    """The contingency table of two label maps, as a list of its K entries that are not zero.

    Objects are renumbered 1..T and 1..P; 0 is "no object" in both.
    """

    truth: NDArray[np.int64]  # (K,) truth object of the entry, 0..T
    prediction: NDArray[np.int64]  # (K,) predicted object of the entry, 0..P
    voxels: NDArray[np.float64]  # (K,) voxels they share; whole numbers, exact in float64 up to 2**53
    truth_sizes: NDArray[np.float64]  # (T + 1,)
    prediction_sizes: NDArray[np.float64]  # (P + 1,)
    kept: NDArray[np.bool_]  # (P + 1,) predicted objects that count; [0] is True

    @property
    def truth_count(self) -> int:
        return len(self.truth_sizes) - 1

    @property
    def prediction_count(self) -> int:
        return int(np.count_nonzero(self.kept[1:]))

    @property
    def between_objects(self) -> NDArray[np.bool_]:
        """Entries (K,) where an annotated object meets a predicted one that counts."""
        return (self.truth > 0) & (self.prediction > 0) & self.kept[self.prediction]

    @property
    def iou(self) -> NDArray[np.float64]:
        """(K,) intersection over union of the two objects of each entry."""
        union = self.truth_sizes[self.truth] + self.prediction_sizes[self.prediction] - self.voxels
        return self.voxels / union

    @property
    def dice(self) -> NDArray[np.float64]:
        """(K,) twice the intersection over the sum of sizes, of the two objects of each entry."""
        return 2 * self.voxels / (self.truth_sizes[self.truth] + self.prediction_sizes[self.prediction])


def _checked(labels: Labels, name: str) -> NDArray[np.integer]:
    """The labels as a numpy array, or an error if they are no instance map."""
    labels = labels.detach().cpu() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    dtype = getattr(labels.dtype, "name", str(labels.dtype))  # torch: "torch.int32", numpy: "int32"
    if "int" not in dtype:
        raise TypeError(f"{name} must be an instance map of integers, but its dtype is {dtype}.")
    array = np.asarray(labels)
    if array.size > 0 and array.min() < 0:
        raise InputError(f"{name} must hold ids >= 0, but its smallest is {array.min()}.")
    return array


def _overlaps(prediction: NDArray[np.integer], truth: NDArray[np.integer]) -> _Overlaps:
    """Count the voxels that each pair of labels shares."""
    if prediction.shape != truth.shape:
        raise InputError(
            f"prediction and ground_truth must have the same shape, but they have {prediction.shape} and {truth.shape}."
        )
    prediction, truth = prediction.ravel(), truth.ravel()
    # Labels come in runs along the last axis, and sorting runs instead of voxels is several times faster.
    changes = (prediction[1:] != prediction[:-1]) | (truth[1:] != truth[:-1])
    starts = np.flatnonzero(np.concatenate(([truth.size > 0], changes)))
    lengths = np.diff(starts, append=truth.size)
    truth_index, truth_sizes = _renumber(truth[starts], lengths)
    prediction_index, prediction_sizes = _renumber(prediction[starts], lengths)

    pairs = truth_index * len(prediction_sizes) + prediction_index
    pairs, entry = np.unique(pairs, return_inverse=True)
    return _Overlaps(
        truth=pairs // len(prediction_sizes),
        prediction=pairs % len(prediction_sizes),
        voxels=_sums(entry, lengths, len(pairs)),
        truth_sizes=truth_sizes,
        prediction_sizes=prediction_sizes,
        kept=np.ones(len(prediction_sizes), dtype=bool),
    )


def _renumber(labels: NDArray[np.integer], lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The labels of runs renumbered to 0..N, 0 staying 0, and the size of each label, (N + 1,)."""
    zero = np.zeros(1, dtype=labels.dtype)  # so that 0 has its place even where no voxel is 0
    ids, index = np.unique(np.concatenate((zero, labels)), return_inverse=True)
    positions = index[1:].astype(np.int64)
    return positions, _sums(positions, lengths, len(ids))


def _sums(index: NDArray[np.integer], weights: NDArray[np.number], count: int) -> NDArray[np.float64]:
    """The sum of the weights of each index 0..count - 1."""
    return cast("NDArray[np.float64]", np.bincount(index, weights, count))  # its types know integers alone


def _not_mostly_unlabelled(overlaps: _Overlaps) -> NDArray[np.bool_]:
    """The predicted objects, (P + 1,), that lie on label 0 with no more than half of their voxels.

    No match is lost with the others: their IoU with any annotated object is below 0.5.
    """
    unlabelled = overlaps.truth == 0
    count = len(overlaps.prediction_sizes)
    voxels_unlabelled = _sums(overlaps.prediction[unlabelled], overlaps.voxels[unlabelled], count)
    kept = 2 * voxels_unlabelled <= overlaps.prediction_sizes
    kept[0] = True
    return kept


def _ratio(numerator: float, denominator: float) -> float:
    """Numerator / denominator of a score, and 1 where there was nothing to find and nothing was found."""
    return numerator / denominator if denominator > 0 else 1.0


def _detection(overlaps: _Overlaps) -> dict[str, float]:
    """The scores that count matches: ap50, ap, f1 and pq."""
    candidates = overlaps.between_objects & (overlaps.iou >= IOU_THRESHOLDS[0])
    truth, prediction = overlaps.truth[candidates], overlaps.prediction[candidates]
    iou = overlaps.iou[candidates]
    # Only at IoU 0.5 can an object have two partners; they are then equally good and have no other partner,
    # so that taking the first is the largest one-to-one matching.
    first = np.zeros(len(iou), dtype=bool)
    first[np.intersect1d(np.unique(truth, return_index=True)[1], np.unique(prediction, return_index=True)[1])] = True
    iou = iou[first]

    objects = overlaps.truth_count + overlaps.prediction_count  # = 2 TP + FP + FN
    matches = [int(np.count_nonzero(iou >= threshold)) for threshold in IOU_THRESHOLDS]
    precisions = [_ratio(matched, objects - matched) for matched in matches]
    return {
        "ap50": precisions[0],
        "ap": float(np.mean(precisions)),
        "f1": _ratio(2 * matches[0], objects),
        "pq": _ratio(float(iou[iou > 0.5].sum()), objects / 2),
    }


def _best(index: NDArray[np.int64], scores: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """For each object 1..count the best of the scores whose index it is, 0 where it has none; (count,)."""
    best = np.zeros(count + 1)
    np.maximum.at(best, index, scores)
    return best[1:]


def _symmetric_best_dice(overlaps: _Overlaps) -> float:
    """The worse of the two mean best Dice scores, truth to prediction and back (Scharr et al. 2016)."""
    if overlaps.truth_count == 0 or overlaps.prediction_count == 0:
        return float(overlaps.truth_count == overlaps.prediction_count)
    entries = overlaps.between_objects
    dice = overlaps.dice[entries]
    of_truth = _best(overlaps.truth[entries], dice, overlaps.truth_count)
    of_prediction = _best(overlaps.prediction[entries], dice, len(overlaps.kept) - 1)
    return min(float(of_truth.mean()), float(of_prediction[overlaps.kept[1:]].mean()))


def _annotated_iou(overlaps: _Overlaps, counted: _Overlaps) -> float:
    """The mean over annotated objects of the best IoU with any predicted object, dropped or not."""
    if overlaps.truth_count == 0:
        return float(counted.prediction_count == 0)
    entries = overlaps.between_objects
    return float(_best(overlaps.truth[entries], overlaps.iou[entries], overlaps.truth_count).mean())


def _annotated(
    overlaps: _Overlaps,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The table over annotated voxels: voxels, truth size and prediction size there, of each entry."""
    annotated = overlaps.truth > 0
    voxels, prediction = overlaps.voxels[annotated], overlaps.prediction[annotated]
    prediction_sizes = _sums(prediction, voxels, len(overlaps.prediction_sizes))
    return voxels, overlaps.truth_sizes[overlaps.truth[annotated]], prediction_sizes[prediction]


def _adapted_rand_error(overlaps: _Overlaps, counted: _Overlaps) -> float:
    """1 - (pairs of voxels together in both maps) / (mean of the pairs together in each of the maps)."""
    if overlaps.truth_count == 0:
        return float(counted.prediction_count > 0)
    if counted.prediction_count == 0 and not overlaps.between_objects.any():
        return 1.0  # background would pass as one segment, perfect for a single object
    voxels, truth_sizes, prediction_sizes = _annotated(overlaps)
    # The sum of n (n - 1) over objects is that of n_entry (size - 1) over the entries of the table.
    pairs_both = float(voxels @ (voxels - 1))
    pairs_truth = float(voxels @ (truth_sizes - 1))
    pairs_prediction = float(voxels @ (prediction_sizes - 1))
    return 1 - _ratio(pairs_both, (pairs_truth + pairs_prediction) / 2)


def _variation_of_information(overlaps: _Overlaps, counted: _Overlaps) -> tuple[float, float]:
    """H(prediction | truth) and H(truth | prediction), in bits."""
    if overlaps.truth_count == 0:
        sizes = overlaps.prediction_sizes[1:][counted.kept[1:]]
        return _mean_bits(sizes, sizes.sum() / sizes), 0.0
    voxels, truth_sizes, prediction_sizes = _annotated(overlaps)
    return _mean_bits(voxels, truth_sizes / voxels), _mean_bits(voxels, prediction_sizes / voxels)


def _mean_bits(weights: NDArray[np.float64], ratios: NDArray[np.float64]) -> float:
    """The weighted mean of log2(ratios), ratios >= 1; 0 for none."""
    return float(weights @ np.log2(ratios) / weights.sum()) if len(weights) > 0 else 0.0


def _checked_batch(labels: torch.Tensor | None, name: str) -> torch.Tensor:
    """The labels, or an error if they are no batch of instance maps."""
    if labels is None or labels.ndim < 3 or labels.shape[1] != 1:
        shape = None if labels is None else tuple(labels.shape)
        raise InputError(f"{name} must have the shape (batch, 1, *spatial), but it has {shape}.")
    return labels


class InstanceMetrics(CumulativeIterationMetric):
    """`instance_metrics` of every image that is put in, and their means over images and processes.

    Call it with predictions and truths, (B, 1, *spatial) or lists of (1, *spatial), as often as there are
    batches; then `aggregate`, `per_image`, and `reset` before the next round. Under torch.distributed
    `aggregate` and `per_image` gather from all processes, so every process must call them, and each must
    have seen at least one image.

    Args:
        sparse, background_label: as in `instance_metrics`.
        is_repetition: whether this process only repeats images of others, which happens where there are fewer images
            than processes: they do not count in the means.
    """

    def __init__(self, sparse: bool = False, background_label: int | None = None, is_repetition: bool = False) -> None:
        super().__init__()
        self.sparse, self.background_label, self.is_repetition = sparse, background_label, is_repetition

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **_: Any) -> list[torch.Tensor]:
        """Values (B, len(METRIC_NAMES)) in float64; which images have annotated objects, and which count, (B,) bool."""
        predictions, truths = _checked_batch(y_pred, "prediction"), _checked_batch(y, "ground_truth")
        if len(predictions) != len(truths):
            raise InputError(f"prediction has {len(predictions)} images, but ground_truth has {len(truths)}.")
        rows = [
            instance_metrics(prediction[0], truth[0], self.sparse, self.background_label)
            for prediction, truth in zip(predictions, truths, strict=True)
        ]
        values = [[row[name] for name in METRIC_NAMES] for row in rows]
        annotated = [bool(without_special(truth, self.background_label, None).any()) for truth in truths]
        counted = torch.full((len(truths),), not self.is_repetition)
        return [torch.tensor(values, dtype=torch.float64), torch.tensor(annotated), counted]

    def per_image(self) -> torch.Tensor:
        """The values of each image, process after process: (N, len(METRIC_NAMES)) float64."""
        return gathered(self)[0]

    def has_seen_objects(self) -> bool:
        """Whether an image of any process holds an annotated object."""
        return bool(gathered(self)[1].any())

    def aggregate(self) -> dict[str, float]:
        """The mean of each metric over all images of all processes.

        With ``sparse`` an image without any annotated object says nothing, and its perfect values would only
        flatter the mean: it is left out, unless there is no other.
        """
        values, annotated, counted = gathered(self)
        if self.sparse and bool(annotated.any()):
            counted = counted & annotated
        values = values[counted]
        return dict(zip(METRIC_NAMES, values.mean(dim=0).tolist(), strict=True))


def gathered(metric: CumulativeIterationMetric) -> Sequence[torch.Tensor]:
    """What a metric has kept of each image, process after process, on the CPU; raises ValueError if it saw none."""
    buffers = metric.get_buffer()
    if buffers is None:
        raise InputError(f"{type(metric).__name__} has seen 0 images, and there is nothing to average.")
    return [buffer.cpu() for buffer in buffers]
