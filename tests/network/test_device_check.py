"""A device that computes something else than a CPU is found out."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional

from scripts.network.device_check import convolves_rightly
from scripts.run.options import check_options


@pytest.fixture(params=[2, 3])
def spatial_dims(request: pytest.FixtureRequest) -> int:
    return request.param


def test_a_cpu_convolves_rightly_and_draws_no_random_number(spatial_dims: int) -> None:
    before = torch.get_rng_state()
    assert convolves_rightly("cpu", spatial_dims)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("wrong", [1, 2])  # with weights as inference, and as training has them
def test_another_result_is_found_out(spatial_dims: int, wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"conv{spatial_dims}d"
    right, calls = getattr(functional, name), []

    def convolve(image: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        calls.append(name)
        return right(image, kernel.flip(0) if len(calls) == 1 + wrong else kernel)

    monkeypatch.setattr(functional, name, convolve)
    assert not convolves_rightly("cpu", spatial_dims)


@pytest.mark.parametrize(("device", "is_refused"), [("mps", True), ("cpu", False)])
def test_an_apple_gpu_that_convolves_wrongly_is_refused(
    device: str, is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.run.options._exists", lambda _: True)
    monkeypatch.setattr("scripts.run.options.convolves_rightly", lambda *_: False)
    with pytest.raises(ValueError, match="device: found mps, whose") if is_refused else nullcontext():
        check_options(device=torch.device(device))
