"""Sums over pairs: equal to the dense computation in value and gradient, whatever the slabs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from scripts import pairwise
from scripts.pairwise import (
    HingeAndKernel,
    KernelsOfTwo,
    PairFunctions,
    Portion,
    blocks,
    pairs_in_reach,
    pairwise_sums,
    squared_distances,
)

E, S, W, C = 3, 4, 7, 5
TWO_SIGMA = 0.8


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (E, S, W), centres (C, E), weights (S, W) of which some are 0."""
    random = torch.Generator().manual_seed(0)
    embeddings = torch.randn(E, S, W, generator=random, dtype=dtype)
    centers = torch.randn(C, E, generator=random, dtype=dtype)
    weights = torch.rand(S, W, generator=random, dtype=dtype)
    return embeddings.requires_grad_(True), centers.requires_grad_(True), weights * (weights > 0.3)


def other_space() -> tuple[Tensor, Tensor]:
    """Centres and embeddings of another network, of another dimension."""
    random = torch.Generator().manual_seed(1)
    return (
        torch.randn(C, 2, generator=random, dtype=torch.float64),
        torch.randn(2, S, W, generator=random, dtype=torch.float64),
    )


def dense_distances(embeddings: Tensor, centers: Tensor) -> Tensor:
    return (embeddings[None] - centers[:, :, None, None]).norm(dim=1)  # (C, S, W)


def dense_hinge(distance: Tensor) -> Tensor:
    return (2 - distance).clamp_min(0) ** 2


def dense_squared_kernel(distance: Tensor) -> Tensor:
    return (-(distance**2) / TWO_SIGMA).exp() ** 2


def dense_kernel_product(distance: Tensor) -> Tensor:
    centers, embeddings = other_space()
    return (-(distance**2) / TWO_SIGMA).exp() * (-(dense_distances(embeddings, centers) ** 2) / TWO_SIGMA).exp()


Function = tuple[PairFunctions, int]  # one of several that are computed together

HINGE = HingeAndKernel(2.0, TWO_SIGMA), 0
KERNEL = HingeAndKernel(2.0, TWO_SIGMA), 1
LEARNED = {
    "hinge": (HINGE, dense_hinge),
    "kernel": (KERNEL, dense_squared_kernel),
    "product": ((KernelsOfTwo(TWO_SIGMA, *other_space()), 0), dense_kernel_product),
    "own_kernel": ((KernelsOfTwo(TWO_SIGMA, *other_space()), 1), dense_squared_kernel),
}


def pairwise_sum(embeddings: Tensor, centers: Tensor, weights: Tensor, function: Function) -> Tensor:
    """(S,) sums of one function."""
    functions, position = function
    return pairwise_sums(embeddings, centers, weights.expand(functions.count, *weights.shape), functions)[position]


every_function = pytest.mark.parametrize(("function", "dense"), LEARNED.values(), ids=LEARNED)


class TestByHand:
    def test_squared_distances(self) -> None:
        centers, embeddings = torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([[3.0, 0.0], [4.0, 1.0]])
        assert squared_distances(centers, embeddings).tolist() == [[25.0, 1.0], [16.0, 10.0]]

    def test_squared_distances_are_never_negative(self) -> None:
        embeddings = 1e3 + torch.rand(E, 24)
        assert (squared_distances(embeddings.T, embeddings) >= 0).all()

    def test_hinge(self) -> None:
        # centres at 0 and 4 on a line, voxels at 1 and 3.5 in one slice, at 0 in the next; margin 2
        embeddings, centers = torch.tensor([[[1.0, 3.5], [0.0, 9.0]]]), torch.tensor([[0.0], [4.0]])
        sums = pairwise_sum(embeddings, centers, torch.ones(2, 2), HINGE)
        assert sums.tolist() == pytest.approx([1**2 + 1.5**2, 2**2])

    def test_hinge_pushes_away_from_the_centre(self) -> None:
        embeddings = torch.tensor([[[1.0, -1.5, 2.5]]], requires_grad=True)
        pairwise_sum(embeddings, torch.zeros(1, 1), torch.ones(1, 3), HINGE).sum().backward()
        assert embeddings.grad.flatten().tolist() == pytest.approx([-2.0, 1.0, 0.0])  # -2 (2 - d), outwards

    def test_squared_kernel(self) -> None:
        sums = pairwise_sum(
            torch.tensor([[[0.0, 1.0]]]), torch.zeros(1, 1), torch.ones(1, 2), (HingeAndKernel(2.0, 2.0), 1)
        )
        assert sums.item() == pytest.approx(1 + torch.tensor(-1.0).exp().item())

    def test_weights_multiply(self) -> None:
        embeddings, weights = torch.tensor([[[1.0, 1.0, 1.0]]]), torch.tensor([[0.5, 2.0, 0.0]])
        assert pairwise_sum(embeddings, torch.zeros(1, 1), weights, HINGE).tolist() == [2.5]

    def test_a_voxel_at_the_centre_has_no_direction(self) -> None:
        embeddings = torch.zeros(2, 1, 1, requires_grad=True)
        pairwise_sum(embeddings, torch.zeros(1, 2), torch.ones(1, 1), HINGE).sum().backward()
        assert embeddings.grad.flatten().tolist() == [0.0, 0.0]

    @every_function
    def test_no_centre_sums_to_zero(self, function: Function, dense: Callable[[Tensor], Tensor]) -> None:
        embeddings, centers, weights = inputs()
        assert pairwise_sum(embeddings, centers[:0], weights, function).tolist() == [0.0] * S


