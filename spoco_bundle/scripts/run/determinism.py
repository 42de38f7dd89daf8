"""The same command, seed and device give the same results."""

from __future__ import annotations

import os

import monai.utils
import torch
import torch.utils.deterministic

CUBLAS_WORKSPACES = ":4096:8"  # eight of 4 MiB: matrix products are equal only with workspaces of a fixed size


def set_determinism(seed: int, deterministic: bool) -> None:
    """Seed everything and choose cuDNN's deterministic convolutions, as MONAI does; on a GPU also equal sums.

    Args:
        seed: of torch, NumPy and Python.
        deterministic: what several threads of a GPU add up has one order each time. CPUs need nothing for that. An
            operation of which torch has no such version is warned of, and does not end the run.
    """
    monai.utils.set_determinism(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACES)
        torch.use_deterministic_algorithms(True, warn_only=True)
        # a kernel for each new tensor, for debugging; torch makes a property of it, which types cannot see
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
