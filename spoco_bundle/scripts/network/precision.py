"""bfloat16 on CPUs that multiply it in hardware: a step of two networks takes three fifths of the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor
from torch.nn import functional

from ..refusals import InputError
from .group_norm import GroupNormMode

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def fastest_precision(device: torch.device | str) -> str:
    """``bfloat16`` on CPUs with AMX, where it is measured to be faster; ``float32`` elsewhere.

    On CUDA that leaves the choice to the trainer's `amp`.
    """
    return "bfloat16" if torch.device(device).type == "cpu" and _has_amx() else "float32"


class AutocastInferer(Inferer):
    """Run a network with its convolutions in a given precision; what it returns is float32 in any case.

    MONAI's engines know automatic mixed precision on CUDA only. bfloat16 has the range of float32, so that no gradient
    must be scaled.

    Args:
        precision: ``float32`` changes nothing, ``bfloat16`` runs under `torch.autocast`.
    """

    def __init__(self, precision: str = "float32") -> None:
        if precision not in PRECISIONS:
            raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        self.dtype = PRECISIONS[precision]

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """(B, C, *spatial) -> (B, E, *spatial)."""
        if self.dtype == torch.float32:
            return network(inputs, *args, **kwargs)
        with torch.autocast(inputs.device.type, self.dtype), _GroupNormInFloat32():
            return network(inputs, *args, **kwargs).float()


class _GroupNormInFloat32(GroupNormMode):
    """What autocast does on CUDA; on CPUs it leaves bfloat16, whose backward pass is three times slower."""

    def group_norm(self, values: Tensor, *arguments: Any, **options: Any) -> Tensor:
        return functional.group_norm(values.float(), *arguments, **options)


def _has_amx() -> bool:
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.13 and later
    return bool(capabilities.get("amx_bf16"))
