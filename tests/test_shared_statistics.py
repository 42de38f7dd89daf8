"""Statistics of the normalization: those of all windows together, and only while they are asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from scripts.networks import embedding_network
from scripts.shared_statistics import FixedNorm, shared_statistics


def windows_of(network: nn.Module, image: Tensor, count: int) -> Callable[[], None]:
    """Run a network on an image that is cut into equal parts along its last axis."""

    def see_windows() -> None:
        for window in image.chunk(count, dim=-1):
            network(window)

    return see_windows


class TestByHand:
    def test_two_windows(self) -> None:
        norm = nn.Sequential(nn.GroupNorm(1, 1, eps=0.0))
        image = torch.tensor([0.0, 2.0, 4.0, 6.0]).view(1, 1, 1, 4)  # mean 3, variance (9 + 1 + 1 + 9) / 4
        with shared_statistics(norm, windows_of(norm, image, 2)):
            left = norm(image[..., :2])
        torch.testing.assert_close(left.flatten(), torch.tensor([-3.0, -1.0]) / 5**0.5)
        torch.testing.assert_close(norm(image[..., :2]).flatten(), torch.tensor([-1.0, 1.0]))

    def test_scale_and_shift_of_each_channel_are_kept(self) -> None:
        norm = nn.GroupNorm(1, 2, eps=0.0)
        norm.weight.data, norm.bias.data = torch.tensor([1.0, 10.0]), torch.tensor([0.0, 100.0])
        fixed = FixedNorm(norm, torch.tensor([[1.0], [5.0]]))  # variance 5 - 1 = 4
        features = torch.tensor([3.0, 5.0]).view(1, 2, 1, 1)
        assert fixed(features).flatten().tolist() == [1.0, 120.0]


class TestWindows:
    @pytest.mark.parametrize("spatial", [(6, 8), (4, 6, 8)])
    def test_agree_with_the_image_where_no_voxel_sees_another(self, spatial: tuple[int, ...]) -> None:
        torch.manual_seed(0)
        convolution = nn.Conv2d if len(spatial) == 2 else nn.Conv3d
        network = nn.Sequential(convolution(1, 8, 1), nn.GroupNorm(4, 8), nn.ReLU(), convolution(8, 3, 1)).eval()
        image = torch.rand(1, 1, *spatial) * torch.linspace(0, 1, spatial[-1])
        whole = network(image)
        alone = torch.cat([network(window) for window in image.chunk(2, dim=-1)], dim=-1)
        with shared_statistics(network, windows_of(network, image, 2)):
            together = torch.cat([network(window) for window in image.chunk(2, dim=-1)], dim=-1)
        torch.testing.assert_close(together, whole)
        assert (alone - whole).abs().max() > 0.1

    @pytest.mark.parametrize("spatial_dims", [2, 3])
    def test_one_window_is_what_the_network_itself_computes(self, spatial_dims: int) -> None:
        network = embedding_network(spatial_dims, 1, 4, filters=(8, 8, 16)).eval()
        image = torch.rand(1, 1, *[16] * spatial_dims)
        with shared_statistics(network, windows_of(network, image, 1)):
            fixed = network(image)
        torch.testing.assert_close(fixed, network(image), atol=1e-5, rtol=1e-5)

    def test_half_precision(self) -> None:
        norm = nn.GroupNorm(2, 4)
        features = torch.randn(1, 4, 5, 6)
        moments = torch.stack([torch.zeros(2), torch.ones(2)])
        exact = FixedNorm(norm, moments)(features)
        torch.testing.assert_close(FixedNorm(norm, moments)(features.bfloat16()).float(), exact, atol=0.05, rtol=0.01)


class TestTheNetworkIsAsBefore:
    def layers(self, network: nn.Module) -> list[nn.Module]:
        assert not any(module._forward_pre_hooks for module in network.modules())
        return list(network.modules())

    def test_afterwards(self) -> None:
        network = embedding_network(2, 1, 4, filters=(8, 8, 16))
        before = self.layers(network)
        with shared_statistics(network, windows_of(network, torch.rand(1, 1, 16, 16), 1)):
            assert not any(isinstance(module, nn.GroupNorm) for module in network.modules())
        assert all(one is other for one, other in zip(self.layers(network), before, strict=True))

    def test_after_an_error_in_either_pass(self) -> None:
        network = embedding_network(2, 1, 4, filters=(8, 8, 16))
        before = self.layers(network)
        with pytest.raises(RuntimeError), shared_statistics(network, windows_of(network, torch.rand(1, 3, 8, 8), 1)):
            pass
        with (
            pytest.raises(KeyError),
            shared_statistics(network, windows_of(network, torch.rand(1, 1, 16, 16), 1)),
        ):
            raise KeyError
        assert all(one is other for one, other in zip(self.layers(network), before, strict=True))

    def test_without_a_normalization_there_is_nothing_to_see(self) -> None:
        network, image = nn.Sequential(nn.Conv2d(1, 1, 1)), torch.rand(1, 1, 4, 4)
        before = network(image)
        with shared_statistics(network, lambda: pytest.fail("looked at the windows")):
            assert torch.equal(network(image), before)
