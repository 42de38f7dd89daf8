"""On which images and when a training validates, and when the validations say that it has learned all it will."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping
from monai.data import CacheDataset
from monai.engines import Evaluator
from monai.handlers import ValidationHandler

from ..metrics.instances import LESS_IS_BETTER
from ..refusals import InputError


def validation_set(
    data: Sequence[Mapping[str, str]],
    otherwise: Sequence[Mapping[str, str]],
    transform: Callable[..., Any],
    cache_rate: float,
) -> CacheDataset:
    """The images to validate on: `data`, or where these are none `otherwise`, the images to train on.

    MONAI Label sets a fifth of the annotated images aside, of a few none. Without a validation no thresholds would be
    chosen, and no weights written.
    """
    is_seen = sys.stderr.isatty()  # a bar would flood a log
    return CacheDataset(list(data or otherwise), transform, cache_rate=cache_rate, num_workers=None, progress=is_seen)


class StopWithoutProgress(EarlyStopping):
    """Ignite's `EarlyStopping` on the key metric of the validations.

    Ignite's wants the trainer when it is made. In a config, where the trainer names its handlers and one of these names
    the validator, that would be a circle; here the trainer is told when it attaches.

    Args:
        validator: whose key metric counts.
        patience: the training ends after this many validations in a row that were no better than the best; None: never.
    """

    def __init__(self, validator: Evaluator, patience: int | None = None) -> None:
        if patience is not None and patience < 1:
            raise InputError(f"patience must be at least 1, or None for never, got {patience}")
        super().__init__(sys.maxsize if patience is None else patience, key_score, trainer=validator)
        self.validator = validator

    def attach(self, engine: Engine, *_: Any, **__: Any) -> None:
        """Register with a trainer, which is the one that ends; Ignite's events have no say."""
        self.trainer = engine
        self.validator.add_event_handler(Events.COMPLETED, self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on counting; a training that was interrupted after its last validation ends at once."""
        super().load_state_dict(state_dict)
        if self.counter >= self.patience:
            self.trainer.terminate()


class ValidationWithLast(ValidationHandler):
    """MONAI's `ValidationHandler`, which also validates after the last epoch, whatever the interval.

    Otherwise the epochs after the last multiple of the interval would never reach a checkpoint.

    Args:
        validator: runs each validation.
        interval: epochs between two of them.
        early_stopping: may end the training after one of them.
    """

    def __init__(self, validator: Evaluator, interval: int, early_stopping: StopWithoutProgress) -> None:
        super().__init__(interval, validator)
        self.early_stopping = early_stopping

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        due = Events.EPOCH_COMPLETED(
            event_filter=lambda trainer, epoch: epoch % self.interval == 0 or epoch == trainer.state.max_epochs
        )
        engine.add_event_handler(due, self)
        self.early_stopping.attach(engine)


def key_score(validator: Engine) -> float:
    """The newest value of a MONAI evaluator's key metric, negated where less is better: greater is better."""
    name = validator.state.key_metric_name  # type: ignore[attr-defined]  # which MONAI adds to Ignite's state
    value = validator.state.metrics[name]
    return -value if name in LESS_IS_BETTER else value
