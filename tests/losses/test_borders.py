"""The border term: what it asks of pairs of voxels, which pairs it looks at, and what it keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scripts.clustering.interfaces import DEPTH
from scripts.losses import SpocoLoss
from scripts.losses.borders import PARTED, REACH, border_term

NEAR, FAR = 0.5, 2.0  # delta_var, delta_dist: pairs inside objects may lie 0.5 apart, pairs across a rim 3


def row(*values: float) -> Tensor:
    """Embeddings of one dimension, (1, 1, 1, N), in a 2D image of one row."""
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


def term(embeddings: Tensor, labels: Tensor, ignored: int | None = None, background: int | None = None) -> Tensor:
    """As the loss calls it: (B, E, *spatial), (B, *spatial) -> (B,)."""
    known = torch.ones_like(labels, dtype=torch.bool) if ignored is None else labels != ignored
    annotated = (labels > 0) & known & (labels != (background or 0))
    return border_term(embeddings, labels, annotated, known, NEAR, FAR)


def of_row(labels: list[int], *values: float, **special: int) -> float:
    return term(row(*values), torch.tensor(labels).view(1, 1, -1), **special).item()


def test_the_loss_makes_jumps_as_wide_as_those_that_clustering_looks_for() -> None:
    assert REACH == DEPTH


class TestByHand:
    def test_inside_an_object(self) -> None:
        # the pairs (0, 3) and (1, 4), 2 and 0.4 apart: the first is drawn together, the second is near enough
        assert of_row([7, 7, 7, 7, 7], 0, 0, 5, 2, 0.4) == pytest.approx(((2 - NEAR) ** 2 + 0) / 2)

    def test_across_a_border(self) -> None:
        # the pairs (0, 3) and (1, 4) of two objects, 1 and 3.5 apart: the first is parted, the second is far enough
        assert of_row([7, 7, 7, 8, 8], 0, 0, 0, 1, 3.5) == pytest.approx(((PARTED * FAR - 1) ** 2 + 0) / 2)

    def test_both_kinds_count_the_same(self) -> None:
        # (0, 3) inside; (1, 4), (2, 5), (3, 6) across
        inside, across = (2 - NEAR) ** 2, (PARTED * FAR - 1) ** 2
        assert of_row([7, 7, 7, 7, 8, 8, 8], 0, 2, 2, 2, 3, 3, 3) == pytest.approx(inside + across)

    @pytest.mark.parametrize("around", [0, 9])
    def test_what_lies_around_an_object_is_parted_from_it(self, around: int) -> None:
        # unlabelled or painted as background, as no voxel of the object can lie there
        assert of_row([7, 7, 7, around], 0, 0, 0, 1, background=9) == pytest.approx((PARTED * FAR - 1) ** 2)

    @pytest.mark.parametrize("labels", [[0, 0, 0, 0], [9, 9, 9, 9], [9, 9, 0, 0], [8, 7, 7, 8], [7, 8, 8, 8]])
    def test_pairs_that_say_nothing(self, labels: list[int]) -> None:
        assert of_row(labels, 0, 1, 2, 3, ignored=8, background=9) == 0

    def test_an_image_shorter_than_a_pair(self) -> None:
        assert of_row([7] * REACH, *range(REACH)) == 0

    def test_each_axis_counts(self) -> None:
        labels = torch.tensor([7, 7, 7, 8])
        embeddings = row(0, 0, 0, 1)
        along_rows = term(embeddings, labels.view(1, 1, -1))
        along_columns = term(embeddings.mT, labels.view(1, -1, 1))
        in_depth = term(embeddings.view(1, 1, -1, 1, 1), labels.view(1, -1, 1, 1))
        assert along_rows.item() == along_columns.item() == in_depth.item() == (PARTED * FAR - 1) ** 2


class TestProperties:
    @pytest.fixture
    def batch(self) -> tuple[Tensor, Tensor]:
        random = torch.Generator().manual_seed(0)
        embeddings = torch.randn(3, 4, 6, 7, 8, generator=random, dtype=torch.float64)
        labels = torch.randint(0, 4, (3, 3, 4, 4), generator=random).repeat_interleave(2, 1).repeat_interleave(2, 2)
        return embeddings, labels.repeat_interleave(2, 3)[:, :, :7]

    def test_a_batch_is_its_images(self, batch: tuple[Tensor, Tensor]) -> None:
        alone = [term(embeddings[None], labels[None]) for embeddings, labels in zip(*batch, strict=True)]
        torch.testing.assert_close(term(*batch), torch.cat(alone))
        assert (term(*batch) > 0).all()

    def test_names_of_objects_do_not_matter(self, batch: tuple[Tensor, Tensor]) -> None:
        embeddings, labels = batch
        torch.testing.assert_close(term(embeddings, torch.tensor([0, 70000, 2, 41])[labels]), term(*batch))

    def test_only_distances_matter(self, batch: tuple[Tensor, Tensor]) -> None:
        embeddings, labels = batch
        turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
        turned = torch.einsum("fe,be...->bf...", turn, embeddings) + 100
        torch.testing.assert_close(term(turned, labels), term(*batch))

    def test_gradcheck(self, batch: tuple[Tensor, Tensor]) -> None:
        embeddings, labels = batch
        small = embeddings[:2, :2, :4, :4, :4].clone().requires_grad_(True)
        assert torch.autograd.gradcheck(lambda x: term(x, labels[:2, :4, :4, :4]), small)

    @pytest.mark.parametrize("rows", [1, 4, 9])
    def test_equal_embeddings_have_a_finite_gradient(self, rows: int) -> None:
        embeddings = torch.zeros(1, 2, rows, 8, requires_grad=True)
        labels = torch.tensor([7, 7, 7, 7, 8, 8, 8, 8]).expand(1, rows, 8)
        (3 * term(embeddings, labels)).sum().backward()
        assert embeddings.grad.isfinite().all()

    def test_descent_puts_a_jump_at_the_border(self) -> None:
        torch.manual_seed(0)
        embeddings = torch.randn(1, 2, 1, 12, requires_grad=True)
        labels = torch.tensor([7] * 6 + [0] * 6).view(1, 1, -1)
        optimizer = torch.optim.Adam([embeddings], lr=0.1)
        for _ in range(200):
            optimizer.zero_grad()
            loss = term(embeddings, labels).sum()
            loss.backward()
            optimizer.step()
        assert loss < 1e-3

    def test_no_differences_are_kept_for_the_backward_pass(self) -> None:
        embeddings = torch.randn(1, 16, 24, 24, 24, requires_grad=True)
        labels = torch.randint(0, 3, (1, 24, 24, 24))
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() != embeddings.untyped_storage().data_ptr():
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            term(embeddings, labels)
        assert sum(kept.values()) < 0.25 * embeddings.untyped_storage().nbytes()  # a difference an axis would be 2.6


class TestInTheLoss:
    def test_it_is_added_with_its_weight(self) -> None:
        torch.manual_seed(0)
        student, teacher = torch.randn(2, 2, 4, 8, 8, 8)
        labels = torch.randint(0, 3, (2, 1, 8, 8, 8))
        plain, bordered = SpocoLoss(), SpocoLoss(border_weight=3.0)
        expected_term = term(student[:, 1:], labels[:, 0]).mean()  # the first dimension is the foreground axis
        torch.manual_seed(1)  # anchors are drawn
        expected = plain(student, teacher, labels) + 3 * expected_term
        torch.manual_seed(1)
        torch.testing.assert_close(bordered(student, teacher, labels), expected)
        assert "border" not in plain.terms
        torch.testing.assert_close(bordered.terms["border"], expected_term)
