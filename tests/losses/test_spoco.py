"""The SPOCO loss, specified by terms computed by hand, by the authors' values, and by what must never be."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch import Tensor

from scripts.losses import spoco
from scripts.losses.spoco import TERMS, SpocoLoss, spoco_terms

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
CASES = ["sparse_3d", "one_object_3d", "sparse_2d", "dense_3d"]
BACKGROUND, IGNORE = 90_000, 255


def soft(distance: float) -> float:
    """The soft mask with the default settings: 1/2 at delta_var = 1/2, so 2^-4 at 1."""
    return 2.0 ** (-4 * distance**2)


def on_a_line(*rows: list[float]) -> Tensor:
    """Embeddings (x, 0) of a 2-D image."""
    x = torch.tensor(rows)
    return torch.stack([x, torch.zeros_like(x)])


def at_angles(*degrees: float) -> Tensor:
    """Embeddings on the unit circle, one row of pixels."""
    phi = torch.tensor([degrees]).deg2rad()
    return torch.stack([phi.cos(), phi.sin()])


def terms_of(embeddings: Tensor, labels: list[list[int]], **options: Any) -> dict[str, float]:
    """Terms of an image whose teacher sees what the student sees."""
    terms = spoco_terms(embeddings, embeddings, torch.tensor(labels), **options)
    return {name: term.item() for name, term in terms.items()}


def random_case(seed: int = 0, spatial: tuple[int, ...] = (4, 5, 6), dim: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher that differ a little, and labels 0..3."""
    random = torch.Generator().manual_seed(seed)
    student = torch.randn(dim, *spatial, generator=random)
    teacher = student + 0.3 * torch.randn(dim, *spatial, generator=random)
    return student, teacher, torch.randint(0, 4, spatial, generator=random)


def some_anchors(labels: Tensor, count: int = 4) -> Tensor:
    return (labels == 0).nonzero()[::3][:count]


def gradients(student: Tensor, term: Callable[[Tensor], Tensor]) -> Tensor:
    leaf = student.detach().clone().requires_grad_(True)
    value = term(leaf)
    if value.requires_grad:
        value.backward()
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


