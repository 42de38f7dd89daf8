"""The loss of an epoch, and each of its terms, for whoever logs metrics."""

from __future__ import annotations

import torch
from ignite.engine import Engine
from ignite.metrics import Average
from ignite.metrics.metric import EpochWise, MetricUsage

from ..losses.spoco import SpocoLoss


class EpochLoss(Average):
    """Trainer handler: the loss and each of its terms, as means over an epoch and over all processes.

    An Ignite metric that brings its names along: `epoch_loss` and `terms/NAME` in `engine.state.metrics`, from where
    any logger takes them that comes after it.

    Args:
        loss: whose `terms` to average.
        device: where they are summed up; the network's, so that no step waits for a transfer.
    """

    def __init__(self, loss: SpocoLoss, device: torch.device | str = "cpu") -> None:
        super().__init__(lambda output: torch.stack(list(loss.terms.values())), device)
        self.loss = loss

    def attach(self, engine: Engine, name: str = "epoch_loss", usage: str | MetricUsage = EpochWise.usage_name) -> None:
        """Register with a trainer."""
        super().attach(engine, name, usage)

    def completed(self, engine: Engine, name: str) -> None:
        """Put the means of an epoch in `engine.state.metrics`."""
        means = dict(zip(self.loss.terms, self.compute().tolist(), strict=True))
        engine.state.metrics[name] = sum(self.loss.weights[term] * mean for term, mean in means.items())
        engine.state.metrics.update({f"terms/{term}": mean for term, mean in means.items()})
