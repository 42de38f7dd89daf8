"""How well are the objects of each class found? The metrics of `metrics`, one class at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric

from ..refusals import InputError
from ..transforms.classes import IDS_OF_A_CLASS, objects_of_class
from ..transforms.label_convention import where_id
from .instances import METRIC_NAMES, gathered, instance_metrics

NONE = 1  # id of what is known to be no object of a class; those of objects are larger


class ClassMetrics(CumulativeIterationMetric):
    """`instance_metrics` of the objects of each class, averaged over the images that hold any.

    An image without objects of a class, annotated or predicted, says nothing about it: its perfect values would
    only flatter the mean. With `sparse` the annotated ones alone decide. Otherwise as `metrics.InstanceMetrics`.

    Args:
        classes: those to measure, see `classes`.
        sparse, background_label, is_repetition: see `metrics.InstanceMetrics`.
    """

    def __init__(
        self,
        classes: Sequence[int],
        sparse: bool = False,
        background_label: int | None = None,
        is_repetition: bool = False,
    ) -> None:
        super().__init__()
        self.classes, self.sparse, self.background_label = list(classes), sparse, background_label
        self.is_repetition = is_repetition

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **_: Any) -> list[torch.Tensor]:
        """Values (B, classes, len(METRIC_NAMES)) in float64, NaN for a class that does not count in the image.

        And of which classes objects are annotated, (B, classes) bool.
        """
        if y is None:
            raise InputError("ClassMetrics needs the truth as well as the prediction.")
        values = torch.full((len(y_pred), len(self.classes), len(METRIC_NAMES)), torch.nan, dtype=torch.float64)
        holds = torch.zeros(values.shape[:2], dtype=torch.bool)
        if self.is_repetition:
            return [values, holds]
        for image, (prediction, truth) in enumerate(zip(y_pred, y, strict=True)):
            for position, class_ in enumerate(self.classes):
                found, annotated = (objects_of_class(torch.as_tensor(ids), class_) for ids in (prediction, truth))
                holds[image, position] = annotated.any()
                if holds[image, position] or (found.any() and not self.sparse):
                    labels = annotated.masked_fill(self._is_none(torch.as_tensor(truth), class_), NONE)
                    row = instance_metrics(found, labels, self.sparse, background_label=NONE)
                    values[image, position] = values.new_tensor([row[name] for name in METRIC_NAMES])
        return [values, holds]

    def _is_none(self, truth: torch.Tensor, class_: int) -> torch.Tensor:
        """Where somebody looked and found no object of a class: painted background, and objects of other classes."""
        class_of = truth // IDS_OF_A_CLASS
        return where_id(truth, self.background_label) | ((class_of > 0) & (class_of != class_))

    def has_seen_objects(self) -> bool:
        """Whether an image of any process holds an annotated object of one of the classes."""
        return bool(gathered(self)[1].any())

    def aggregate(self) -> dict[str, dict[str, float]]:
        """Class -> mean of each metric and the number of images that hold it; no metrics where that is 0."""
        values, _ = gathered(self)
        result: dict[str, dict[str, float]] = {}
        for class_, rows in zip(self.classes, values.unbind(1), strict=True):
            rows = rows[~rows[:, 0].isnan()]
            means = dict(zip(METRIC_NAMES, rows.mean(0).tolist(), strict=True)) if len(rows) else {}
            result[str(class_)] = {**means, "images": len(rows)}
        return result
