"""No gradient may undo a training: clip large ones, stop at one that is no number."""

from __future__ import annotations

from pathlib import Path

import torch
from ignite.engine import Engine
from monai.engines import IterationEvents, Trainer
from torch import Tensor, nn

from ..files.whole_files import whole_file, write_tensors
from ..refusals import InputError
from .steps import TENSORS


class GradientGuard:
    """Handler that clips the gradient's norm before each step, and ends the training at one that is no finite number.

    At a loss that is none, too, and both before they reach the weights. In mixed precision a gradient is left to the
    trainer's scaler, which skips such steps.

    Args:
        optimizer: whose parameters to look at.
        max_norm: the largest norm that is left alone: one odd patch must not undo the training.
        path: gets the batch that led to what is no number, for inspection by `torch.load`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, max_norm: float, path: str) -> None:
        self.optimizer, self.max_norm, self.path = optimizer, max_norm, Path(path)

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._check_loss)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip)

    def _check_loss(self, engine: Trainer) -> None:
        self._check(engine, "loss", engine.state.output["loss"].detach())

    def _clip(self, engine: Trainer) -> None:
        if engine.amp and engine.scaler is not None:
            engine.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.max_norm)
        if not engine.amp:
            self._check(engine, "gradient's norm", norm)

    def _check(self, engine: Trainer, name: str, value: Tensor) -> None:
        if bool(torch.isfinite(value)):
            return
        batch = {key: torch.as_tensor(engine.state.batch[key]).cpu() for key in TENSORS if key in engine.state.batch}
        with whole_file(self.path) as temporary:
            write_tensors(temporary, batch)
        raise InputError(
            f"{self.path}: holds the batch of iteration {engine.state.iteration}, whose {name} was found to be "
            f"{float(value)}, expected a finite number; the weights are those of the iteration before."
        )
