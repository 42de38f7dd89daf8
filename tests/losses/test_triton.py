"""The kernels for GPUs: equal to what PyTorch's operations give, in value and gradient.

Where there is no GPU, Triton's interpreter runs the same programs on the CPU.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton exists for Linux only")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

from scripts.losses import SpocoLoss, anchors, annotation, borders, spoco, triton_support  # noqa: E402
from scripts.losses.anchors import walk_through  # noqa: E402
from scripts.losses.annotation import Annotation  # noqa: E402
from scripts.losses.borders import border_term  # noqa: E402
from scripts.losses.pairwise import Boxes, HingeAndKernel, KernelsOfTwo, PairFunctions, pairwise_sums  # noqa: E402
from scripts.losses.triton_anchors import walk_on_gpu  # noqa: E402
from scripts.losses.triton_pairs import pairwise_sums_on_gpu  # noqa: E402

B, C, E, OTHER_E = 2, 4, 5, 3
FUNCTIONS = {"hinge_and_kernel": HingeAndKernel(2.0, 0.8), "kernels_of_two": KernelsOfTwo(0.8)}
every_function = pytest.mark.parametrize("functions", FUNCTIONS.values(), ids=FUNCTIONS)
every_shape = pytest.mark.parametrize("shape", [(300,), (30, 20), (5, 9, 11)], ids=str)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The loss uses kernels, wherever its tensors lie."""
    use(monkeypatch, kernels=True)
    return monkeypatch


def use(monkeypatch: pytest.MonkeyPatch, kernels: bool) -> None:
    for module in (anchors, annotation, borders, spoco):
        monkeypatch.setattr(module, "runs_triton", lambda _: kernels)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE)


class TestPairs:
    exist = torch.tensor([[True, True, True, False], [True, False, True, True]], device=DEVICE)

    def both_ways(
        self, functions: PairFunctions, embeddings: Tensor, centers: Tensor, weights: Tensor, exist: Tensor
    ) -> list[tuple[Tensor, ...]]:
        """Sums and gradients of the kernels, then of boxes."""
        shape = list(embeddings.shape[2:])
        other = None
        if isinstance(functions, KernelsOfTwo):
            other = random(B, OTHER_E, *shape, seed=1), random(B, len(exist[0]), OTHER_E, seed=2)
        upstream = random(B, functions.count, shape[0], seed=3)
        results = []
        for kernels in (True, False):
            leaves = [tensor.clone().requires_grad_(True) for tensor in (embeddings, centers)]
            if kernels:
                sums = pairwise_sums_on_gpu(*leaves, exist, weights, functions, other)
            else:
                other_boxes = None if other is None else (Boxes.of(other[0], shape), other[1])
                boxes = Boxes.of(embeddings, shape)
                sums = pairwise_sums(*leaves, exist, weights, functions, boxes, other_boxes)
            results.append((sums.detach(), *torch.autograd.grad((sums * upstream).sum(), leaves)))
        return results

    @every_shape
    @every_function
    def test_equal_to_boxes(self, functions: PairFunctions, shape: tuple[int, ...]) -> None:
        weights = random(B, functions.count, *shape, seed=4).clamp_min(0)  # half of them are 0
        inputs = random(B, E, *shape), random(B, C, E, seed=5)
        for ours, theirs in zip(*self.both_ways(functions, *inputs, weights, self.exist), strict=True):
            torch.testing.assert_close(ours, theirs)

    @every_function
    def test_float32(self, functions: PairFunctions) -> None:
        weights = random(B, functions.count, 30, 20, seed=4).abs()
        inputs = [random(B, E, 30, 20), random(B, C, E, seed=5)]
        exact = self.both_ways(functions, *inputs, weights, self.exist)[1]
        other = None
        if isinstance(functions, KernelsOfTwo):
            other = random(B, OTHER_E, 30, 20, seed=1).float(), random(B, C, OTHER_E, seed=2).float()
        sums = pairwise_sums_on_gpu(*(x.float() for x in inputs), self.exist, weights.float(), functions, other)
        torch.testing.assert_close(sums.double(), exact[0], rtol=1e-5, atol=1e-5)

    @every_function
    def test_one_map_of_weights_for_all_functions(self, functions: PairFunctions) -> None:
        weights = random(B, 1, 30, 20, seed=4).abs().expand(B, functions.count, 30, 20)  # not contiguous
        inputs = random(B, E, 30, 20), random(B, C, E, seed=5)
        for ours, theirs in zip(*self.both_ways(functions, *inputs, weights, self.exist), strict=True):
            torch.testing.assert_close(ours, theirs)

    @every_function
    def test_channels_last(self, functions: PairFunctions) -> None:
        weights = random(B, functions.count, 30, 20, seed=4).abs().contiguous(memory_format=torch.channels_last)
        embeddings = random(B, E, 30, 20).contiguous(memory_format=torch.channels_last)
        results = self.both_ways(functions, embeddings, random(B, C, E, seed=5), weights, self.exist)
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs)

    @every_function
    def test_no_centre(self, functions: PairFunctions) -> None:
        weights = random(B, functions.count, 30, 20, seed=4).abs()
        inputs = random(B, E, 30, 20), random(B, 0, E)
        sums, to_embeddings, to_centers = self.both_ways(functions, *inputs, weights, self.exist[:, :0])[0]
        assert not sums.any()
        assert not to_embeddings.any()
        assert to_centers.shape == (B, 0, E)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_a_voxel_at_the_centre_has_no_direction(self, dtype: torch.dtype) -> None:
        embeddings = torch.zeros(1, E, 1, dtype=dtype, device=DEVICE, requires_grad=True)
        exist, weights = torch.ones(1, 1, device=DEVICE).bool(), torch.ones(1, 2, 1, dtype=dtype, device=DEVICE)
        centers = embeddings.new_zeros(1, 1, E)
        pairwise_sums_on_gpu(embeddings, centers, exist, weights, HingeAndKernel(2.0, 0.8)).sum().backward()
        assert not embeddings.grad.any()

    @every_function
    def test_the_gradient_is_that_of_the_sums(self, functions: PairFunctions) -> None:
        weights = random(1, functions.count, 2, 3, seed=4).abs()
        embeddings, centers = random(1, E, 2, 3).requires_grad_(True), random(1, 3, E, seed=5).requires_grad_(True)
        other = (random(1, E, 2, 3, seed=1), random(1, 3, E, seed=2)) if isinstance(functions, KernelsOfTwo) else None
        exist = torch.ones(1, 3, device=DEVICE).bool()
        assert torch.autograd.gradcheck(
            lambda *leaves: pairwise_sums_on_gpu(*leaves, exist, weights, functions, other), (embeddings, centers)
        )


