"""Sums over pairs: equal to the dense computation in value and gradient, whatever the boxes and portions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from scripts.geometry.distances import squared_and_close
from scripts.losses import pairwise
from scripts.losses.boxes import Boxes, box_edges, to_boxes
from scripts.losses.pairwise import (
    HingeAndKernel,
    KernelsOfTwo,
    PairFunctions,
    Space,
    fitting_edges,
    pairwise_sums,
    portions_in_reach,
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
PRODUCT = KernelsOfTwo(TWO_SIGMA), 0
OWN_KERNEL = KernelsOfTwo(TWO_SIGMA), 1
OTHER_KERNEL = KernelsOfTwo(TWO_SIGMA), 2
LEARNED = {
    "hinge": (HINGE, dense_hinge),
    "kernel": (KERNEL, dense_squared_kernel),
    "product": (PRODUCT, dense_kernel_product),
    "own_kernel": (OWN_KERNEL, dense_squared_kernel),
}


def boxes_of(embeddings: Tensor) -> Boxes:
    """Small boxes of (B, E, *spatial)."""
    return Boxes.of(embeddings, box_edges(embeddings.shape[2:], pairwise.BOX_VOXELS))


def sums_of_one_image(embeddings: Tensor, centers: Tensor, weights: Tensor, functions: PairFunctions) -> Tensor:
    """(E, *spatial), (C, E), (F, *spatial) -> (F, S)."""
    other = None
    if isinstance(functions, KernelsOfTwo):
        other_centers, other_embeddings = (tensor.to(embeddings.dtype) for tensor in other_space())
        other = boxes_of(other_embeddings[None]), other_centers[None]
    exist = torch.ones(1, len(centers), dtype=torch.bool)
    boxes = boxes_of(embeddings[None])
    return pairwise_sums(embeddings[None], centers[None], exist, weights[None], functions, boxes, other)[0]


def pairwise_sum(embeddings: Tensor, centers: Tensor, weights: Tensor, function: Function) -> Tensor:
    """(S,) sums of one function."""
    functions, position = function
    return sums_of_one_image(embeddings, centers, weights.expand(functions.count, *weights.shape), functions)[position]


every_function = pytest.mark.parametrize(("function", "dense"), LEARNED.values(), ids=LEARNED)


class TestByHand:
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

    @pytest.mark.parametrize("function", [HINGE, KERNEL], ids=["hinge", "kernel"])
    def test_no_centre_sums_to_zero(self, function: Function) -> None:
        embeddings, centers, weights = inputs()
        assert pairwise_sum(embeddings, centers[:0], weights, function).tolist() == [0.0] * S


class TestEqualToDense:
    @pytest.mark.parametrize(("pairs", "box_voxels", "few"), [(1, 1, 32), (20, 6, 32), (20, 6, 1), (2**18, 64, 1)])
    @every_function
    def test_value_and_gradient(
        self,
        function: Function,
        dense: Callable[[Tensor], Tensor],
        pairs: int,
        box_voxels: int,
        few: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setitem(pairwise.PORTIONS, "cpu", pairs)
        monkeypatch.setattr(pairwise, "BOX_VOXELS", box_voxels)
        monkeypatch.setattr(pairwise, "FEW_CENTERS", few)
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
        sums = sums_of_one_image(embeddings, centers, both, HINGE[0])
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
        sums = pairwise_sum(embeddings, centers, weights, OTHER_KERNEL)
        expected = dense_squared_kernel(dense_distances(other_embeddings, other_centers)) * weights
        torch.testing.assert_close(sums, expected.sum((0, 2)))
        assert all((gradient == 0).all() for gradient in torch.autograd.grad(sums.sum(), (embeddings, centers)))

    @pytest.mark.parametrize("spatial", [(S * W,), (S, 1, W), (1, S, W), (S, W, 1)])
    def test_images_of_any_dimension(self, spatial: tuple[int, ...]) -> None:
        embeddings, centers, weights = inputs()
        whole = pairwise_sum(embeddings, centers, weights, HINGE).sum()
        reshaped = pairwise_sum(embeddings.reshape(E, *spatial), centers, weights.reshape(spatial), HINGE)
        assert reshaped.shape == spatial[:1]
        torch.testing.assert_close(reshaped.sum(), whole)

    def test_images_of_a_batch_do_not_meet(self) -> None:
        embeddings, centers, weights = inputs()
        images = torch.stack([embeddings, embeddings.roll(1, 2), embeddings.flip(1)])
        some = torch.stack([centers, centers + 0.5, centers])
        exist = torch.tensor([[True] * C, [True, True, True, False, False], [False] * C])
        maps = weights.expand(3, 2, *weights.shape)
        batch = pairwise_sums(images, some, exist, maps, HINGE[0], boxes_of(images))
        alone = [
            sums_of_one_image(image, center[there], maps[0], HINGE[0])
            for image, center, there in zip(images, some, exist, strict=True)
        ]
        torch.testing.assert_close(batch, torch.stack(alone))
        gradients = [torch.autograd.grad(sums.sum(), (embeddings, centers)) for sums in (batch, torch.stack(alone))]
        torch.testing.assert_close(gradients[0], gradients[1])

    def test_far_from_the_origin_no_digit_is_lost(self) -> None:
        embeddings, centers, weights = inputs()
        expected = pairwise_sum(embeddings, centers, weights, KERNEL)
        far = [(tensor + 1024).detach().float() for tensor in (embeddings, centers)]
        torch.testing.assert_close(pairwise_sum(*far, weights.float(), KERNEL), expected.float(), rtol=2e-3, atol=0)

    @pytest.mark.parametrize("gap", [1e-2, 1e-3, 1e-4])
    def test_nor_close_to_a_centre_in_a_box_of_others_far_away(self, gap: float) -> None:
        # a hinge of margin 2 pushes with 2 (2 - d), whatever d, and the centre is pushed back
        embeddings = torch.full((2, 4, 4), 10.0)
        embeddings[:, 0, 0] = torch.tensor([gap, 0.0])
        embeddings.requires_grad_(True)
        centers = torch.zeros(1, 2, requires_grad=True)
        pairwise_sum(embeddings, centers, torch.ones(4, 4), HINGE).sum().backward()
        expected = torch.tensor([-2 * (2 - gap), 0.0])
        torch.testing.assert_close(embeddings.grad[:, 0, 0], expected, rtol=2e-3, atol=1e-3)
        torch.testing.assert_close(centers.grad[0], -expected, rtol=2e-3, atol=1e-3)
        assert embeddings.grad.flatten(1)[:, 1:].abs().max() < 1e-6

    @pytest.mark.parametrize("position", [0, 1])
    def test_far_kernels_are_nothing_but_not_subnormal(self, position: int) -> None:
        functions, exist = KernelsOfTwo(TWO_SIGMA), torch.ones(1, 1, dtype=torch.bool)
        space = Space(boxes_of(torch.full((1, 1, 1, 1), 1e3)), torch.zeros(1, 1, 1), exist)
        kernels = functions.values(*(space.squared(slice(None), None, functions.largest) for _ in range(2)))
        assert torch.finfo(torch.float32).tiny < kernels[position].item() < 1e-20

    def test_a_centre_that_an_image_does_not_have_is_close_to_nothing(self) -> None:
        space = Space(boxes_of(torch.zeros(1, 1, 1, 4)), torch.zeros(1, 2, 1), torch.tensor([[True, False]]))
        squared, close, _ = squared_and_close(*space.select(slice(None), None), HINGE[0].largest)
        assert (squared[0, 1] == HINGE[0].largest).all()
        assert (close[1] == 0).all()

    def test_float32_in_float32_out(self) -> None:
        assert pairwise_sum(*inputs(torch.float32), HINGE).dtype == torch.float32


class TestEdges:
    def test_small_where_that_spares_pairs_and_large_where_most_centres_are_in_reach(self) -> None:
        z, y, x = torch.meshgrid(*[torch.arange(16.0)] * 3, indexing="ij")
        spread = torch.stack([z, y, x])[None]
        centers = spread.flatten(2)[:, :, ::37].mT
        exist = torch.ones(1, centers.shape[1], dtype=torch.bool)
        assert fitting_edges(spread, centers, exist, 4.0) == [4, 4, 4]
        assert fitting_edges(spread / 16, centers / 16, exist, 4.0) == [8, 8, 8]

    def test_centres_that_an_image_does_not_have_are_in_reach_of_nothing(self) -> None:
        images = torch.stack([torch.zeros(1, 64, 64), torch.full((1, 64, 64), 9.0)])
        exist = torch.tensor([[True, False], [True, False]])
        centers = torch.zeros(2, 2, 1)  # a quarter of all pairs is in reach
        assert fitting_edges(images, centers, exist, 4.0) == [8, 8]
        assert fitting_edges(images[:1], centers[:1, :1], exist[:1, :1], 4.0) == [22, 22]

    def test_without_a_centre_they_are_small(self) -> None:
        nothing = torch.zeros(1, 0, 1), torch.zeros(1, 0, dtype=torch.bool)
        assert fitting_edges(torch.zeros(1, 1, 64, 64), *nothing, 4.0) == [8, 8]

    def test_a_gpu_takes_images_whole_as_long_as_all_pairs_fit_into_a_portion(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pairwise, "PORTIONS", {})
        monkeypatch.setattr(pairwise, "PORTION_ELSEWHERE", 2 * 100 * 64 * 64)
        images, centers, exist = torch.zeros(2, 1, 64, 64), torch.zeros(2, 100, 1), torch.ones(2, 100, dtype=torch.bool)
        assert fitting_edges(images, centers, exist, 4.0) == [64, 64]
        assert fitting_edges(images.repeat(2, 1, 1, 1), centers.repeat(2, 1, 1), exist.repeat(2, 1), 4.0) == [22, 22]

    @pytest.mark.parametrize("edges", [[16, 12, 13], [8, 8, 8], [2, 3, 1]])  # the first: an image whole
    def test_sums_and_gradients_do_not_depend_on_them(self, edges: list[int]) -> None:
        random = torch.Generator().manual_seed(0)
        embeddings, centers = (
            3 * torch.randn(*shape, generator=random, dtype=torch.float64) for shape in ((2, 4, 16, 12, 13), (2, 50, 4))
        )
        embeddings.requires_grad_(True)
        centers.requires_grad_(True)
        exist = torch.rand(2, 50, generator=random) < 0.8
        weights = torch.rand(2, 2, 16, 12, 13, generator=random, dtype=torch.float64)

        def results(edges: list[int]) -> tuple[Tensor, ...]:
            boxes = Boxes.of(embeddings, edges)
            sums = pairwise_sums(embeddings, centers, exist, weights, HINGE[0], boxes)
            return sums, *torch.autograd.grad(sums.square().sum(), (embeddings, centers))

        torch.testing.assert_close(results(edges), results([4, 4, 4]))


class TestReach:
    EMBEDDINGS = torch.cat([torch.linspace(0, 1, 8), torch.linspace(10, 11, 8)])[None, None, None]  # (1, 1, 1, 16)

    @pytest.mark.parametrize("few", [1, 32])
    def test_centers_out_of_reach_are_left_out(self, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pairwise, "BOX_VOXELS", 8)
        monkeypatch.setattr(pairwise, "FEW_CENTERS", few)
        monkeypatch.setitem(pairwise.PORTIONS, "cpu", 1)
        centers = torch.tensor([[[2.9], [3.1], [8.1], [8.2]]])
        space = Space(boxes_of(self.EMBEDDINGS), centers, torch.ones(1, 4, dtype=torch.bool))
        found = {
            int(box): sorted(near.tolist())
            for some, rows in portions_in_reach([space], 2.0)
            for box, near in zip(some, rows, strict=True)
        }
        assert found == {0: [0], 1: [2, 3]}

    def test_bounds_are_never_too_far(self) -> None:
        torch.manual_seed(0)
        images, centers = torch.randn(2, 4, 6, 10, 9), 3 * torch.randn(2, 7, 4)
        space = Space(boxes_of(images), centers, torch.ones(2, 7, dtype=torch.bool))
        voxels = to_boxes(images, space.boxes.edges, "replicate").unflatten(0, (2, -1))  # (B, T / B, E, w)
        distances = (voxels[:, :, None] - centers[:, None, :, :, None]).norm(dim=3).amin(3).flatten(0, 1)
        assert (space.bounds() <= distances + 1e-5).all()


@pytest.mark.parametrize("numbers", [1, 8, 2**14])
def test_rows_are_added_in_their_order_a_few_at_a_time(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise, "ONE_THREAD", numbers)
    places = torch.tensor([0, 1, 0, 0]), torch.tensor([2, 0, 2, 2])
    rows = torch.tensor([[1e8, 1.0], [3.0, 4.0], [1.0, 1.0], [-1e8, 1.0]])
    added = pairwise.add_rows(torch.zeros(2, 3, 2), places, rows)
    assert added[0, 2].tolist() == [0, 3]  # 1e8 + 1 - 1e8 in single precision; in another order it is 1
    assert added[1, 0].tolist() == [3, 4]
    assert added.count_nonzero() == 3
    assert pairwise.add_rows(added.clone(), (places[0][:0], places[1][:0]), rows[:0]).equal(added)
