"""Training steps as CUDA graphs: a GPU repeats what it did before, without being told each operation again.

A small patch keeps a GPU busy for less time than Python needs to start its hundreds of operations one by one. The
first step with inputs of some shape is recorded, forward and backward, and from then on started at once. What is
recorded must not depend on values, as no Python runs again: no sizes that the data decide, no waiting for the GPU, no
counters. Random numbers are drawn anew each time, the same as without a recording, and weights are read where they lie,
so that they may change in place.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from ..refusals import InputError

# Of all recordings of a module: each keeps the memory of what it computes, and more voxels keep a GPU busy anyway.
MOST_VOXELS = 2**20
MOST_RECORDINGS = 16


def recorded(module: nn.Module, enabled: bool = True) -> nn.Module:
    """A module that is trained by recordings, or, where that is not wanted, the module itself."""
    return Recorded(module) if enabled else module


class Recorded(nn.Module):
    """Run a module as it is, but with gradient on a GPU from recordings, one for each kind of inputs.

    Its output lies in memory that the next call with such inputs writes again.

    Args:
        module: takes tensors, and anything else as keywords, which make recordings of their own; returns one tensor.
            It may neither wait for the GPU nor copy from the host.
        most_voxels: in the batches, (B, C, *spatial), of all recordings together; what exceeds it is not recorded.
    """

    def __init__(self, module: nn.Module, most_voxels: int = MOST_VOXELS) -> None:
        super().__init__()
        self.module, self.most_voxels = module, most_voxels
        self._recordings: dict[Hashable, Callable[..., Tensor]] = {}
        self._recorded_voxels = 0

    def forward(self, *inputs: Tensor, **constants: Hashable) -> Tensor:
        """As the module."""
        if not can_be_recorded(inputs):
            return self.module(*inputs, **constants)
        settings = *sorted(constants.items()), self.module.training, torch.is_autocast_enabled("cuda")
        kind = *map(_kind, inputs), *settings, torch.get_autocast_dtype("cuda")
        if kind not in self._recordings:
            batch, _, *spatial = inputs[0].shape
            voxels = self._recorded_voxels + batch * math.prod(spatial)
            if len(self._recordings) == MOST_RECORDINGS or voxels > self.most_voxels:
                return self.module(*inputs, **constants)
            self._recordings[kind] = _record(_AsCalled(self.module, constants), inputs)
            self._recorded_voxels = voxels
        _keep_gradients(self.module)
        return self._recordings[kind](*inputs)


def can_be_recorded(inputs: Sequence[Tensor]) -> bool:
    """Whether these are inputs of a training step on a GPU."""
    return torch.is_grad_enabled() and all(tensor.is_cuda for tensor in inputs)


def _record(module: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """A function that repeats on other inputs what the module does with these."""
    samples = tuple(tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in inputs)
    device, buffers = inputs[0].device, list(module.buffers())
    before = [buffer.clone() for buffer in buffers]  # trying it out moves statistics
    try:
        with (
            torch.random.fork_rng([device]),  # trying it out draws random numbers
            torch.cuda.device(device),
            torch.autocast("cuda", enabled=False),  # the backward pass is outside of the precision of the forward pass
            no_garbage_collection(),
        ):
            recording = torch.cuda.make_graphed_callables(module, samples)
    except torch.OutOfMemoryError as error:
        raise InputError(
            "cuda_graphs: found True, but too little memory on the device to record a step, expected a smaller "
            "batch_size, or False."
        ) from error
    except RuntimeError as error:  # what it leaves of the GPU's memory and random numbers is not to be relied on
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"cuda_graphs: found True, but a step of this training cannot be recorded ({reason}), expected False."
        ) from error
    for buffer, value in zip(buffers, before, strict=True):
        buffer.copy_(value)
    return cast("Callable[..., Tensor]", recording)  # to torch's types its result may be anything


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect garbage before and not meanwhile: what is freed on a GPU during a recording spoils it."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _AsCalled(nn.Module):
    """A module with the keywords and in the mixed precision of a call."""

    def __init__(self, module: nn.Module, constants: dict[str, Hashable]) -> None:
        super().__init__()
        self.module, self.constants = module, constants
        self.mixed, self.precision = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")

    def forward(self, *inputs: Tensor) -> Tensor:
        with torch.autocast("cuda", self.precision, self.mixed, cache_enabled=False):  # weights change: cast them anew
            return self.module(*inputs, **self.constants)


def _kind(tensor: Tensor) -> Hashable:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad


def _keep_gradients(module: nn.Module) -> None:
    """Move gradients that shall be added to out of the way: they lie where a recording writes the next ones."""
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameter.grad = parameter.grad.clone()