class TestByHand:
    # object 1 at 0 and 2, so with its mean at 1; object 2 at 4; one unlabelled voxel at 2
    LINE = on_a_line([0.0, 2.0, 4.0, 4.0, 2.0])
    LABELS = [[1, 1, 2, 2, 0]]

    def test_variance(self) -> None:
        # both voxels of object 1 are 1 from their mean, 0.5 beyond delta_var; those of object 2 are at theirs
        assert terms_of(self.LINE, self.LABELS)["variance"] == pytest.approx((0.5**2 + 0) / 2)

    def test_variance_counts_objects_not_voxels(self) -> None:
        embeddings = on_a_line([0.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0])
        assert terms_of(embeddings, [[1, 1, 2, 2, 2, 2, 2, 2]])["variance"] == pytest.approx(0.5**2 / 2)

    def test_variance_within_delta_var_is_zero(self) -> None:
        assert terms_of(on_a_line([0.0, 1.0]), [[1, 1]])["variance"] == 0

    def test_distance(self) -> None:
        # the means are 3 apart, 4 are wanted
        assert terms_of(self.LINE, self.LABELS)["distance"] == pytest.approx(1)

    def test_distance_of_three_objects_is_a_mean_over_pairs(self) -> None:
        terms = terms_of(on_a_line([0.0, 3.0, 5.0]), [[1, 2, 3]])
        assert terms["distance"] == pytest.approx((1**2 + 2**2 + 0) / 3)

    def test_distance_at_a_right_angle(self) -> None:
        # means halfway along 0 and 90 degrees: cos 60 = 0.5
        terms = terms_of(at_angles(-60, 60, 30, 150), [[1, 1, 2, 2]])
        assert terms["distance"] == pytest.approx((4 - 0.5 * math.sqrt(2)) ** 2, rel=1e-5)
        assert terms["regularizer"] == pytest.approx(0.5, rel=1e-5)
        assert terms["variance"] == pytest.approx((math.sin(math.radians(60)) - 0.5) ** 2, rel=1e-5)

    def test_regularizer_holds_the_unlabeled_mean(self) -> None:
        assert terms_of(self.LINE, self.LABELS)["regularizer"] == pytest.approx((1 + 4 + 2) / 3)

    def test_regularizer_without_unlabeled_voxels(self) -> None:
        assert terms_of(self.LINE, [[1, 1, 2, 2, 2]])["regularizer"] == pytest.approx((1 + 10 / 3) / 2)

    def test_unlabeled_push(self) -> None:
        # 1 from object 1, where 2 are wanted, and 2 from object 2
        assert terms_of(self.LINE, self.LABELS)["unlabeled_push"] == pytest.approx((1**2 + 0) / 2)

    def test_unlabeled_push_is_a_mean_over_voxels(self) -> None:
        terms = terms_of(on_a_line([0.0, 0.5, 1.0, 7.0]), [[1, 0, 0, 0]])
        assert terms["unlabeled_push"] == pytest.approx((1.5**2 + 1**2 + 0) / 3)

    def test_instance(self) -> None:
        soft_masks = [[soft(abs(x - mean)) for x in (0, 2, 4, 4, 2)] for mean in (1, 4)]
        overlap = sum(soft_masks[0][:2]) + sum(soft_masks[1][2:4])  # 2 / 16 + 2
        areas = sum(p * p for mask in soft_masks for p in mask) + 4
        assert terms_of(self.LINE, self.LABELS)["instance"] == pytest.approx(1 - 2 * overlap / areas)

    def test_instance_of_a_perfect_embedding_is_zero(self) -> None:
        assert terms_of(on_a_line([0.0, 0.0, 9.0]), [[1, 1, 0]])["instance"] == pytest.approx(0, abs=1e-6)

    def test_consistency_of_equal_networks_is_zero(self) -> None:
        assert terms_of(self.LINE, self.LABELS)["consistency"] == pytest.approx(0, abs=1e-6)

    def test_consistency_with_a_teacher_that_sees_one_object(self) -> None:
        # around the unlabelled voxel the student selects two of five, the teacher all five
        teacher = torch.zeros_like(self.LINE)
        student = [soft(2), 1, soft(2), soft(2), 1]
        expected = 1 - 2 * sum(student) / (sum(p * p for p in student) + 5)
        terms = spoco_terms(self.LINE, teacher, torch.tensor(self.LABELS), torch.tensor([[0, 4]]))
        assert terms["consistency"].item() == pytest.approx(expected)

    def test_consistency_is_a_mean_over_slices_of_the_first_axis(self) -> None:
        # first slice: both select both voxels; second: the student selects both voxels, the teacher one
        student, teacher = on_a_line([0.0, 0.0], [0.0, 0.0]), on_a_line([0.0, 0.0], [0.0, 9.0])
        terms = spoco_terms(student, teacher, torch.zeros(2, 2, dtype=torch.int), torch.tensor([[0, 0]]))
        assert terms["consistency"].item() == pytest.approx((0 + (1 - 2 * 1 / (2 + 1))) / 2)

    def test_consistency_of_equal_networks_is_zero_in_slices_that_no_anchor_reaches(self) -> None:
        """Tails of the kernels, of which 1 - Dice would be anything, and its slope enormous."""
        embeddings = on_a_line([0.0, 0.0], [1.7, 1.8], [9.0, 9.0])
        student, labels, anchors = embeddings.requires_grad_(), torch.zeros(3, 2).int(), torch.tensor([[0, 0]])
        term = spoco_terms(student, embeddings.detach(), labels, anchors)["consistency"]
        term.backward()
        assert term == 0
        assert student.grad.abs().max() < 1e-6

    def test_consistency_with_a_teacher_that_is_no_number_is_none(self) -> None:
        """Or a training of which the teacher is ruined would look perfect."""
        teacher = on_a_line([0.0, 0.0], [math.nan, 1.8])
        term = spoco_terms(on_a_line([0.0, 0.0], [1.7, 1.8]), teacher, torch.zeros(2, 2).int(), torch.tensor([[0, 0]]))
        assert term["consistency"].isnan()

    def test_consistency_sums_over_anchors_before_it_divides(self) -> None:
        student, teacher = on_a_line([0.0, 0.0, 9.0]), on_a_line([0.0, 5.0, 9.0])
        terms = spoco_terms(student, teacher, torch.zeros(1, 3, dtype=torch.int), torch.tensor([[0, 0], [0, 2]]))
        assert terms["consistency"].item() == pytest.approx(1 - 2 * (1 + 1) / ((2 + 1) + (1 + 1)))

    def test_settings_move_the_hinges(self) -> None:
        terms = terms_of(self.LINE, self.LABELS, delta_var=0.25, delta_dist=3.0, kernel_threshold=0.25)
        assert terms["variance"] == pytest.approx(0.75**2 / 2)
        assert terms["distance"] == pytest.approx((2 * 3 - 3) ** 2)
        assert terms["unlabeled_push"] == pytest.approx(((3 - 1) ** 2 + (3 - 2) ** 2) / 2)

    def test_kernel_threshold_is_the_mask_at_delta_var(self) -> None:
        # two voxels 0.25 = delta_var from their mean: overlap 2 p, areas 2 p^2 and 2
        terms = terms_of(on_a_line([0.0, 0.5]), [[1, 1]], delta_var=0.25, kernel_threshold=0.8)
        assert terms["instance"] == pytest.approx(1 - 2 * (2 * 0.8) / (2 * 0.8**2 + 2))


