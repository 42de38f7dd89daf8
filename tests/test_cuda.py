"""What differs on a GPU: half precision and its own kernels. Everything else is tested on the CPU.

With ``SPOCO_TEST_DEVICE=cuda`` the trainings of ``tests/end_to_end`` run there as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from torch import Tensor

from scripts.clustering.confidence import instance_scores
from scripts.clustering.methods import METHODS, cluster_embeddings
from scripts.losses import SpocoLoss, spoco_terms
from scripts.network.dynunet import embedding_network
from scripts.network.inferers import EmbeddingInferer
from scripts.network.positions import add_positions
from scripts.run.determinism import set_determinism
from scripts.synthetic.images import synthetic_nuclei
from scripts.training.best_weights import BestWeightsSaver
from scripts.training.cuda_graphs import recorded
from scripts.training.momentum import MovingAverage, momentum_copy
from scripts.training.steps import TeacherLoss

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
HALF = [torch.float16, torch.bfloat16]


@pytest.fixture
def equal_sums() -> Iterator[None]:
    """As in a training on a GPU; afterwards as it was."""
    set_determinism(0, deterministic=True)
    yield
    torch.use_deterministic_algorithms(False)


def embeddings_and_labels(
    shape: tuple[int, ...] = (2, 8, 24, 24, 24), scatter: float = 0.4, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher (B, E, *spatial) whose objects are mostly apart, and labels of which a half is painted."""
    images, dim, *spatial = shape
    random = torch.Generator().manual_seed(seed)
    labels = torch.stack(
        [torch.from_numpy(synthetic_nuclei(tuple(spatial), seed=seed + n)[1].astype(np.int64)) for n in range(images)]
    )
    centers = 2 * torch.randn(int(labels.max()) + 1, dim, generator=random)
    student = centers[labels].movedim(-1, 1) + scatter * torch.randn(shape, generator=random)
    teacher = student + scatter / 4 * torch.randn(shape, generator=random)
    return student, teacher, torch.where(labels % 2 == 0, labels, 0)[:, None]


class TestTheLoss:
    def test_terms_and_gradients_are_those_of_the_cpu(self) -> None:
        student, teacher, labels = embeddings_and_labels()
        anchors = (labels[0, 0] == 0).nonzero()[::997][:20]
        terms, gradients = {}, {}
        for device in ("cpu", "cuda"):
            leaf = student[0].to(device).requires_grad_(True)
            terms[device] = spoco_terms(leaf, teacher[0].to(device), labels[0, 0].to(device), anchors.to(device))
            gradients[device] = torch.autograd.grad(sum(terms[device].values()), leaf)[0].cpu()
        for name, term in terms["cpu"].items():
            torch.testing.assert_close(terms["cuda"][name].cpu(), term, rtol=1e-4, atol=1e-6)
        scale = gradients["cpu"].abs().max().item()
        torch.testing.assert_close(gradients["cuda"], gradients["cpu"], rtol=1e-3, atol=1e-4 * scale)

    @pytest.mark.parametrize("precision", HALF)
    def test_distances_are_float32_under_autocast(self, precision: torch.dtype) -> None:
        student, teacher, labels = (tensor.cuda() for tensor in embeddings_and_labels())
        loss = SpocoLoss(consistency_weight=0.0, foreground_weight=1.0, border_weight=1.0)  # without random anchors
        expected = float(loss(student, teacher, labels))
        with torch.autocast("cuda", precision):
            assert float(loss(student, teacher, labels)) == pytest.approx(expected, rel=1e-5)
            rounded = float(loss(student.to(precision), teacher.to(precision), labels))
        assert rounded == pytest.approx(expected, rel=0.02)

    @pytest.mark.parametrize("precision", HALF)
    def test_gradients_of_a_network_in_half_precision_are_those_of_float32_but_for_rounding(
        self, precision: torch.dtype
    ) -> None:
        torch.manual_seed(0)
        network = embedding_network(3, 1, 8, [8, 16, 32]).cuda()
        image = torch.rand(1, 1, 24, 24, 24, device="cuda")
        labels = embeddings_and_labels((1, 8, 24, 24, 24))[2].cuda()
        loss = SpocoLoss(consistency_weight=0.0)
        gradients = []
        for enabled in (False, True):
            with torch.autocast("cuda", precision, enabled=enabled):
                embeddings = add_positions(network(image), 0.25)
                value = loss(embeddings, embeddings.detach(), labels)
            network.zero_grad()
            value.backward()
            parameters = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
            gradients.append(torch.cat([gradient.flatten() for gradient in parameters]))
        tolerance = {torch.float16: 0.1, torch.bfloat16: 0.2}[precision]  # 0.0505 measured on an H200
        assert (gradients[1] - gradients[0]).norm() < tolerance * gradients[0].norm()

    def test_equal_embeddings_give_equal_gradients_to_the_bit(self, equal_sums: None) -> None:
        student, teacher, labels = (tensor.cuda() for tensor in embeddings_and_labels((2, 8, 32, 32, 32)))
        loss = SpocoLoss(foreground_weight=1.0, border_weight=1.0)
        gradients = []
        for _ in range(3):
            set_determinism(0, deterministic=True)
            leaf = student.clone().requires_grad_(True)
            gradients.append(torch.autograd.grad(loss(leaf, teacher, labels), leaf)[0])
        assert torch.equal(gradients[0], gradients[1])
        assert torch.equal(gradients[0], gradients[2])


