"""A network's layers over a whole image, window by window: what comes out does not depend on the windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from scripts.network.dynunet import embedding_network, size_divisor
from scripts.network.features import UnsupportedLayer, image_features


def line(*values: float) -> Tensor:
    """An image (1, 1, 1, length)."""
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def with_ones(layer: nn.Module) -> nn.Module:
    """All of its weights are 1."""
    for weights in layer.parameters():
        nn.init.ones_(weights)
    return layer.requires_grad_(False)


class Called(nn.Module):
    """A function of PyTorch in the form in which somebody calls it."""

    def __init__(self, function: Callable[..., Tensor], *arguments: Any, **options: Any) -> None:
        super().__init__()
        self.function, self.arguments, self.options = function, arguments, options

    def forward(self, image: Tensor) -> Tensor:
        return self.function(image, *self.arguments, **self.options)


class TestByHand:
    def test_a_convolution_sees_beyond_its_window(self) -> None:
        neighbours = with_ones(nn.Conv2d(1, 1, (1, 3), padding=(0, 1), bias=False))
        sums = neighbours(image_features(line(1, 2, 3, 4), window=(1, 2)))
        assert sums.shape == (1, 1, 1, 4)
        assert sums.whole().flatten().tolist() == [1 + 2, 1 + 2 + 3, 2 + 3 + 4, 3 + 4]

    def test_a_stride_keeps_its_phase(self) -> None:
        every_second = with_ones(nn.Conv2d(1, 1, 1, stride=(1, 2), bias=False))
        found = every_second(image_features(line(0, 1, 2, 3, 4, 5), window=(1, 3)))
        assert found.whole().flatten().tolist() == [0, 2, 4]

    def test_the_statistics_are_those_of_the_whole_image(self) -> None:
        norm = nn.GroupNorm(1, 1, eps=0.0)
        found = norm(image_features(line(0, 2, 4, 6, 8), window=(1, 2))).whole()  # the last window holds one voxel
        torch.testing.assert_close(found, line(-4, -2, 0, 2, 4) / 8**0.5)  # mean 4, variance (16 + 4 + 0 + 4 + 16) / 5

    def test_scale_and_shift_of_each_channel_are_kept(self) -> None:
        norm = nn.GroupNorm(1, 2, eps=0.0)
        norm.weight.data, norm.bias.data = torch.tensor([1.0, 10.0]), torch.tensor([0.0, 100.0])
        image = torch.tensor([1.0, 3.0, 1.0, 3.0]).view(1, 2, 1, 2)  # mean 2, variance 1
        assert norm(image_features(image, window=(1, 1))).whole().flatten().tolist() == [-1, 1, 90, 110]

    def test_the_statistics_are_exact_far_from_zero(self) -> None:
        image = 1000 + torch.rand(1, 8, 16, 16)
        norm = nn.GroupNorm(2, 8)
        torch.testing.assert_close(norm(image_features(image, window=(4, 4))).whole(), norm(image), atol=1e-3, rtol=0)


class TestLayers:
    @pytest.mark.parametrize(
        "layer",
        [
            nn.Conv2d(4, 6, 3, padding=1),
            nn.Conv2d(4, 6, (1, 3), stride=(1, 2), padding=(0, 1), bias=False),
            nn.Conv2d(4, 6, 3, stride=2, padding=1),
            nn.Conv2d(4, 6, 2),
            nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2),
            nn.ConvTranspose2d(4, 6, 2, stride=2, bias=False),
            nn.ConvTranspose2d(4, 6, (1, 3), stride=(1, 3), groups=2),
            nn.GroupNorm(2, 4),
            nn.Sequential(nn.ConvTranspose2d(4, 6, 2, stride=2), nn.GroupNorm(2, 6)),
            nn.GroupNorm(2, 4, affine=False),
            nn.LeakyReLU(0.1),
            nn.ReLU(),
            Called(functional.conv2d, torch.ones(2, 4, 3, 3), padding=1),
            Called(functional.conv2d, torch.ones(2, 4, 3, 3), None, 2, 1),
            Called(functional.conv_transpose2d, torch.ones(4, 2, 2, 2), stride=2),
            Called(functional.group_norm, 2),
            Called(functional.leaky_relu, 0.1),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("window", [(3, 4), (5, 5), (20, 20)])
    @torch.no_grad()
    def test_they_are_those_of_the_image(self, layer: nn.Module, window: Sequence[int]) -> None:
        image = torch.randn(1, 4, 11, 14)
        expected = layer(image)
        features = layer(image_features(image, window))
        assert features.shape == expected.shape
        torch.testing.assert_close(features.whole(), expected, atol=1e-5, rtol=1e-5)

    @torch.no_grad()
    def test_what_is_read_across_the_border_is_zero_there(self) -> None:
        features = with_ones(nn.Conv2d(1, 1, 1))(image_features(torch.ones(1, 1, 2, 2), window=(1, 1)))
        assert features.read([slice(-1, 1), slice(1, 4)])[0, 0].tolist() == [[0, 0, 0], [2, 0, 0]]

    @torch.no_grad()
    def test_what_is_read_may_be_changed(self) -> None:
        image = line(1, 2, 3)
        features = image_features(image, (1, 3))
        functional.leaky_relu(features, -1.0, inplace=True).whole().zero_()
        features.read([slice(0, 1), slice(0, 3)]).zero_()
        assert features.whole().flatten().tolist() == image.flatten().tolist() == [1, 2, 3]

    @pytest.mark.parametrize(
        "layer",
        [
            nn.Softmax(dim=1),
            nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1),
            nn.Conv2d(4, 4, 3, padding="same"),
            lambda features: features + 1,
            lambda features: torch.cat([features, features], dim=2),
            lambda features: torch.cat([features, torch.rand(1, 1, 8, 8)], dim=1),
            lambda features: functional.conv2d(torch.rand(1, 4, 8, 8), weight=features),
            lambda features: functional.conv2d(input=features, weight=torch.rand(1, 4, 3, 3)),
        ],
    )
    def test_unknown_ones_are_refused(self, layer: Any) -> None:
        with pytest.raises(UnsupportedLayer):
            layer(image_features(torch.rand(1, 4, 8, 8), (4, 4)))


VOXEL_SIZES = st.sampled_from([(1.0, 1.0), (1.0, 3.0), (1.0, 1.0, 1.0), (5.0, 1.0, 1.0)])


class TestNetwork:
    @given(voxel_size=VOXEL_SIZES, seed=st.integers(0, 100), keep_all=st.booleans(), data=st.data())
    @torch.no_grad()
    def test_windows_do_not_matter(
        self, voxel_size: tuple[float, ...], seed: int, keep_all: bool, data: st.DataObject
    ) -> None:
        torch.manual_seed(seed)
        network = embedding_network(len(voxel_size), 1, 4, (8, 8, 16), voxel_size).eval()
        divisor = size_divisor(voxel_size, 3)
        shape = [step * data.draw(st.integers(1, 4)) for step in divisor]
        shape[0] += divisor[0]  # of a single voxel there is nothing to normalize
        window = [data.draw(st.integers(math.ceil(length / 3), length)) for length in shape]
        image = torch.rand(1, 1, *shape)
        found = network(image_features(image, window, keep_all=keep_all)).whole()
        torch.testing.assert_close(found, network(image), atol=1e-3, rtol=1e-3)

    @torch.no_grad()
    def test_half_precision(self) -> None:
        torch.manual_seed(0)
        network, image = embedding_network(2, 1, 4, (8, 8, 16)).eval(), torch.rand(1, 1, 32, 32)
        with torch.autocast("cpu", torch.bfloat16):
            expected, found = network(image), network(image_features(image, (16, 16))).whole()
        assert found.dtype == expected.dtype == torch.bfloat16
        assert (found - expected).float().norm() < 0.02 * expected.float().norm()

    @torch.no_grad()
    def test_no_more_than_a_window_and_its_surroundings_is_computed(self) -> None:
        class Largest(TorchDispatchMode):
            sides: list[int] = []

            def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                result = function(*args, **(kwargs or {}))
                if function is torch.ops.aten.convolution.default:
                    self.sides.append(max(result.shape[2:]))
                return result

        network = embedding_network(2, 1, 4, (8, 8, 16, 16)).eval()
        with Largest():
            network(image_features(torch.rand(1, 1, 256, 256), (64, 64))).whole()
        assert max(Largest.sides) <= 64 + 2 * 4  # of four convolutions two have to be computed again

    @torch.no_grad()
    def test_what_is_kept_is_computed_once(self) -> None:
        class Count(TorchDispatchMode):
            convolutions = 0

            def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                self.convolutions += function is torch.ops.aten.convolution.default
                return function(*args, **(kwargs or {}))

        network = embedding_network(2, 1, 4, (8, 8, 16)).eval()
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
        with Count() as count:
            network(image_features(torch.rand(1, 1, 64, 32), (32, 32), keep_all=True)).whole()
        assert count.convolutions == 2 * len(layers)  # of two windows

    @torch.no_grad()
    def test_they_are_put_together_as_numbers_of_another_type(self) -> None:
        image = torch.rand(1, 1, 8, 8)
        assert torch.equal(image_features(image, (4, 4)).whole(torch.float64), image.double())
