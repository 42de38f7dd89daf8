"""bfloat16 where it is faster, and float32 for everything that needs it."""

from __future__ import annotations

import pytest
import torch
from monai.inferers import SimpleInferer

from scripts.network.dynunet import embedding_network
from scripts.network.precision import AutocastInferer, fastest_precision


class Spy(torch.nn.Module):
    """A convolution and a normalisation that note what they computed in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(1, 8, 3, padding=1)
        self.normalization = torch.nn.GroupNorm(8, 8)
        self.seen: dict[str, torch.dtype] = {}

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        convolved = self.convolution(image)
        normalized = self.normalization(convolved)
        self.seen = {"convolution": convolved.dtype, "normalization": normalized.dtype}
        return convolved + normalized


def test_float32_changes_nothing() -> None:
    network, image = Spy(), torch.rand(2, 1, 8, 8)
    assert torch.equal(AutocastInferer("float32")(image, network), SimpleInferer()(image, network))
    assert network.seen["convolution"] == torch.float32


def test_bfloat16_is_for_convolutions_only() -> None:
    network = Spy()
    embeddings = AutocastInferer("bfloat16")(torch.rand(2, 1, 8, 8), network)
    assert network.seen == {"convolution": torch.bfloat16, "normalization": torch.float32}
    assert embeddings.dtype == torch.float32


def test_after_it_everything_is_as_before() -> None:
    network, image = Spy(), torch.rand(2, 1, 8, 8)
    expected = network(image)
    AutocastInferer("bfloat16")(image, network)
    assert torch.equal(network(image), expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_both_agree_to_a_thirtieth_in_embeddings_and_a_fifth_in_gradients(dims: int) -> None:
    torch.manual_seed(0)
    network = embedding_network(dims, 1, 4, filters=(8, 16, 32))
    image, target = torch.rand(1, 1, *[16] * dims), torch.rand(1, 4, *[16] * dims)
    embeddings, gradients = {}, {}
    for precision in ("float32", "bfloat16"):
        network.zero_grad()
        embeddings[precision] = AutocastInferer(precision)(image, network)
        (embeddings[precision] - target).square().mean().backward()
        gradients[precision] = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    for found, tolerance in ((embeddings, 1 / 30), (gradients, 1 / 5)):
        difference = (found["bfloat16"] - found["float32"]).norm() / found["float32"].norm()
        assert 0 < difference < tolerance


def test_refuses_an_unknown_precision() -> None:
    with pytest.raises(ValueError, match="one of float32, bfloat16, got 'float16'"):
        AutocastInferer("float16")


@pytest.mark.parametrize(("amx", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_the_fastest_on_a_cpu_depends_on_its_instructions(
    amx: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx})
    assert fastest_precision("cpu") == expected


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_other_devices_are_left_to_amp(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert fastest_precision(device) == "float32"