class TestAnchors:
    @pytest.mark.parametrize("length", [1, 200, 256])
    def test_equal_to_the_walk_on_a_cpu(self, length: int) -> None:
        embeddings = random(B, E, 500)
        walk = torch.stack([torch.randperm(500)[:length] for _ in range(B)]).to(DEVICE)
        uncovered = random(B, length, seed=1) > 0
        ours = walk_on_gpu(embeddings, walk, uncovered, 1.5, 20)
        theirs = walk_through(embeddings, walk, uncovered, 1.5, 20)
        for one, other in zip(ours, theirs, strict=True):
            assert one.tolist() == other.tolist()

    def test_an_empty_pool(self) -> None:
        walk = torch.arange(8, device=DEVICE)[None]
        chosen, left = walk_on_gpu(random(1, E, 8), walk, torch.zeros_like(walk).bool(), 0.5, 3)
        assert chosen.tolist() == [[0, 0, 0]]
        assert left.tolist() == [[0, 0, 0]]


class TestObjects:
    background, ignored = 98, 99

    @pytest.mark.parametrize("shape", [(1, 300), (2, 9000), (3, 7, 11)], ids=str)  # 9000: two parts of an image
    def test_equal_to_what_is_summed_on_a_cpu(self, kernels: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
        choices = torch.tensor([0, 0, 5, 70_000, 7, self.background, self.ignored])
        labels = choices[torch.randint(0, 7, shape, generator=torch.Generator().manual_seed(0))].to(DEVICE)
        labels[0, ..., :] = 0  # nothing is annotated in the first image, or its first row
        results = []
        for with_kernels in (True, False):
            use(kernels, with_kernels)
            embeddings = random(shape[0], E, labels[0].numel()).requires_grad_(True)
            read = Annotation.of(labels, self.background, self.ignored)
            means, distances = read.means_and_distances(embeddings)
            own = read.sum_over_objects(distances.square().neg().exp())
            total = own.sum() + ((means**3).sum(2) * read.exist).sum()
            masks = read.known, read.annotated, read.background, read.unlabeled
            by_size = own[read.exist].sort().values, means[read.exist].sum(1).sort().values  # numbers may differ
            results.append((*masks, read.objects, total, *by_size, torch.autograd.grad(total, embeddings)[0]))
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs)

    def test_images_with_other_objects_share_their_room(self, kernels: pytest.MonkeyPatch) -> None:
        labels = torch.stack([torch.arange(60) % 20, 100 + torch.arange(60) % 30]).to(DEVICE)
        embeddings = random(2, E, 60)
        read = Annotation.of(labels, None, 105)
        assert read.room == 32  # not the 50 ids of both
        assert read.objects.tolist() == [19, 29]
        means, _ = read.means_and_distances(embeddings)
        for image, voxel in ((0, 7), (1, 7), (1, 29)):
            expected = embeddings[image][:, labels[image] == labels[image, voxel]].mean(1)
            torch.testing.assert_close(means[image, read.numbers[image, voxel]], expected)

    def test_no_object(self, kernels: pytest.MonkeyPatch) -> None:
        embeddings = random(2, E, 40).requires_grad_(True)
        read = Annotation.of(torch.zeros(2, 40, dtype=torch.long, device=DEVICE), None, None)
        means, distances = read.means_and_distances(embeddings)
        assert not means.any()
        assert not torch.autograd.grad(read.sum_over_objects(distances).sum(), embeddings)[0].any()

    def test_a_voxel_at_its_mean_has_no_direction(self, kernels: pytest.MonkeyPatch) -> None:
        embeddings = torch.ones(1, E, 1, device=DEVICE, requires_grad=True)
        read = Annotation.of(torch.ones(1, 1, dtype=torch.long, device=DEVICE), None, None)
        read.means_and_distances(embeddings)[1].sum().backward()
        assert not embeddings.grad.any()


