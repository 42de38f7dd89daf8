"""What is logged of an epoch."""

from __future__ import annotations

import torch
from ignite.engine import Engine

from scripts.losses import SpocoLoss
from scripts.training.epoch_loss import EpochLoss


def test_the_loss_of_an_epoch_and_its_terms_are_means_over_the_iterations() -> None:
    loss = SpocoLoss(distance_weight=10.0)
    batches = iter([{"variance": 1.0, "distance": 2.0}, {"variance": 3.0, "distance": 2.5}] * 2)

    def step(engine: Engine, batch: object) -> None:
        loss.terms = {name: torch.tensor(value) for name, value in next(batches).items()}

    engine = Engine(step)
    EpochLoss(loss).attach(engine)
    for _ in range(2):  # the second epoch starts anew
        metrics = engine.run([0, 0]).metrics
        assert metrics == {"epoch_loss": 2.0 + 10 * 2.25, "terms/variance": 2.0, "terms/distance": 2.25}
