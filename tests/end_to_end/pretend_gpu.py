"""Tensors that behave like those on a GPU where it matters most: no numpy array can be made of them.

So a machine without a GPU sees when a step of the evaluation forgets that its input may lie elsewhere.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.engines import IterationEvents
from torch import Tensor


def _refuse(*arguments: Any, **options: Any) -> NoReturn:
    raise TypeError(
        "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it to host memory first."
    )


class PlainOnGpu(Tensor):
    """A tensor without metadata."""

    numpy = __array__ = _refuse

    def cpu(self) -> Tensor:
        return self.as_subclass(Tensor)


class OnGpu(MetaTensor):
    """What an evaluator hands on."""

    numpy = __array__ = _refuse

    def cpu(self) -> MetaTensor:
        return MetaTensor(self.as_subclass(Tensor), meta=self.meta, applied_operations=self.applied_operations)

    def as_tensor(self) -> PlainOnGpu:
        return self.as_subclass(PlainOnGpu)


class PretendGpu:
    """Evaluator handler: image, label and embeddings are on the pretended GPU from then on."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        for key, value in engine.state.output.items():
            if isinstance(value, Tensor):
                meta, history = getattr(value, "meta", None), getattr(value, "applied_operations", None)
                engine.state.output[key] = OnGpu(torch.as_tensor(value), meta=meta, applied_operations=history)