class TestLabels:
    @pytest.mark.parametrize("ids", [(3, 1, 2), (70_000, 5, 2**31 - 1), (65_536, 131_072, 1)])
    def test_ids_are_only_names(self, ids: tuple[int, int, int]) -> None:
        student, teacher, labels = random_case()
        anchors = some_anchors(labels)
        renamed = torch.tensor([0, *ids])[labels]
        expected = spoco_terms(student, teacher, labels, anchors)
        for name, term in spoco_terms(student, teacher, renamed, anchors).items():
            torch.testing.assert_close(term, expected[name], msg=name)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint16])
    def test_any_integer_type(self, dtype: torch.dtype) -> None:
        student, teacher, labels = random_case()
        anchors = some_anchors(labels)
        expected = spoco_terms(student, teacher, labels, anchors)
        assert spoco_terms(student, teacher, labels.to(dtype), anchors) == expected

    def test_background_pushes_but_is_no_object(self) -> None:
        embeddings = on_a_line([0.0, 5.0, 1.0])
        painted = terms_of(embeddings, [[1, 2, 9]], background_label=9)
        assert painted["unlabeled_push"] == pytest.approx((1**2 + 0) / 2)
        for name in ("variance", "distance", "instance"):
            assert painted[name] == pytest.approx(terms_of(embeddings, [[1, 2, 0]])[name]), name
        assert painted["distance"] == 0
        assert painted["regularizer"] == pytest.approx((0 + 5) / 2)
        assert painted["consistency"] == 0

    def test_zero_may_be_painted_background(self) -> None:
        assert terms_of(on_a_line([0.0, 1.0]), [[1, 0]], background_label=0)["unlabeled_push"] == 1

    @pytest.mark.parametrize("name", [*TERMS, "foreground"])
    def test_ignored_voxels_have_no_gradient(self, name: str) -> None:
        student, teacher, labels = random_case()
        labels[:, 1:3] = IGNORE
        labels[:, 3, :2] = BACKGROUND
        weights = {f"{other}_weight": float(other == name) for other in (*TERMS, "foreground")}
        loss = SpocoLoss(ignore_label=IGNORE, background_label=BACKGROUND, **weights)
        gradient = gradients(student[None], lambda leaf: loss(leaf, teacher[None], labels[None, None]))
        assert (gradient[0, :, labels == IGNORE] == 0).all()
        assert gradient.abs().max() > 0

    def test_what_is_ignored_changes_nothing(self) -> None:
        student, teacher, labels = random_case()
        labels[0] = IGNORE
        anchors = some_anchors(labels)
        expected = spoco_terms(student, teacher, labels, anchors, ignore_label=IGNORE)
        student[:, 0], teacher[:, 0] = 17.0, -5.0
        for name, term in spoco_terms(student, teacher, labels, anchors, ignore_label=IGNORE).items():
            torch.testing.assert_close(term, expected[name], msg=name)

    def test_a_slice_that_is_ignored_is_no_slice(self) -> None:
        student, teacher, labels = random_case()
        labels[0] = IGNORE
        anchors = some_anchors(labels)
        terms = spoco_terms(student, teacher, labels, anchors, ignore_label=IGNORE)
        without = spoco_terms(student[:, 1:], teacher[:, 1:], labels[1:], anchors - torch.tensor([1, 0, 0]))
        torch.testing.assert_close(terms, without)

    def test_where_all_is_ignored_there_is_nothing_to_agree_on(self) -> None:
        student, teacher, labels = random_case()
        anchors = some_anchors(labels)
        terms = spoco_terms(student, teacher, torch.full_like(labels, IGNORE), anchors, ignore_label=IGNORE)
        assert all(term == 0 for term in terms.values())