class TestBorders:
    @pytest.mark.parametrize("shape", [(40,), (20, 20), (2, 9, 11), (9, 8, 7)], ids=str)
    def test_equal_to_the_term_on_a_cpu(self, kernels: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
        labels = torch.randint(0, 4, (B, *shape), generator=torch.Generator().manual_seed(0)).to(DEVICE)
        annotated, known = labels > 1, random(B, *shape, seed=1) > -1
        results = []
        for with_kernels in (True, False):
            use(kernels, with_kernels)
            embeddings = random(B, E + 1, *shape).requires_grad_(True)
            term = border_term(embeddings[:, 1:], labels, annotated, known, 0.5, 2.0)
            results.append((term.detach(), *torch.autograd.grad((term * random(B).abs()).sum(), embeddings)))
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs)

    def test_nothing_annotated(self, kernels: pytest.MonkeyPatch) -> None:
        nothing = torch.zeros(1, 9, 9, dtype=torch.long, device=DEVICE)
        embeddings = random(1, E, 9, 9).requires_grad_(True)
        term = border_term(embeddings, nothing, nothing > 0, nothing == 0, 0.5, 2.0)
        assert term.tolist() == [0]
        assert not torch.autograd.grad(term.sum(), embeddings)[0].any()


class TestTheLoss:
    @pytest.mark.parametrize("shape", [(24, 20), (6, 12, 10)], ids=str)
    def test_equal_to_the_loss_without_kernels(self, kernels: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
        labels = torch.zeros(B, 1, *shape, dtype=torch.long, device=DEVICE)
        labels[..., :6, :5], labels[..., :6, 5:10], labels[0, ..., 6:] = 7, 70_000, 3
        loss = SpocoLoss(foreground_weight=1.0, border_weight=3.0)
        results = []
        for with_kernels in (True, False):
            use(kernels, with_kernels)
            torch.manual_seed(0)  # draws anchors
            student = random(B, E, *shape).requires_grad_(True)
            value = loss(student, student.detach() + 0.1 * random(B, E, *shape, seed=1), labels)
            results.append((loss.terms, torch.autograd.grad(value, student)[0]))
        (terms, gradient), (expected_terms, expected_gradient) = results
        assert expected_terms["consistency"] > 0
        torch.testing.assert_close(terms, expected_terms)
        torch.testing.assert_close(gradient, expected_gradient)


class TestSupport:
    def test_a_cpu_runs_no_kernels(self) -> None:
        assert not triton_support.runs_triton(torch.zeros(1))

    def test_all_of_them_are_tried(self, caplog: pytest.LogCaptureFixture) -> None:
        assert triton_support.kernels_work.__wrapped__(torch.device(DEVICE))
        assert not caplog.messages

    def test_where_they_fail_the_loss_goes_on_without_them(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("Failed to find C compiler")

        monkeypatch.setattr("scripts.losses.triton_pairs.pairwise_sums_on_gpu", fail)
        device = torch.device(DEVICE)
        assert not triton_support.kernels_work.__wrapped__(device)
        assert caplog.messages == [
            f"{device}: Triton does not work here, so the loss takes longer: Failed to find C compiler"
        ]
