"""The momentum network: its weights are an average of the student's over the last training steps."""

from __future__ import annotations

import copy

import torch
from ignite.engine import Engine, Events
from ignite.handlers.ema_handler import EMAWarmUp
from torch import Tensor, nn


def momentum_copy(network: nn.Module) -> nn.Module:
    """The momentum network at the start of a training: the same weights, in evaluation mode, without gradient."""
    return copy.deepcopy(network).requires_grad_(False).eval()


class MovingAverage:
    """Handler that moves the teacher's weights towards the student's after each training step.

    Ignite's `EMAHandler` makes the averaged network itself, where the configs cannot name it, counts its warm-up from
    zero in a resumed training, and moves one weight after the other: on a GPU two kernels for each of them.

    Args:
        student, teacher: two networks of one architecture.
        momentum: share of the student's weights that enters the teacher in each step.
        momentum_warmup, warmup_iters: the share falls linearly from `momentum_warmup` over `warmup_iters` steps, as the
            first weights are not worth remembering.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        momentum: float = 0.001,
        momentum_warmup: float = 0.02,
        warmup_iters: int = 1,
    ) -> None:
        self.moved: list[Tensor] = list(teacher.parameters())
        self.towards: list[Tensor] = list(student.parameters())
        self.buffers = list(zip(teacher.buffers(), student.buffers(), strict=True))
        self.warm_up = EMAWarmUp(momentum_warmup, warmup_iters, momentum)

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        share = self.warm_up(engine.state.iteration)
        torch._foreach_mul_(self.moved, 1 - share)
        torch._foreach_add_(self.moved, self.towards, alpha=share)
        for buffer, newest in self.buffers:
            buffer.copy_(newest)  # such as the statistics of a BatchNorm, which are averages already