class TestProperties:
    @pytest.mark.parametrize("name", TERMS)
    @pytest.mark.parametrize("spatial", [(3, 4), (2, 3, 3)])
    def test_gradients_are_exact(self, name: str, spatial: tuple[int, ...]) -> None:
        student, teacher, labels = random_case(3, spatial)
        teacher, anchors = teacher.double(), some_anchors(labels)
        inputs = student.double().requires_grad_(True)
        assert torch.autograd.gradcheck(lambda x: spoco_terms(x, teacher, labels, anchors)[name], inputs)

    def test_no_gradient_reaches_the_teacher(self) -> None:
        student, teacher, labels = random_case()
        teacher.requires_grad_(True)
        sum(spoco_terms(student.requires_grad_(True), teacher, labels).values()).backward()
        assert teacher.grad is None

    def test_a_batch_is_the_mean_of_its_images(self) -> None:
        images = [random_case(seed) for seed in range(3)]
        student, teacher, labels = (torch.stack(parts) for parts in zip(*images, strict=True))
        loss = SpocoLoss(foreground_weight=1.0)
        torch.manual_seed(0)  # the anchors are drawn image by image
        together = loss(student, teacher, labels[:, None])
        torch.manual_seed(0)
        alone = [loss(s[None], t[None], lab[None, None]) for s, t, lab in images]
        torch.testing.assert_close(together, torch.stack(alone).mean())

    def test_embeddings_that_lie_far_apart_meet_no_object_of_another_image(self) -> None:
        """An image with fewer objects than another one of the batch has centres that do not exist."""
        student = torch.zeros(2, 2, 8, 8, dtype=torch.float64)
        student[0, :, 0] = 2e4
        labels = torch.zeros(2, 1, 8, 8, dtype=torch.long)
        labels[0, 0, 5] = labels[1, 0, 0] = 1
        labels[1, 0, 3], labels[1, 0, 6] = 2, 3
        loss, push = SpocoLoss(consistency_weight=0), []
        for some in (slice(None), slice(1), slice(1, 2)):
            loss(student[some], student[some], labels[some])
            push.append(loss.terms["unlabeled_push"])
        torch.testing.assert_close(push[0], (push[1] + push[2]) / 2)

    def test_metadata_of_monai_makes_no_difference(self) -> None:
        student, teacher, labels = (torch.stack([part, part]) for part in random_case())
        batch = student, teacher, labels[:, None]
        with_metadata = [MetaTensor(part, meta={"filename_or_obj": "volume.tif"}) for part in batch]
        torch.manual_seed(0)
        expected = SpocoLoss(foreground_weight=1.0)(*batch)
        torch.manual_seed(0)
        found = SpocoLoss(foreground_weight=1.0)(*with_metadata)
        assert type(found) is Tensor
        assert found == expected

    def test_the_loss_is_the_weighted_sum_of_its_terms(self) -> None:
        student, teacher, labels = (part[None] for part in random_case())
        weights = {f"{name}_weight": factor for factor, name in enumerate((*TERMS, "foreground"), start=1)}
        loss = SpocoLoss(**weights)
        total = loss(student, teacher, labels[None])
        assert list(loss.terms) == [*TERMS, "foreground"]
        assert not any(term.requires_grad for term in loss.terms.values())
        expected = sum(weights[f"{name}_weight"] * term for name, term in loss.terms.items())
        torch.testing.assert_close(total, expected)

    def test_the_defaults_are_the_papers(self) -> None:
        student, teacher, labels = random_case()
        torch.manual_seed(0)
        total = SpocoLoss()(student[None], teacher[None], labels[None, None])
        torch.manual_seed(0)
        terms = spoco_terms(student, teacher, labels)
        assert tuple(terms) == TERMS
        torch.testing.assert_close(total, sum(terms.values()) - 0.999 * terms["regularizer"])

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_comes_out_as_float32(self, dtype: torch.dtype) -> None:
        student, teacher, labels = random_case()
        anchors = some_anchors(labels)
        expected = spoco_terms(student, teacher, labels, anchors)
        rounded = spoco_terms(student.to(dtype), teacher.to(dtype), labels, anchors)
        for name, term in rounded.items():
            assert term.dtype == torch.float32
            torch.testing.assert_close(term, expected[name], rtol=2e-2, atol=1e-3, msg=name)

    def test_autocast_does_not_touch_it(self) -> None:
        student, teacher, labels = random_case()
        loss = SpocoLoss()
        torch.manual_seed(0)
        expected = loss(student[None], teacher[None], labels[None, None])
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            assert loss(student[None], teacher[None], labels[None, None]) == expected

    def test_nor_the_gradient(self) -> None:
        student, teacher, labels = random_case()
        loss = SpocoLoss(foreground_weight=1.0, border_weight=3.0)

        def value(leaf: Tensor) -> Tensor:
            torch.manual_seed(0)
            return loss(leaf, teacher[None], labels[None, None])

        expected = gradients(student[None], value)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(gradients(student[None], value), expected)

    def test_two_precisions_become_one(self) -> None:
        student, teacher, labels = random_case()
        anchors = some_anchors(labels)
        expected = spoco_terms(student.double(), teacher.double(), labels, anchors)
        assert spoco_terms(student.double(), teacher, labels, anchors) == expected
        assert spoco_terms(student, teacher.double(), labels, anchors) == expected

    def test_nor_does_it_touch_the_terms(self) -> None:
        student, teacher, labels = random_case()
        expected = spoco_terms(student, teacher, labels, some_anchors(labels))
        with torch.autocast("cpu", torch.bfloat16):
            assert spoco_terms(student, teacher, labels, some_anchors(labels)) == expected

    def test_descending_the_loss_separates_the_objects(self) -> None:
        labels = torch.tensor([[1, 1, 0, 2, 2, 0]])
        torch.manual_seed(0)
        student = (0.1 * torch.randn(1, 2, 1, 6)).requires_grad_(True)
        loss, optimizer = SpocoLoss(), torch.optim.Adam([student], lr=0.1)
        for _ in range(120):
            optimizer.zero_grad()
            loss(student, student.detach(), labels[None, None]).backward()
            optimizer.step()
        assert max(loss.terms[name] for name in TERMS if name != "regularizer") < 0.02