class TestEqualToDense:
    @pytest.mark.parametrize("portion", [Portion(1, 1), Portion(20, 6), Portion(14, 28), Portion(2**18, 1)])
    @every_function
    def test_value_and_gradient(
        self,
        function: Function,
        dense: Callable[[Tensor], Tensor],
        portion: Portion,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setitem(pairwise.PORTIONS, "cpu", portion)
        embeddings, centers, weights = inputs()
        upstream = torch.arange(1.0, S + 1, dtype=torch.float64)  # a different weight on each slice
        sums = pairwise_sum(embeddings, centers, weights, function)
        expected = (dense(dense_distances(embeddings, centers)) * weights).sum((0, 2))
        torch.testing.assert_close(sums, expected)
        found = torch.autograd.grad((sums * upstream).sum(), (embeddings, centers))
        wanted = torch.autograd.grad((expected * upstream).sum(), (embeddings, centers))
        torch.testing.assert_close(found, wanted)

    @every_function
    def test_gradcheck(self, function: Function, dense: Callable[[Tensor], Tensor]) -> None:
        embeddings, centers, weights = inputs()
        assert torch.autograd.gradcheck(lambda e, c: pairwise_sum(e, c, weights, function), (embeddings, centers))

    @every_function
    def test_voxels_of_weight_zero_are_left_out(self, function: Function, dense: Callable[[Tensor], Tensor]) -> None:
        embeddings, centers, weights = inputs()
        left_out = weights == 0
        assert left_out.any()
        sums = pairwise_sum(embeddings, centers, weights, function)
        sums.sum().backward()
        assert (embeddings.grad[:, left_out] == 0).all()
        moved = torch.where(left_out, embeddings.detach() + 5, embeddings.detach())
        torch.testing.assert_close(pairwise_sum(moved, centers, weights, function), sums)

    def test_each_function_has_its_own_weights(self) -> None:
        embeddings, centers, weights = inputs()
        both = torch.stack([weights, 1 - weights])
        sums = pairwise_sums(embeddings, centers, both, HINGE[0])
        apart = [pairwise_sum(embeddings, centers, *one) for one in zip(both, (HINGE, KERNEL), strict=True)]
        torch.testing.assert_close(sums, torch.stack(apart))
        upstream = torch.arange(2.0 * S, dtype=torch.float64).view(2, S)
        torch.testing.assert_close(
            torch.autograd.grad((sums * upstream).sum(), (embeddings, centers)),
            torch.autograd.grad((torch.stack(apart) * upstream).sum(), (embeddings, centers)),
        )

    def test_the_other_space_is_summed_but_not_learned(self) -> None:
        embeddings, centers, weights = inputs()
        other_centers, other_embeddings = other_space()
        functions = KernelsOfTwo(TWO_SIGMA, other_centers, other_embeddings)
        sums = pairwise_sum(embeddings, centers, weights, (functions, 2))
        expected = dense_squared_kernel(dense_distances(other_embeddings, other_centers)) * weights
        torch.testing.assert_close(sums, expected.sum((0, 2)))
        assert all((gradient == 0).all() for gradient in torch.autograd.grad(sums.sum(), (embeddings, centers)))

    def test_images_of_any_dimension(self) -> None:
        embeddings, centers, weights = inputs()
        flat = pairwise_sum(embeddings, centers, weights, HINGE)
        spatial = (S, 1, W, 1)
        torch.testing.assert_close(
            pairwise_sum(embeddings.view(E, *spatial), centers, weights.view(spatial), HINGE), flat
        )

    def test_far_from_the_origin_no_digit_is_lost(self) -> None:
        embeddings, centers, weights = inputs()
        expected = pairwise_sum(embeddings, centers, weights, KERNEL)
        far = [(tensor + 1024).detach().float() for tensor in (embeddings, centers)]
        torch.testing.assert_close(pairwise_sum(*far, weights.float(), KERNEL), expected.float(), rtol=2e-3, atol=0)

    @pytest.mark.parametrize("position", [0, 1])
    def test_far_kernels_are_nothing_but_not_subnormal(self, position: int) -> None:
        embeddings, center = torch.full((1, 1, 1), 1e3, requires_grad=True), torch.zeros(1, 1)
        kernels = KernelsOfTwo(TWO_SIGMA, center, embeddings.detach())
        total = pairwise_sum(embeddings, center, torch.ones(1, 1), (kernels, position)).sum()
        total.backward()
        assert torch.finfo(torch.float32).tiny < total.item() < 1e-20
        assert embeddings.grad.abs().item() < 1e-18

    def test_float32_in_float32_out(self) -> None:
        assert pairwise_sum(*inputs(torch.float32), HINGE).dtype == torch.float32


class TestPortions:
    def test_blocks_are_cubes_that_cover_the_image_once(self) -> None:
        counts = torch.zeros(7, 10, 9)
        for block in blocks((7, 10, 9), voxels=64):
            assert counts[block].shape <= (4, 4, 4)
            counts[block] += 1
        assert (counts == 1).all()

    def test_a_flat_image_is_cut_into_flat_blocks(self) -> None:
        assert next(iter(blocks((1, 100, 100), voxels=64))) == (slice(0, 1), slice(0, 8), slice(0, 8))

    def test_centers_out_of_reach_are_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(pairwise.PORTIONS, "cpu", Portion(pairs=1, voxels=2))
        embeddings = torch.tensor([[[0.0, 1.0, 10.0, 11.0]]])  # blocks around 0.5 and 10.5, of radius 0.5
        centers = torch.tensor([[2.9], [3.1], [8.0]])
        found = [(pairs.block[1].start, pairs.some.item()) for pairs in pairs_in_reach(embeddings, centers, reach=2.0)]
        assert found == [(0, 0), (2, 2)]
