"""End a training whose validations get no better."""

from __future__ import annotations

import sys

from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping
from monai.engines import Evaluator


class StopWithoutProgress(EarlyStopping):
    """Trainer handler: Ignite's `EarlyStopping` on the key metric of the validations, of which greater is better.

    Ignite attaches it to the validator and wants the trainer when it is made. In a config, where the trainer names its
    handlers and one of these names the validator, that would be a circle; here the trainer is told when it attaches.

    Args:
        validator: whose key metric counts.
        patience: the training ends after so many validations in a row that were no better than the best; None: never.
    """

    def __init__(self, validator: Evaluator, patience: int | None = None) -> None:
        if patience is not None and patience < 1:
            raise ValueError(f"early_stop_patience must be at least 1, or null for never, got {patience}")
        super().__init__(sys.maxsize if patience is None else patience, key_metric, trainer=validator)
        self.validator = validator

    def attach(self, engine: Engine) -> None:
        """Register with a trainer, which is the one that ends."""
        self.trainer = engine
        self.validator.add_event_handler(Events.COMPLETED, self)


def key_metric(validator: Engine) -> float:
    """The newest value of a MONAI evaluator's key metric."""
    return validator.state.metrics[validator.state.key_metric_name]
