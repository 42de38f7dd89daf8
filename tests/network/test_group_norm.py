"""GroupNorm of large images, against PyTorch's in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from scripts.network import group_norm
from scripts.network.group_norm import ExactGroupNorm, channels_last_group_norm, pooled_moments


def channels_last(values: Tensor) -> Tensor:
    return values.contiguous(memory_format=torch.channels_last_3d if values.dim() == 5 else torch.channels_last)


def random(*shape: int) -> Tensor:
    return channels_last(torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2 + 1)


class TestPooledMoments:
    def test_of_portions_worked_by_hand(self) -> None:
        # 1 and 3; and 8: together 4 on average, with squared deviations of 9, 1 and 16
        means, variances = torch.tensor([[2.0], [8.0]]), torch.tensor([[1.0], [0.0]])
        mean, variance = pooled_moments(means, variances, torch.tensor([2, 1]), width=2)
        assert mean.tolist() == [4.0, 4.0]  # for each channel
        assert torch.allclose(variance, torch.tensor([26 / 3, 26 / 3]))

    def test_whatever_the_portions(self) -> None:
        values = torch.randn(60, 1, generator=torch.Generator().manual_seed(0))
        for portions in (values.split(60), values.split(7)):
            means = torch.stack([portion.mean(0) for portion in portions])
            variances = torch.stack([portion.var(0, correction=0) for portion in portions])
            mean, variance = pooled_moments(means, variances, torch.tensor([len(part) for part in portions]), width=1)
            assert torch.allclose(mean, values.mean(0), atol=1e-6)
            assert torch.allclose(variance, values.var(0, correction=0), atol=1e-6)


class TestChannelsLastGroupNorm:
    def test_of_two_voxels_worked_by_hand(self) -> None:
        normalized = channels_last_group_norm(torch.tensor([[[[1.0, 3.0]]]]), num_groups=1, eps=0.0)
        assert normalized.flatten().tolist() == [-1.0, 1.0]

    def test_channels_of_a_group_share_their_moments(self) -> None:
        normalized = channels_last_group_norm(torch.tensor([1.0, 3.0, 5.0, 5.0]).view(1, 4, 1, 1), num_groups=2, eps=1)
        assert torch.allclose(normalized.flatten(), torch.tensor([-(0.5**0.5), 0.5**0.5, 0.0, 0.0]))

    @pytest.mark.parametrize("shape", [(1, 8, 5, 6, 7), (3, 16, 9, 10), (2, 16, 1, 1), (1, 32, 40, 41, 2)])
    @pytest.mark.parametrize("is_affine", [True, False])
    def test_is_pytorchs(self, shape: tuple[int, ...], is_affine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(group_norm, "PORTION", 64)
        values = random(*shape)
        affine = random(1, shape[1], 1, 2).flatten(0, 2).T.contiguous() if is_affine else (None, None)
        found = channels_last_group_norm(values, 8, *affine)
        assert torch.allclose(found, functional.group_norm(values.contiguous(), 8, *affine), atol=1e-5)
        assert found.stride() == values.stride()

    def test_a_mean_far_from_zero_costs_little(self) -> None:
        values = random(1, 8, 50, 50) + 10_000
        expected = functional.group_norm(values.double().contiguous(), 8)
        assert (channels_last_group_norm(values, 8) - expected).abs().max() < 1e-3  # float32 knows 0.001 of 10000

    def test_one_value_everywhere_becomes_zero(self) -> None:
        assert channels_last_group_norm(torch.full((1, 8, 6, 6), 7.3), 8).abs().max() < 1e-4  # no variance but eps


class TestExactGroupNorm:
    def test_what_pytorch_adds_up_inexactly(self) -> None:
        layer, values = nn.GroupNorm(8, 8), random(1, 8, 128, 128, 128)
        expected = functional.group_norm(values.double().contiguous(), 8).float()
        with torch.no_grad():
            assert (layer(values) - expected).abs().max() > 1e-4  # else the module is not needed any more
            with ExactGroupNorm():
                assert (layer(values) - expected).abs().max() < 5e-6

    def test_gradients_are_pytorchs(self) -> None:
        layer, values = nn.GroupNorm(8, 8), random(1, 8, 20, 20).requires_grad_()
        expected = layer(values)
        with ExactGroupNorm():
            found = layer(values)
        assert torch.equal(found, expected)
        found.sum().backward()
        assert values.grad is not None

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_other_types_are_pytorchs(self, dtype: torch.dtype) -> None:
        layer, values = nn.GroupNorm(8, 8, dtype=dtype), random(1, 8, 20, 20).to(dtype)
        with torch.no_grad(), ExactGroupNorm():
            found = layer(values)
        assert torch.equal(found, layer(values))
        assert found.dtype == dtype

    def test_afterwards_everything_is_as_before(self) -> None:
        layer, values = nn.GroupNorm(8, 8), random(1, 8, 128, 128)
        with torch.no_grad():
            expected = layer(values)
            with ExactGroupNorm():
                assert not torch.equal(layer(values), expected)
            assert torch.equal(layer(values), expected)
