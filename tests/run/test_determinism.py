"""The same seed draws the same numbers, and on a GPU sums are to have one order."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.utils.deterministic

from scripts.run.determinism import set_determinism


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "to be restored")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


def drawn(seed: int) -> tuple[float, float, float]:
    set_determinism(seed, deterministic=False)
    return torch.rand(1).item(), np.random.rand(), random.random()


def test_the_same_seed_draws_the_same_numbers() -> None:
    assert drawn(3) == drawn(3)
    assert all(one != other for one, other in zip(drawn(3), drawn(4), strict=True))


@pytest.mark.parametrize("deterministic", [False, True])
def test_sums_have_one_order_where_it_is_asked_for(deterministic: bool) -> None:
    set_determinism(0, deterministic)
    assert torch.backends.cudnn.deterministic
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == deterministic
    assert torch.utils.deterministic.fill_uninitialized_memory != deterministic