def degenerate_cases() -> dict[str, tuple[Tensor, Tensor, dict[str, int]]]:
    """Name -> student, labels, options; 3-D embeddings of 3 x 4 x 5 voxels."""
    student, _, labels = random_case(1, (3, 4, 5))
    nothing = torch.zeros_like(labels)
    one_voxel_each = nothing.clone()
    one_voxel_each[0, 0, :3] = torch.tensor([4, 5, 6])
    mirrored = torch.cat([student, student], dim=1)
    halves = torch.cat([torch.ones_like(labels), torch.full_like(labels, 2)])
    return {
        "no object": (student, nothing, {}),
        "one object": (student, (labels == 2).long(), {}),
        "only one object": (student, nothing + 1, {}),
        "only objects": (student, labels + 1, {}),
        "one-voxel objects": (student, one_voxel_each, {}),
        "only one-voxel objects": (student, torch.arange(1, 61).view(3, 4, 5), {}),
        "everything ignored": (student, nothing + IGNORE, {"ignore_label": IGNORE}),
        "only background": (student, nothing + BACKGROUND, {"background_label": BACKGROUND}),
        "only background, called 0": (student, nothing, {"background_label": 0}),
        "an object and background": (student, (labels == 2) + 8, {"background_label": 8}),
        "one unlabelled voxel": (student, (torch.arange(60).view(3, 4, 5) > 0).long(), {}),
        "constant embeddings": (torch.full_like(student, 0.7), labels, {}),
        "zero embeddings": (torch.zeros_like(student), labels, {}),
        "huge embeddings": (1e3 * student, labels, {}),
        "huge and constant": (torch.full_like(student, 1e3), labels, {}),
        "identical means": (mirrored, halves, {}),
        "one voxel": (student[:, :1, :1, :1], labels[:1, :1, :1], {}),
    }


def assert_finite(student: Tensor, teacher: Tensor, labels: Tensor, options: dict[str, int]) -> None:
    """Every term of a batch is finite, not negative beyond rounding, and the loss has a finite gradient."""
    largest = max(embeddings.float().square().sum(1).max().item() for embeddings in (student, teacher))
    rounding = 1e-4 + 1e-5 * largest
    loss = SpocoLoss(foreground_weight=1.0, border_weight=3.0, **options)
    gradient = gradients(student, lambda leaf: loss(leaf, teacher, labels[:, None]))
    assert gradient.isfinite().all()
    for name, term in loss.terms.items():
        assert term.isfinite(), name
        assert term > -rounding or name == "foreground", name
        assert term < 1 + rounding or name not in ("instance", "consistency"), name


