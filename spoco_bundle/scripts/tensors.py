"""Tensors as numbers alone."""

from __future__ import annotations

from monai.data import MetaTensor
from torch import Tensor


def plain_tensor(tensor: Tensor) -> Tensor:
    """Without gradient and metadata, and not on MPS, which lacks the float64 that clustering needs."""
    plain = tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
    return plain.detach().cpu() if plain.device.type == "mps" else plain.detach()
