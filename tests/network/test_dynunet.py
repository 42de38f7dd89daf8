"""The embedding network: its shape, and that it prints no grid into the embeddings."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from scripts.network.dynunet import embedding_network, kernels_and_strides, size_divisor, smooth_upsampling

# Zero padding disturbs about 18 pixels along each border of a net of 3 levels; the centre is undisturbed.
MARGIN = 24
SIDES = {2: 96, 3: 64}


def small_network(spatial_dims: int, seed: int = 0) -> DynUNet:
    torch.manual_seed(seed)
    return embedding_network(spatial_dims, 1, 4, filters=(8, 8, 16))


def stock_network(spatial_dims: int) -> DynUNet:
    """The same DynUNet as MONAI makes it, with transposed convolutions that learn each position by itself."""
    torch.manual_seed(0)
    kernels, strides = kernels_and_strides([1.0] * spatial_dims, 3)
    norm = ("GROUP", {"num_groups": 8})
    return DynUNet(spatial_dims, 1, 4, kernels, strides, strides[1:], filters=[8, 8, 16], norm_name=norm)


def train_a_little(network: nn.Module, spatial_dims: int, steps: int = 4) -> None:
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2, weight_decay=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        image, target = torch.rand(1, 1, *[16] * spatial_dims), torch.randn(1, 4, *[16] * spatial_dims)
        (network(image) - target).square().mean().backward()
        optimizer.step()


def transposed_weights(network: nn.Module) -> list[Tensor]:
    return [m.weight for m in network.modules() if isinstance(m, nn.ConvTranspose2d | nn.ConvTranspose3d)]


@torch.no_grad()
def checkerboard(network: nn.Module, spatial_dims: int, value: float) -> float:
    """Largest difference between neighbours in the undisturbed centre of a constant image's embeddings."""
    side = SIDES[spatial_dims]
    embeddings = network(torch.full((1, 1, *[side] * spatial_dims), value))[0]
    center = embeddings[(slice(None), *[slice(MARGIN, side - MARGIN)] * spatial_dims)]
    return max(center.diff(dim=axis).abs().max().item() for axis in range(1, spatial_dims + 1))


class TestShape:
    @pytest.mark.parametrize(
        ("spatial", "voxel_size"), [((16, 24), None), ((8, 16, 24), None), ((3, 16, 24), (4.0, 1.0, 1.0))]
    )
    def test_one_embedding_a_voxel(self, spatial: tuple[int, ...], voxel_size: tuple[float, ...] | None) -> None:
        network = embedding_network(len(spatial), 3, 5, (8, 8, 8), voxel_size)
        embeddings = network(torch.rand(2, 3, *spatial))
        assert type(embeddings) is Tensor  # and no list of deep supervision heads, in training mode neither
        assert embeddings.shape == (2, 5, *spatial)

    @pytest.mark.parametrize("spatial_dims", [2, 3])
    @pytest.mark.filterwarnings("ignore:The TorchScript type system")
    def test_torchscript_computes_the_same(self, spatial_dims: int) -> None:
        network, image = small_network(spatial_dims), torch.rand(1, 1, *[16] * spatial_dims)
        torch.testing.assert_close(torch.jit.script(network)(image), network(image))

    @pytest.mark.parametrize("spatial_dims", [2, 3])
    def test_the_state_dict_is_that_of_the_stock_network(self, spatial_dims: int) -> None:
        ours, stock = small_network(spatial_dims).state_dict(), stock_network(spatial_dims).state_dict()
        assert {name: value.shape for name, value in ours.items()} == {n: v.shape for n, v in stock.items()}

    def test_size_divisor_is_what_the_network_takes(self) -> None:
        voxel_size = (4.0, 1.0, 1.0)
        assert size_divisor(voxel_size, 5) == [4, 16, 16]
        network = embedding_network(3, 1, 2, (8,) * 5, voxel_size)
        assert network(torch.rand(1, 1, 4, 32, 32)).shape == (1, 2, 4, 32, 32)