class TestNeverNan:
    @pytest.mark.parametrize("name", degenerate_cases())
    def test_degenerate_patches(self, name: str) -> None:
        student, labels, options = degenerate_cases()[name]
        student, labels = student[None], labels[None]
        assert_finite(student, student.roll(1, 2), labels, options)  # a teacher that disagrees
        assert_finite(student, student, labels, options)
        assert_finite(student[:, :, 0], student[:, :, 0].clone(), labels[:, 0], options)  # the same in 2D

    @pytest.mark.parametrize("name", ["everything ignored", "only background"])
    def test_nothing_to_measure_is_zero(self, name: str) -> None:
        student, labels, options = degenerate_cases()[name]
        terms = spoco_terms(student, student.roll(1, 1), labels, **options)
        assert {name: term.item() for name, term in terms.items()} == dict.fromkeys(TERMS, 0.0)

    def test_so_many_objects_that_their_pairs_are_taken_in_portions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        student, teacher, _ = random_case()
        labels = torch.arange(student[0].numel()).view(student.shape[1:]) % 50  # 49 objects, near one another
        near = 0.1 * student

        def distance(leaf: Tensor) -> Tensor:
            return spoco_terms(leaf, teacher, labels)["distance"]

        expected, gradient = distance(near), gradients(near, distance)
        monkeypatch.setattr(spoco, "PAIRS_AT_ONCE", 200)
        torch.testing.assert_close(distance(near), expected)
        torch.testing.assert_close(gradients(near, distance), gradient)
        assert expected > 0

    def test_one_spatial_axis(self) -> None:
        student, teacher, labels = (values.flatten(values.dim() - 3) for values in random_case())
        terms = spoco_terms(student, teacher, labels)
        flat = spoco_terms(student[..., None], teacher[..., None], labels[..., None])
        for name in set(TERMS) - {"consistency"}:  # whose anchors are random
            torch.testing.assert_close(terms[name], flat[name], msg=name)
        assert math.isfinite(SpocoLoss()(student[None], teacher[None], labels[None, None]))

    def test_a_patch_without_objects_still_trains(self) -> None:
        student, labels, _ = degenerate_cases()["no object"]
        loss = SpocoLoss()
        gradient = gradients(student[None], lambda leaf: loss(leaf, student[None].roll(1, 2), labels[None, None]))
        assert loss.terms["consistency"] > 0
        assert gradient.abs().max() > 0

    @given(st.data())
    def test_hostile_patches(self, data: st.DataObject) -> None:
        images = data.draw(st.integers(1, 3), label="B")
        spatial = data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=3), label="spatial")
        ids = data.draw(st.lists(st.sampled_from([0, 1, 2, 70_000, BACKGROUND, IGNORE]), min_size=1), label="ids")
        dim = data.draw(st.integers(1, 4), label="E")
        scale = data.draw(st.sampled_from([0.0, 1e-6, 1e-3, 1.0, 30.0, 1e3]), label="scale")
        offset = data.draw(st.floats(-1e3, 1e3, width=32), label="offset")
        levels = data.draw(st.integers(1, 5), label="distinct values")
        random = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
        precision = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float64]), label="precision")
        values = scale * random.integers(-levels, levels + 1, (2, images, dim, *spatial)) / levels + offset
        student, teacher = torch.from_numpy(values).to(precision)
        labels = torch.from_numpy(random.choice(ids, (images, *spatial)))
        assert_finite(student, teacher, labels, {"background_label": BACKGROUND, "ignore_label": IGNORE})