class TestRecordings:
    """A training that repeats recordings is the same as one that starts each operation, to the bit."""

    def train(self, cuda_graphs: bool, amp: bool) -> tuple[list[float], list[Tensor], Tensor, int]:
        """Losses, weights, state of the random numbers and the number of recordings after some steps."""
        set_determinism(0, deterministic=True)
        network = embedding_network(3, 1, 8, [8, 16, 32]).cuda()
        teacher = momentum_copy(network)
        loss = TeacherLoss(
            SpocoLoss(foreground_weight=1.0, border_weight=1.0), teacher, position_scale=0.25, cuda_graphs=cuda_graphs
        )
        trained = recorded(network, cuda_graphs)
        optimizer = torch.optim.AdamW(network.parameters(), fused=True)
        scaler = torch.amp.GradScaler(enabled=amp)
        average = MovingAverage(network, teacher)
        losses = []
        for step, objects in enumerate((1, 3, 60, 0, 3, 60), start=1):
            image = torch.rand(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(step)).cuda()
            cells = (
                torch.arange(64).view(4, 4, 4).repeat_interleave(4, 0).repeat_interleave(4, 1).repeat_interleave(4, 2)
            )
            labels = torch.where(cells < objects, cells + 1, 0).expand(2, 1, 16, 16, 16).cuda()
            trained.train()
            optimizer.zero_grad(set_to_none=step % 2 == 0)
            with torch.autocast("cuda", enabled=amp):
                value = loss(trained(image), {"teacher_image": image + 0.1, "label": labels})
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()
            average(SimpleNamespace(state=SimpleNamespace(iteration=step)))
            losses.append(float(value))
        recordings = len(trained._recordings) + len(loss.recorded_comparison._recordings) if cuda_graphs else 0
        return losses, [*network.parameters(), *teacher.parameters()], torch.cuda.get_rng_state(), recordings

    @pytest.mark.parametrize("amp", [False, True])
    def test_losses_weights_and_random_numbers_are_the_same(
        self, equal_sums: None, amp: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        losses, weights, random, recordings = self.train(cuda_graphs=True, amp=amp)
        expected_losses, expected_weights, expected_random, _ = self.train(cuda_graphs=False, amp=amp)
        assert caplog.messages == []  # nothing failed
        assert recordings == 3  # the network, and up to 16 and up to 64 objects
        assert losses == expected_losses
        assert all(torch.equal(*pair) for pair in zip(weights, expected_weights, strict=True))
        assert torch.equal(random, expected_random)

    def test_a_validation_in_between_is_not_recorded(self) -> None:
        network = embedding_network(3, 1, 8, [8, 16, 32]).cuda()
        trained = recorded(network)
        with torch.no_grad():
            assert not trained(torch.rand(1, 1, 16, 16, 16, device="cuda")).requires_grad
        assert not trained._recordings


class TestClustering:
    @pytest.mark.parametrize("method", METHODS)
    def test_instances_are_those_of_the_cpu(self, method: str) -> None:
        student, teacher, _ = embeddings_and_labels((1, 8, 24, 32, 32), scatter=0.1)
        arguments = {"foreground": np.ones((24, 32, 32), bool), "method": method, "min_size": 20}
        on_cpu = cluster_embeddings(student[0], teacher_embeddings=teacher[0], **arguments)
        on_gpu = cluster_embeddings(student[0].cuda(), teacher_embeddings=teacher[0].cuda(), **arguments)
        assert on_cpu.max() > 1
        assert np.mean(on_gpu == on_cpu) > 0.99

    def test_the_same_embeddings_give_the_same_instances(self) -> None:
        embeddings = embeddings_and_labels((1, 8, 48, 64, 64))[0][0].cuda()
        embeddings += torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(1)).cuda()
        first, second = (cluster_embeddings(embeddings, min_size=1) for _ in range(2))
        np.testing.assert_array_equal(first, second)

    def test_scores_are_those_of_the_cpu_but_for_rounding(self) -> None:
        student = embeddings_and_labels()[0][0]
        instances = cluster_embeddings(student, min_size=1)
        on_gpu = instance_scores(instances, student.cuda())
        assert on_gpu == pytest.approx(instance_scores(instances, student), abs=1e-4)


