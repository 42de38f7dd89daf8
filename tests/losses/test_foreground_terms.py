"""The terms of the foreground: what minimises them, what they ignore, and where their gradients point."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scripts.losses import SpocoLoss
from scripts.losses.foreground_terms import SCALE_WEIGHT, UNLABELED_WEIGHT, foreground_term, keeping_term
from scripts.network.foreground import THRESHOLD


def mask(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)


def logit_of(*probabilities: float) -> Tensor:
    return torch.logit(torch.tensor(probabilities, dtype=torch.float64))


# four voxels: an annotated object, another object like it, and two voxels of background that nobody painted
ANNOTATED, KNOWN, NOTHING = mask(1, 0, 0, 0), mask(1, 1, 1, 1), mask(0, 0, 0, 0)


def loss_of(objects: float, rest: float) -> float:
    """The loss where look-alikes share a probability."""
    return foreground_term(logit_of(objects, objects, rest, rest), ANNOTATED, KNOWN, NOTHING).item()


class TestByHand:
    def test_value(self) -> None:
        # log of the mean probability, minus the mean log probability of what is annotated ...
        variational = math.log(0.5) - math.log(0.8)
        # ... and a weak cross-entropy of annotated against all voxels
        all_voxels = -(2 * math.log(1 - 0.8) + 2 * math.log(1 - 0.2)) / 4
        scale = UNLABELED_WEIGHT * all_voxels - math.log(0.8)
        assert loss_of(0.8, 0.2) == pytest.approx(variational + SCALE_WEIGHT * scale)

    def test_the_right_separation_is_the_minimum(self) -> None:
        steps = [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99]
        best = min((loss_of(objects, rest), objects, rest) for objects in steps for rest in steps)
        assert best[1:] == (0.9, 0.01)  # half of all is foreground: 1 / (1 + UNLABELED_WEIGHT / 2) = 0.94

    def test_descent_finds_the_unannotated_object(self) -> None:
        parameters = torch.zeros(2, requires_grad=True)  # one logit for what looks like an object, one for the rest
        optimizer = torch.optim.Adam([parameters], lr=0.1)
        for _ in range(100):
            optimizer.zero_grad()
            foreground_term(parameters[[0, 0, 1, 1]], ANNOTATED, KNOWN, NOTHING).backward()
            optimizer.step()
        probability = parameters.sigmoid()
        assert probability[0] > 0.8
        assert probability[1] < 0.1

    def test_dense_tissue_is_all_foreground(self) -> None:
        # nothing but look-alikes of the annotated voxel: the loss is least at one high probability everywhere
        settled = 1 / (1 + UNLABELED_WEIGHT)
        shared = logit_of(settled).requires_grad_(True)
        foreground_term(shared.expand(4), ANNOTATED, KNOWN, NOTHING).backward()
        assert shared.grad.item() == pytest.approx(0, abs=1e-12)
        assert settled > THRESHOLD + 0.1
        assert loss_of(settled, settled) < min(loss_of(0.95, 0.95), loss_of(0.5, 0.5), loss_of(0.1, 0.1))

    @pytest.mark.parametrize("start", [-5.0, 5.0, 15.0])
    def test_descent_leaves_a_constant_start(self, start: float) -> None:
        parameters = torch.full((2,), start, requires_grad=True)
        optimizer = torch.optim.Adam([parameters], lr=0.2)
        for _ in range(300):
            optimizer.zero_grad()
            foreground_term(parameters[[0, 0, 1, 1]], ANNOTATED, KNOWN, NOTHING).backward()
            optimizer.step()
        assert parameters[0].sigmoid() > 0.7
        assert parameters[1].sigmoid() < 0.3

    def test_painted_background(self) -> None:
        painted = foreground_term(logit_of(0.8, 0.8, 0.2, 0.2), ANNOTATED, KNOWN, mask(0, 0, 0, 1)).item()
        assert painted == pytest.approx(-math.log(0.8) - math.log(1 - 0.2))  # ordinary cross-entropy

    def test_painted_background_lowers_its_probability(self) -> None:
        logit = torch.zeros(4, requires_grad=True)
        foreground_term(logit, NOTHING, KNOWN, mask(0, 0, 1, 1)).backward()
        assert logit.grad.tolist() == pytest.approx([0, 0, 0.5, 0.5])  # descent goes down there, nowhere else

    def test_much_painted_background_counts_by_its_voxels(self) -> None:
        # an annotated voxel and three of background that look alike: the loss is least at their share, 1 / 4
        shared = logit_of(0.25).requires_grad_(True)
        foreground_term(shared.expand(4), ANNOTATED, KNOWN, mask(0, 1, 1, 1)).backward()
        assert shared.grad.item() == pytest.approx(0, abs=1e-12)

    def test_a_stroke_of_background_counts_as_much_as_all_annotated_voxels(self) -> None:
        shared = logit_of(0.5).requires_grad_(True)
        foreground_term(shared.expand(4), mask(1, 1, 1, 0), KNOWN, mask(0, 0, 0, 1)).backward()
        assert shared.grad.item() == pytest.approx(0, abs=1e-12)

    def test_nothing_annotated_is_zero(self) -> None:
        logit = torch.randn(4, requires_grad=True)
        loss = foreground_term(logit, NOTHING, KNOWN, NOTHING)
        loss.backward()
        assert loss.item() == 0
        assert (logit.grad == 0).all()


class TestProperties:
    def test_ignored_voxels_have_no_gradient(self) -> None:
        logit = torch.randn(4, requires_grad=True)
        foreground_term(logit, ANNOTATED, mask(1, 1, 0, 1), NOTHING).backward()
        assert logit.grad[2] == 0
        assert logit.grad[3] != 0

    def test_gradcheck(self) -> None:
        logit = torch.tensor([0.3, -1.0, 2.0, 0.1], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: foreground_term(x, ANNOTATED, KNOWN, mask(0, 0, 0, 1)), logit)

    @pytest.mark.parametrize("size", [0.0, 1e3, -1e3, 1e6, -1e6])
    def test_extreme_logits_are_finite(self, size: float) -> None:
        for sign in (1, torch.tensor([1, -1, 1, -1])):
            logit = (sign * torch.full((4,), size)).requires_grad_(True)
            loss = foreground_term(logit, ANNOTATED, KNOWN, mask(0, 0, 0, 1))
            loss.backward()
            assert loss.isfinite()
            assert logit.grad.isfinite().all()

    def test_everything_ignored_is_zero(self) -> None:
        assert foreground_term(torch.randn(4), NOTHING, NOTHING, NOTHING) == 0


class TestKeepingTerm:
    def test_by_hand(self) -> None:
        logit = torch.tensor([0.0, 2.0, -5.0])
        first, unlabeled = torch.tensor([0.5, 1.0, 1.0]), torch.tensor([True, True, False])
        expected = (math.log(2) + math.log(1 + math.exp(-2))) / 2
        assert keeping_term(logit, first, unlabeled).item() == pytest.approx(expected)

    def test_it_is_least_where_nothing_has_changed(self) -> None:
        first, everything = torch.tensor([0.1, 0.6, 0.9]), torch.ones(3, dtype=torch.bool)
        logit = torch.logit(first).requires_grad_()
        keeping_term(logit, first, everything).backward()
        assert logit.grad.abs().max() < 1e-6

    def test_nothing_unlabelled_is_nothing_to_keep(self) -> None:
        assert keeping_term(torch.ones(2, 3), torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool)).tolist() == [0, 0]


class TestKeepingInTheLoss:
    STUDENT = torch.zeros(1, 4, 2, 2)
    LABELS = torch.tensor([[[[0, 0], [7, 7]]]])

    def terms(self, first: torch.Tensor | None, weight: float = 1.0) -> dict[str, torch.Tensor]:
        loss = SpocoLoss(first_foreground_weight=weight)
        loss(self.STUDENT, self.STUDENT, self.LABELS, first)
        return loss.terms

    def test_only_unlabelled_voxels_count(self) -> None:
        one = self.terms(torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]]))["first_foreground"]
        other = self.terms(torch.tensor([[[[1.0, 1.0], [1.0, 1.0]]]]))["first_foreground"]
        assert one.item() == other.item() == pytest.approx(math.log(2))

    def test_without_a_first_foreground_or_a_weight_there_is_no_such_term(self) -> None:
        assert "first_foreground" not in self.terms(None)
        assert "first_foreground" not in self.terms(torch.ones(1, 1, 2, 2), weight=0)