class TestRefused:
    STUDENT = torch.zeros(2, 3, 4)

    def test_a_teacher_of_another_shape(self) -> None:
        with pytest.raises(ValueError, match=r"\(2, 3, 4\) and \(2, 3, 5\)"):
            spoco_terms(self.STUDENT, torch.zeros(2, 3, 5), torch.zeros(3, 4, dtype=torch.int))

    def test_labels_of_another_shape(self) -> None:
        with pytest.raises(ValueError, match=r"\(3, 4\), got \(4, 3\)"):
            spoco_terms(self.STUDENT, self.STUDENT, torch.zeros(4, 3, dtype=torch.int))

    def test_labels_that_are_not_integers(self) -> None:
        with pytest.raises(ValueError, match=r"got torch\.float32"):
            spoco_terms(self.STUDENT, self.STUDENT, torch.zeros(3, 4))

    @pytest.mark.parametrize("anchor", [[0, 0, 6], [-1, 0, 0]])
    def test_anchors_outside_the_image(self, anchor: list[int]) -> None:
        student, teacher, labels = random_case()
        with pytest.raises(ValueError, match=re.escape(f"shape (4, 5, 6), got {anchor}")):
            spoco_terms(student, teacher, labels, torch.tensor([[0, 0, 0], anchor]))

    def test_anchors_of_another_image(self) -> None:
        student, teacher, labels = random_case()
        with pytest.raises(ValueError, match=re.escape("shape (A, 3), got (4, 2)")):
            spoco_terms(student, teacher, labels, torch.zeros(4, 2, dtype=torch.long))

    def test_a_batch_of_labels_without_a_channel(self) -> None:
        with pytest.raises(ValueError, match=r"\(1, 1, 3, 4\), got \(1, 3, 4\)"):
            SpocoLoss()(self.STUDENT[None], self.STUDENT[None], torch.zeros(1, 3, 4, dtype=torch.int))

    def test_anchors_between_voxels(self) -> None:
        student, teacher, labels = random_case()
        with pytest.raises(ValueError, match=r"got torch\.float32"):
            spoco_terms(student, teacher, labels, torch.tensor([[0.0, 0.7, 0.0]]))

    def test_a_teacher_of_another_batch(self) -> None:
        with pytest.raises(ValueError, match=r"\(1, 2, 3, 4\) and \(2, 2, 3, 4\)"):
            SpocoLoss()(torch.zeros(1, 2, 3, 4), torch.zeros(2, 2, 3, 4), torch.zeros(1, 1, 3, 4, dtype=torch.int))

    def test_an_empty_batch(self) -> None:
        nothing = torch.zeros(0, 2, 3, 4)
        with pytest.raises(ValueError, match=r"no empty axis, got the shape \(0, 2, 3, 4\)"):
            SpocoLoss()(nothing, nothing, torch.zeros(0, 1, 3, 4, dtype=torch.int))

    def test_objects_infinitely_far_apart(self) -> None:
        for delta_dist in (math.inf, 1e5):  # centres that an image does not have lie 1e4 away
            with pytest.raises(ValueError, match="delta_dist must lie below"):
                SpocoLoss(delta_dist=delta_dist)

    @pytest.mark.parametrize("value", [True, "0.5", None])
    def test_settings_that_are_no_numbers(self, value: object) -> None:
        with pytest.raises(ValueError, match=f"delta_var must be a number, got {value!r}"):
            SpocoLoss(delta_var=value)

    def test_special_labels_that_are_none(self) -> None:
        with pytest.raises(ValueError, match="background_label must be an integer or None, got '2'"):
            SpocoLoss(background_label="2")
        with pytest.raises(ValueError, match="ignore_label must differ from background_label, got 3 for both"):
            SpocoLoss(background_label=3, ignore_label=3)

    @pytest.mark.parametrize("anchors", [[[0, 0, 0]], torch.zeros(1, 3, dtype=torch.bool)])
    def test_anchors_that_are_no_integers(self, anchors: object) -> None:
        student, labels = torch.zeros(2, 3, 4, 5), torch.zeros(3, 4, 5, dtype=torch.int)
        with pytest.raises(ValueError, match="anchors must be"):
            spoco_terms(student, student, labels, anchors)

    @pytest.mark.parametrize("delta_var", [0.0, -1.0, 1e-200, 4.0, math.nan])
    def test_delta_var(self, delta_var: float) -> None:
        with pytest.raises(ValueError, match=f"delta_var .* got {delta_var}"):
            SpocoLoss(delta_var=delta_var)

    @pytest.mark.parametrize("threshold", [0.0, 1.0, math.nan])
    def test_kernel_threshold(self, threshold: float) -> None:
        with pytest.raises(ValueError, match=f"kernel_threshold .* got {threshold}"):
            SpocoLoss(kernel_threshold=threshold)


@cache
def golden(case: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "spoco_terms.npz") as arrays:
        return {name.split("/")[1]: arrays[name] for name in arrays if name.startswith(f"{case}/")}


@pytest.mark.skipif(not GOLDEN.exists(), reason="golden values are not part of the repository")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TERMS)
class TestAuthorsValues:
    """The authors' implementation; its consistency Dice is a mean over the slices of the first axis."""

    def term(self, case: str, name: str, student: Tensor) -> Tensor:
        teacher, labels, anchors = (torch.from_numpy(golden(case)[key]) for key in ("teacher", "labels", "anchors"))
        return spoco_terms(student, teacher, labels, anchors)[name]

    def test_value(self, case: str, name: str) -> None:
        expected = json.loads((GOLDEN / "spoco_terms.json").read_text())[case][name]
        student = torch.from_numpy(golden(case)["student"])
        assert self.term(case, name, student).item() == pytest.approx(expected, rel=1e-4)

    def test_gradient(self, case: str, name: str) -> None:
        student = torch.from_numpy(golden(case)["student"])
        gradient = gradients(student, lambda leaf: self.term(case, name, leaf)).numpy()
        expected = golden(case).get(f"grad_{name}", np.zeros_like(gradient))  # none stored: the term is constant
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


