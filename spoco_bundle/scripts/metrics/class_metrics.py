"""How well are the objects of each class found? The metrics of `metrics`, one class at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.metrics import CumulativeIterationMetric

from ..transforms.classes import objects_of_class
from .instances import METRIC_NAMES, instance_metrics


class ClassMetrics(CumulativeIterationMetric):
    """`instance_metrics` of the objects of each class, averaged over the images that hold any.

    An image without objects of a class, annotated or predicted, says nothing about it: its perfect values would
    only flatter the mean. With `sparse` the annotated ones alone decide. Otherwise as `metrics.InstanceMetrics`.

    Args:
        classes: those to measure, see `classes`.
        sparse: only some objects are annotated, see `metrics.instance_metrics`.
    """

    def __init__(self, classes: Sequence[int], sparse: bool = False) -> None:
        super().__init__()
        self.classes, self.sparse = list(classes), sparse

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        """Values (B, classes, len(METRIC_NAMES)) in float64, NaN for a class that the image does not hold."""
        values = torch.full((len(y_pred), len(self.classes), len(METRIC_NAMES)), torch.nan, dtype=torch.float64)
        for image, (prediction, truth) in enumerate(zip(y_pred, y, strict=True)):
            for position, class_ in enumerate(self.classes):
                found, annotated = (objects_of_class(torch.as_tensor(ids), class_) for ids in (prediction, truth))
                if annotated.any() or (found.any() and not self.sparse):
                    row = instance_metrics(found, annotated, self.sparse)
                    values[image, position] = values.new_tensor([row[name] for name in METRIC_NAMES])
        return values

    def aggregate(self) -> dict[str, dict[str, float]]:
        """Class -> mean of each metric and the number of images that hold it; no metrics where that is 0."""
        values = self.get_buffer()
        if values is None:
            raise ValueError("ClassMetrics has seen 0 images, and there is nothing to average.")
        result: dict[str, dict[str, float]] = {}
        for class_, rows in zip(self.classes, values.cpu().unbind(1), strict=True):
            rows = rows[~rows[:, 0].isnan()]
            means = dict(zip(METRIC_NAMES, rows.mean(0).tolist(), strict=True)) if len(rows) else {}
            result[str(class_)] = {**means, "images": len(rows)}
        return result
