"""Instance metrics in MONAI's evaluator, named in a config.

"key_val_metric": {
    "annotated_iou": {"_target_": "scripts.metrics.metrics_handler.InstanceMetricsHandler", "sparse": true}
},
"handlers": [
    {"_target_": "scripts.metrics.metrics_handler.MetricsJsonWriter", "output_path": "$@output_dir + '/metrics.json'"}
]
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from ignite.metrics.metric import EpochWise, MetricUsage
from monai.handlers import from_engine
from monai.utils import string_list_all_gather

from ..engines import batch_of
from ..files.image_files import file_of, unique_names
from ..files.whole_files import write_json
from ..refusals import InputError
from .class_metrics import ClassMetrics
from .instances import METRIC_NAMES, InstanceMetrics

logger = logging.getLogger(__name__)

DETAILS_KEY = "instance_metrics"  # where engine.state.metric_details holds the values of each image
CLASSES_KEY = "class_metrics"  # and the means of each class


class InstanceMetricsHandler(Metric):
    """All of `scripts.metrics.instances.METRIC_NAMES` as the key metric of a MONAI evaluator.

    The name it is given in ``key_val_metric`` must be one of them and chooses which one selects the best
    checkpoint; all of them appear in ``engine.state.metrics``, where StatsHandler and TensorBoardStatsHandler
    find them. Of `LESS_IS_BETTER` less is better, which the handlers of `scripts.training` know; MONAI's
    evaluator, for the best value that it remembers itself, needs
    ``"metric_cmp_fn": "$lambda current, best: current < best"``. It looks at the items ``pred`` and ``label`` of
    ``engine.state.output``, each (1, *spatial), integers.

    Args:
        sparse, background_label: see `scripts.metrics.instance_metrics`.
        is_repetition: see `scripts.metrics.InstanceMetrics`.
        classes: of these, the objects of each one are also measured alone (see `scripts.metrics.class_metrics`).
    """

    def __init__(
        self,
        sparse: bool = False,
        classes: Sequence[int] | None = None,
        background_label: int | None = None,
        is_repetition: bool = False,
    ) -> None:
        self.metric = InstanceMetrics(sparse, background_label, is_repetition)
        self.class_metric = ClassMetrics(classes, sparse, background_label, is_repetition) if classes else None
        # "flatten": the values go to engine.state.metrics one by one, not as a dictionary under one name.
        super().__init__(from_engine(["pred", "label"]), metrics_result_mode="flatten")

    def reset(self) -> None:
        self.metric.reset()
        if self.class_metric is not None:
            self.class_metric.reset()

    def update(self, output: Sequence[torch.Tensor]) -> None:
        """Add (predictions, truths) of one batch, both (B, 1, *spatial)."""
        prediction, ground_truth = output
        self.metric(prediction, ground_truth)
        if self.class_metric is not None:
            self.class_metric(prediction, ground_truth)

    def compute(self) -> dict[str, float]:
        """Means over all images of all processes."""
        return self.metric.aggregate()

    def completed(self, engine: Engine, name: str) -> None:
        """Put the means in ``engine.state.metrics`` and the values of each image in ``metric_details``."""
        super().completed(engine, name)
        details = vars(engine.state).setdefault("metric_details", {})  # MONAI's; another engine may have none
        details[DETAILS_KEY] = self.metric.per_image()
        if self.metric.sparse and not self.metric.has_seen_objects():
            logger.warning("no image of this validation holds an annotated object, so annotated_iou says nothing")
        if self.class_metric is not None:
            per_class = self.class_metric.aggregate()
            if not self.class_metric.has_seen_objects():
                logger.warning("no image holds an object of the classes %s, so the metrics say nothing", [*per_class])
            details[CLASSES_KEY] = per_class

    def attach(self, engine: Engine, name: str, usage: str | MetricUsage = EpochWise.usage_name) -> None:
        """Let the engine compute the metrics; `name` is the key metric."""
        if name not in METRIC_NAMES:
            raise InputError(f"The metric must be named one of {', '.join(METRIC_NAMES)}, but it is named {name!r}.")
        super().attach(engine, name, usage)


class MetricsJsonWriter:
    """Writes the metrics as JSON when the evaluator has completed.

    ``{"mean": {"ap50": 0.8, ...}, "images": {"1136_image": {"ap50": 0.8, ...}, ...}}``, and with classes
    ``"per_class": {"26": {"ap50": 0.7, ..., "images": 50}, ...}``

    An image has the name of the file of ``image``, without folder and extension; as many parent folders are added as
    it takes to tell two images apart. The JSON file is there completely or not at all; rank 0 alone writes it.

    Args:
        output_path: the file to write; its folder is made if missing.
    """

    def __init__(self, output_path: str | Path) -> None:
        self.output_path = Path(output_path)
        self._paths: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Register with the evaluator; it needs an `InstanceMetricsHandler` as one of its metrics."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._forget_paths)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._remember_paths)
        engine.add_event_handler(Events.COMPLETED, self)

    def _forget_paths(self, engine: Engine) -> None:
        self._paths = []

    def _remember_paths(self, engine: Engine) -> None:
        self._paths += [file_of(sample["image"]) for sample in batch_of(engine)]

    def __call__(self, engine: Engine) -> None:
        # Gathered process after process, as are the values. No path holds a null character.
        paths = string_list_all_gather(self._paths, delimiter="\0")
        details = getattr(engine.state, "metric_details", {})
        if DETAILS_KEY not in details:
            raise RuntimeError(
                f"MetricsJsonWriter found no instance metrics to write to {self.output_path}: "
                f"the evaluator needs an InstanceMetricsHandler as a metric."
            )
        if idist.get_rank() != 0:
            return
        rows = details[DETAILS_KEY].tolist()
        images = {
            name: dict(zip(METRIC_NAMES, row, strict=True)) for name, row in zip(unique_names(paths), rows, strict=True)
        }
        mean = {name: engine.state.metrics[name] for name in METRIC_NAMES}
        per_class = {"per_class": details[CLASSES_KEY]} if CLASSES_KEY in details else {}
        write_json(self.output_path, {"mean": mean, **per_class, "images": dict(sorted(images.items()))})