class TestWhatIsNoImage:
    @pytest.mark.parametrize("first", [torch.zeros(1, 1, 8, 6), torch.zeros(1, 6, 8), 5])
    def test_a_first_foreground_of_another_shape(self, first: object) -> None:
        embeddings, labels = torch.randn(1, 4, 6, 8), torch.ones(1, 1, 6, 8, dtype=torch.int32)
        with pytest.raises(ValueError, match="first_foreground must"):
            SpocoLoss(first_foreground_weight=1.0)(embeddings, embeddings, labels, first)

    def test_complex_embeddings(self) -> None:
        embeddings, labels = torch.zeros(1, 4, 6, 8, dtype=torch.complex64), torch.ones(1, 1, 6, 8, dtype=torch.int32)
        with pytest.raises(ValueError, match=r"must be real, got torch\.complex64"):
            SpocoLoss()(embeddings, embeddings, labels)

    def test_arrays(self) -> None:
        student, teacher, labels = random_case()
        with pytest.raises(ValueError, match="^teacher must be a tensor, got ndarray$"):
            spoco_terms(student, teacher.numpy(), labels)
        with pytest.raises(ValueError, match="^labels must be a tensor, got ndarray$"):
            SpocoLoss()(student[None], teacher[None], labels[None, None].numpy())

    def test_embeddings_without_spatial_axes(self) -> None:
        with pytest.raises(ValueError, match=r"^student must have spatial axes after the embedding's, got .* \(4,\)"):
            spoco_terms(torch.zeros(4), torch.zeros(4), torch.tensor(1))
        with pytest.raises(ValueError, match=r"^student must have spatial axes .* \(2, 4\)"):
            SpocoLoss()(torch.zeros(2, 4), torch.zeros(2, 4), torch.ones(2, 1, dtype=torch.int))


@pytest.mark.parametrize(("side", "tolerance"), [(32, 2e-3), (48, 1e-5)])  # below and above `LARGE_OBJECT`
def test_the_mean_of_a_large_object_is_exact(side: int, tolerance: float) -> None:
    """All embeddings are equal, so that the two objects' means are, and no voxel is away from them."""
    labels = torch.ones(side, side, side, dtype=torch.long)
    labels[0], labels[-1] = 0, 2
    embeddings = torch.tensor([0.3, 1.7, -5.1, 12.3]).view(4, 1, 1, 1).expand(4, side, side, side)
    terms = spoco_terms(embeddings, embeddings, labels, torch.zeros(0, 3, dtype=torch.long))
    assert float(terms["distance"]) == pytest.approx(16, rel=tolerance)
    assert float(terms["unlabeled_push"]) == pytest.approx(4, rel=tolerance)


def test_a_validation_in_inference_mode_leaves_the_training_alone() -> None:
    student, labels = torch.randn(1, 2, 3, 4), torch.randint(0, 3, (1, 1, 3, 4))
    loss = SpocoLoss(instance_weight=1.25)  # weights that no other test has asked for
    with torch.inference_mode():
        loss(student, student + 0.1, labels)
    loss(student.clone().requires_grad_(), student + 0.1, labels).backward()


def test_a_weight_in_a_tensor_may_change_in_place() -> None:
    student, labels = torch.randn(1, 2, 3, 4), torch.randint(0, 3, (1, 1, 3, 4))
    loss = SpocoLoss()
    loss.weights["variance"] = weight = torch.tensor(0.0)
    loss.weights.update({name: 0.0 for name in loss.weights if name != "variance"})
    assert loss(student, student, labels) == 0
    weight.fill_(2.0)
    assert loss(student, student, labels) == 2 * loss.terms["variance"] > 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int8])
def test_anchors_of_narrow_types(dtype: torch.dtype) -> None:
    student, labels = torch.zeros(2, 1, 300), torch.zeros(1, 300, dtype=torch.int)
    spoco_terms(student, student, labels, torch.tensor([[0, 7]]).to(dtype))