class TestInference:
    @pytest.mark.parametrize("roi_size", [0, 32])
    def test_embeddings_are_those_of_the_cpu_but_for_rounding(self, roi_size: int) -> None:
        torch.manual_seed(0)
        network = embedding_network(3, 1, 8, [8, 16, 32]).eval()
        image = torch.rand(1, 1, 40, 56, 48)
        inferer = EmbeddingInferer(roi_size, divisor=[4, 4, 4], position_scale=0.25, mode="gaussian")
        with torch.no_grad():
            expected = inferer(image, network)
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # convolutions keep 10 bits with it
                exact = inferer(image.cuda(), network.cuda())
            with torch.autocast("cuda"):
                half = inferer(image.cuda(), network)
        torch.testing.assert_close(exact.cpu(), expected, rtol=1e-3, atol=1e-3)
        assert (half.float().cpu() - expected).norm() < 0.02 * expected.norm()

    def test_what_is_too_large_for_the_gpu_is_put_together_on_the_host(self, caplog: pytest.LogCaptureFixture) -> None:
        """In windows that were halved until they fitted."""
        torch.manual_seed(0)
        network = embedding_network(3, 1, 8, [8, 16, 32]).eval().cuda()
        image = torch.rand(1, 1, 96, 256, 256, device="cuda")
        inferer = EmbeddingInferer(0, divisor=[4, 4, 4], mode="gaussian")
        _, total = torch.cuda.mem_get_info()
        held = torch.cuda.memory_allocated()
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((held + 3 * image.nbytes * 8) / total)
        try:
            with torch.no_grad():
                found = inferer(image, network)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        attempts = len([record for record in caplog.records if "too little memory" in record.message])
        assert attempts > 0
        assert found.device.type == "cpu"
        voxels = image[0, 0].numel() // 2 ** (attempts - 1)  # the second attempt only moves the embeddings
        with torch.no_grad():
            expected = EmbeddingInferer(0, divisor=[4, 4, 4], mode="gaussian", window_voxels=voxels)(image, network)
        assert (found - expected.cpu()).norm() < 1e-3 * expected.norm().cpu()


def test_weights_can_be_read_without_a_gpu(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2).cuda()
    engine = Engine(lambda _, batch: batch)
    engine.state.metrics, engine.state.key_metric_name = {"iou": 0.5}, "iou"
    BestWeightsSaver(str(tmp_path), {"model.pt": network}, {})(engine)
    assert {tensor.device.type for tensor in torch.load(tmp_path / "model.pt").values()} == {"cpu"}
