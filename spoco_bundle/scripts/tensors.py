"""Tensors as numbers alone."""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from numpy.typing import ArrayLike
from torch import Tensor


def plain_tensor(values: ArrayLike | Tensor) -> Tensor:
    """Without gradient and metadata, and not on MPS, which lacks the float64 that clustering needs."""
    tensor = torch.as_tensor(values)
    plain = tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
    return plain.detach().cpu() if plain.device.type == "mps" else plain.detach()