class TestAnisotropy:
    @pytest.mark.parametrize(
        ("voxel_size", "kernels", "strides"),
        [
            ((1, 1), [[3, 3]] * 3, [[1, 1], [2, 2], [2, 2]]),
            ((2, 2, 2), [[3, 3, 3]] * 3, [[1, 1, 1], [2, 2, 2], [2, 2, 2]]),
            ((2, 1), [[1, 3], [3, 3], [3, 3]], [[1, 1], [1, 2], [2, 2]]),
            ((1, 1.9), [[3, 3]] * 3, [[1, 1], [2, 2], [2, 2]]),
            ((4, 1, 1), [[1, 3, 3], [1, 3, 3], [3, 3, 3]], [[1, 1, 1], [1, 2, 2], [1, 2, 2]]),
            # 3 to 1, then 3 to 2: close enough to go on together
            ((3, 1, 1), [[1, 3, 3], [3, 3, 3], [3, 3, 3]], [[1, 1, 1], [1, 2, 2], [2, 2, 2]]),
            # three different edges: 4, 2, 1 becomes 4, 2, 2, then 4, 4, 4
            ((4, 2, 1), [[1, 1, 3], [1, 3, 3], [3, 3, 3]], [[1, 1, 1], [1, 1, 2], [1, 2, 2]]),
        ],
    )
    def test_by_hand(self, voxel_size: tuple[float, ...], kernels: list[list[int]], strides: list[list[int]]) -> None:
        assert kernels_and_strides(voxel_size, 3) == (kernels, strides)

    def test_only_ratios_matter(self) -> None:
        assert kernels_and_strides((0.284, 0.127, 0.127), 4) == kernels_and_strides((284, 127, 127), 4)


class TestCheckerboard:
    @pytest.mark.parametrize("value", [0.0, 1.0])
    @pytest.mark.parametrize("spatial_dims", [2, 3])
    @pytest.mark.parametrize("steps", [0, 4])
    def test_a_constant_image_has_none(self, spatial_dims: int, value: float, steps: int) -> None:
        network = small_network(spatial_dims)
        train_a_little(network, spatial_dims, steps)
        assert checkerboard(network, spatial_dims, value) < 1e-5

    @pytest.mark.parametrize("spatial_dims", [2, 3])
    def test_the_stock_network_has_one(self, spatial_dims: int) -> None:
        network = stock_network(spatial_dims)
        assert checkerboard(network, spatial_dims, 1.0) > 0.01
        train_a_little(network, spatial_dims)
        assert checkerboard(network, spatial_dims, 0.0) > 0.01

    def test_smoothing_cures_the_stock_network(self) -> None:
        assert checkerboard(smooth_upsampling(stock_network(2)), 2, 1.0) < 1e-5

    def test_an_evaluated_copy_has_none(self) -> None:
        network = small_network(2)
        train_a_little(network, 2)
        assert checkerboard(copy.deepcopy(network).eval(), 2, 1.0) < 1e-5

    def test_it_learns_all_the_same(self) -> None:
        network = small_network(2)
        before = [weight.detach().clone() for weight in transposed_weights(network)]
        train_a_little(network, 2)
        after = transposed_weights(network)
        assert len(after) == 2
        for old, new in zip(before, after, strict=True):
            assert (old - new).abs().max() > 1e-3

    def test_smoothing_keeps_the_size_of_the_weights(self) -> None:
        torch.manual_seed(0)
        layer = nn.ConvTranspose3d(32, 32, 2, 2)
        before = layer.weight.std().item()
        smooth_upsampling(layer)
        assert layer.weight.std().item() == pytest.approx(before, rel=0.1)


class TestRefused:
    def test_filters_that_do_not_split_into_groups(self) -> None:
        with pytest.raises(ValueError, match=r"multiples of 8 .* got \[8, 12, 16\]"):
            embedding_network(2, 1, 4, (8, 12, 16))

    def test_too_few_levels(self) -> None:
        with pytest.raises(ValueError, match=r"at least 3 levels, got \[8, 16\]"):
            embedding_network(2, 1, 4, (8, 16))

    @pytest.mark.parametrize("voxel_size", [(1.0, 1.0), (0.0, 1.0, 1.0), (1.0, -2.0, 1.0)])
    def test_voxel_sizes(self, voxel_size: tuple[float, ...]) -> None:
        quoted = str(list(voxel_size)).replace("[", r"\[").replace("]", r"\]")
        with pytest.raises(ValueError, match=f"3 positive lengths, got {quoted}"):
            embedding_network(3, 1, 4, voxel_size=voxel_size)
