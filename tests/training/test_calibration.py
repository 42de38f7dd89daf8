"""The threshold that the annotated objects ask for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from peak_memory import peak_memory
from torch import Tensor

from scripts.clustering.agglomeration import Hierarchy
from scripts.clustering.postprocessing import CHOSEN_KEY
from scripts.network.foreground import SHARPNESS, THRESHOLD
from scripts.training.calibration import (
    FOREGROUND_THRESHOLDS,
    PREFERRED,
    THRESHOLDS,
    WORSE,
    ThresholdCalibration,
    choose_threshold,
    mutual_overlaps,
)

LENGTH = 40  # of an object, in pixels


def long_objects(step: float) -> Tensor:
    """Embeddings (1, 20, 80) of two objects that drift apart from their neighbour by `step` in their middle."""
    values = np.repeat([0.0, step, 10.0, 10.0 + step], LENGTH // 2)
    noise = np.random.default_rng(0).normal(0, 0.02, (1, 20, 2 * LENGTH))
    return torch.from_numpy((values + noise).astype(np.float32))


def annotation(*objects: tuple[int, int]) -> Tensor:
    """Labels (1, 20, 80), each object from one column to another."""
    labels = torch.zeros(1, 20, 2 * LENGTH, dtype=torch.int64)
    for number, (start, stop) in enumerate(objects, start=1):
        labels[..., start:stop] = number
    return labels


USUAL = PREFERRED["everywhere"]


def calibrated(embeddings: Tensor, labels: Tensor, **options: float) -> float:
    calibration = ThresholdCalibration(embedding_dim=1, foreground="everywhere", **options)
    calibration({"pred": embeddings, "label": labels})
    return calibration.chosen()["merge_threshold"]


class TestChoice:
    def test_the_best_is_chosen(self) -> None:
        overlaps = np.zeros(len(THRESHOLDS))
        overlaps[3] = 0.8
        assert choose_threshold(overlaps, preferred=2.8) == THRESHOLDS[3]

    def test_of_equals_the_nearest_to_the_usual_one(self) -> None:
        assert choose_threshold(np.full(len(THRESHOLDS), 0.5), preferred=2.8) == 2.8
        assert choose_threshold(np.full(len(THRESHOLDS), 0.5), preferred=2.1) == 2.0

    def test_little_better_is_not_worth_leaving(self) -> None:
        overlaps = np.full(len(THRESHOLDS), 0.5)
        overlaps[-1] += 0.005
        assert choose_threshold(overlaps, preferred=2.8) == 2.8


class TestMutualOverlap:
    HIERARCHY = Hierarchy(
        regions=np.array([[1, 1, 2, 2, 3, 3, 0, 0]], np.int32),
        merges=np.array([[1, 2], [1, 3]]),
        evidence=np.array([0.55, 1.1]),
    )

    def overlap(self, labels: list[int], threshold: float, smallest: int = 1) -> tuple[float, float]:
        total, weight = mutual_overlaps(self.HIERARCHY, np.array([labels]), [threshold], smallest)
        return total.item(), weight.item()

    @pytest.mark.parametrize(
        ("threshold", "expected"),
        [
            (0.5, (2 * 2 / 4 + 2 * 2**0.5 * 2 / 4, 2 + 2 * 2**0.5)),  # an object of 4 pixels and its two halves
            (1.0, (2 * 1 + 2 * 1, 2 + 2)),  # an object and its instance
            (1.2, (2 * 4 / 6 + 6**0.5 * 4 / 6, 2 + 6**0.5)),  # an object and the instance with its neighbour, too
        ],
    )
    def test_by_hand(self, threshold: float, expected: tuple[float, float]) -> None:
        assert self.overlap([7, 7, 7, 7, 0, 0, 0, 0], threshold) == pytest.approx(expected)

    def test_instances_that_are_hardly_annotated_do_not_count(self) -> None:
        assert self.overlap([7, 0, 0, 0, 0, 0, 0, 0], 0.5) == (1 / 2, 1)

    def test_small_instances_do_not_count(self) -> None:
        assert self.overlap([7, 7, 7, 7, 0, 0, 0, 0], 0.5, smallest=3) == (2 * 1 / 2, 2)

    def test_what_is_ignored_of_an_instance_is_not_wrong(self) -> None:
        labels, seen = np.array([[7, 7, 0, 0, 0, 0, 5, 5]]), np.array([[1, 1, 0, 0, 0, 0, 1, 1]], bool)
        total, weight = mutual_overlaps(self.HIERARCHY, labels, [1.0], seen=seen)  # half of an instance, and nothing
        assert (total.item(), weight.item()) == pytest.approx((2**0.5 + 2**0.5, 3 * 2**0.5))

    def test_an_object_outside_all_instances(self) -> None:
        assert self.overlap([0, 0, 0, 0, 0, 0, 5, 5], 0.5) == pytest.approx((0, 2**0.5))

    def test_crumbs_beside_a_large_object_say_little(self) -> None:
        pieces = np.arange(1, 11).repeat([91, *[1] * 9])[None]  # one large piece of an object, and nine crumbs
        hierarchy = Hierarchy(pieces.astype(np.int32), np.zeros((0, 2), np.int64), np.zeros(0))
        total, weight = mutual_overlaps(hierarchy, np.ones_like(pieces), [1.0])
        assert total.item() / weight.item() > 0.6  # the mean over all of them is 0.17

    def test_what_nobody_annotated_needs_no_memory(self) -> None:
        labels = np.zeros((1, 100_000), np.int32)
        labels[0, :100] = 5
        hierarchy = Hierarchy(np.ones_like(labels), np.zeros((0, 2), np.int64), np.zeros(0))
        assert peak_memory(lambda: mutual_overlaps(hierarchy, labels, [1.0])) < 4 * labels.nbytes

    def test_permuting_ids_changes_nothing(self) -> None:
        assert self.overlap([9, 9, 2, 2, 5, 5, 0, 0], 1.0) == self.overlap([1, 1, 3, 3, 70000, 70000, 0, 0], 1.0)


class TestCalibration:
    def test_objects_in_pieces_raise_the_threshold(self) -> None:
        embeddings, labels = long_objects(step=1.7), annotation((0, LENGTH))
        assert calibrated(embeddings, labels) > USUAL

    def test_swallowed_neighbours_lower_it(self) -> None:
        embeddings, labels = long_objects(step=0.8), annotation((0, LENGTH // 2), (LENGTH // 2, LENGTH))
        assert calibrated(embeddings, labels) < USUAL

    @pytest.mark.parametrize(("foreground", "usual"), [("everywhere", 2.8), ("estimated", 2.0)])
    def test_without_annotation_it_is_the_usual_one(self, foreground: str, usual: float) -> None:
        calibration = ThresholdCalibration(embedding_dim=1, foreground=foreground)
        calibration({"pred": long_objects(step=1.7), "label": annotation()})
        assert calibration.chosen()["merge_threshold"] == usual

    def test_special_labels_are_no_objects(self) -> None:
        embeddings, labels = long_objects(step=1.7), annotation((0, LENGTH))
        assert calibrated(embeddings, labels, background_label=1) == USUAL
        assert calibrated(embeddings, labels, ignore_label=1) == USUAL

    def test_all_images_count(self) -> None:
        calibration = ThresholdCalibration(embedding_dim=1, foreground="everywhere")
        calibration({"pred": long_objects(step=1.7), "label": annotation((0, LENGTH))})
        alone = calibration.chosen()["merge_threshold"]
        for _ in range(9):
            pieces = annotation((0, LENGTH // 2), (LENGTH // 2, LENGTH))
            calibration({"pred": long_objects(step=1.7), "label": pieces})
        assert calibration.chosen()["merge_threshold"] < alone

    def test_images_of_an_earlier_validation_do_not_count(self) -> None:
        calibration = ThresholdCalibration(embedding_dim=1, foreground="everywhere")
        validator = Engine(lambda engine, data: calibration(data))
        calibration.attach(validator)
        whole, pieces = annotation((0, LENGTH)), annotation((0, LENGTH // 2), (LENGTH // 2, LENGTH))
        for images in ([pieces] * 9, [whole]):
            validator.run([{"pred": long_objects(step=1.7), "label": labels} for labels in images])
        assert calibration.chosen()["merge_threshold"] == calibrated(long_objects(step=1.7), whole)

    def test_an_image_full_of_objects_counts_as_one(self) -> None:
        def annotate(calibration: ThresholdCalibration, images: int, copies: int) -> None:
            whole = {"pred": long_objects(step=1.7), "label": annotation((0, LENGTH))}
            for _ in range(images):
                calibration(whole)
            pieces = annotation((0, LENGTH // 2), (LENGTH // 2, LENGTH))
            more = [pieces + 2 * number * (pieces > 0) for number in range(copies)]
            calibration({"pred": long_objects(step=1.7).repeat(1, copies, 1), "label": torch.cat(more, 1)})

        few, many = (ThresholdCalibration(embedding_dim=1, foreground="everywhere") for _ in range(2))
        annotate(few, images=2, copies=1)
        annotate(many, images=2, copies=9)
        assert few.total_weight == many.total_weight == 3
        assert many.chosen() == few.chosen()
        assert few.chosen()["merge_threshold"] > USUAL

    def test_an_image_with_a_chip_counts_less_than_one(self) -> None:
        chip = torch.zeros(1, 20, 2 * LENGTH, dtype=torch.int64)
        chip[0, 0, :9] = 1
        calibration = ThresholdCalibration(embedding_dim=1, foreground="everywhere")
        calibration({"pred": long_objects(step=1.7), "label": chip})
        assert calibration.total_weight == pytest.approx(3 / math.sqrt(math.pi * 8**2))

    def test_images_without_annotation_do_not_count(self) -> None:
        calibration = ThresholdCalibration(embedding_dim=1, foreground="everywhere")
        for labels in (annotation(), annotation((0, LENGTH)), annotation()):
            calibration({"pred": long_objects(step=1.7), "label": labels})
        alone = ThresholdCalibration(embedding_dim=1, foreground="everywhere")
        alone({"pred": long_objects(step=1.7), "label": annotation((0, LENGTH))})
        assert calibration.total_weight == 1
        np.testing.assert_array_equal(calibration.total_overlap, alone.total_overlap)

    def test_a_fixed_threshold_is_used_as_it_is(self) -> None:
        assert calibrated(long_objects(step=1.7), annotation((0, LENGTH)), merge_threshold=0.123) == 0.123

    def test_labels_of_a_finer_grid(self) -> None:
        embeddings, labels = long_objects(step=1.7), annotation((0, LENGTH))
        finer = labels.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        assert calibrated(embeddings, finer) == calibrated(embeddings, labels)

    def test_a_mask_says_where_objects_are(self) -> None:
        calibration = ThresholdCalibration(embedding_dim=1, foreground="estimated")
        mask = torch.ones(1, 20, 2 * LENGTH)
        calibration({"pred": long_objects(step=1.7) - 20, "label": annotation((0, LENGTH)), "mask": mask})
        assert calibration.chosen()["merge_threshold"] > PREFERRED["estimated"]

    def test_what_has_another_class_cannot_swallow_an_object(self) -> None:
        """As instances are sought in the region of each class by itself."""
        road = np.repeat([0.0, 1.5, 2.7, 2.7], LENGTH // 2)  # beside an object that drifts, of the class 26
        noise = np.random.default_rng(0).normal(0, 0.02, (1, 20, 2 * LENGTH))
        embeddings = torch.from_numpy((road + noise).astype(np.float32))
        mask = torch.full((1, 20, 2 * LENGTH), 7)
        mask[..., :LENGTH] = 26

        def threshold(classes: list[int] | None) -> float:
            calibration = ThresholdCalibration(embedding_dim=1, classes=classes)
            calibration({"pred": embeddings, "label": annotation((0, LENGTH)), "mask": mask})
            return calibration.chosen()["merge_threshold"]

        assert threshold(None) < threshold([26]) == threshold([24, 26])
        assert threshold([24]) == PREFERRED["estimated"]  # no object in its region

    def test_thresholds_are_added_and_nothing_is_changed(self) -> None:
        data = {"pred": long_objects(step=1.7), "label": annotation((0, LENGTH))}
        calibration = ThresholdCalibration(embedding_dim=1)
        assert calibration(data) == {**data, CHOSEN_KEY: calibration.chosen()}


class TestForegroundThreshold:
    """A square of 20 x 20 pixels, annotated; its probability falls from 0.95 inside to 0.78 around to 0.3 outside."""

    def data(self) -> dict[str, Tensor]:
        probability = torch.full((40, 40), 0.3)
        probability[6:34, 6:34] = 0.78
        probability[10:30, 10:30] = 0.95
        label = torch.zeros(1, 40, 40, dtype=torch.int32)
        label[0, 10:30, 10:30] = 3
        return {"pred": torch.stack([torch.logit(probability) / SHARPNESS, torch.zeros(40, 40)]), "label": label}

    def chosen(self, **options: float) -> tuple[float, float]:
        calibration = ThresholdCalibration(embedding_dim=2, **options)
        calibration(self.data())
        chosen = calibration.chosen()
        return chosen["foreground_threshold"], chosen["merge_threshold"]

    def test_the_annotated_objects_tell(self) -> None:
        assert self.chosen() == (0.85, PREFERRED["estimated"])  # 0.8, 0.85 and 0.9 are as good as one another

    def test_a_fixed_one_is_used_as_it_is(self) -> None:
        assert self.chosen(foreground_threshold=0.6004)[0] == 0.6004

    def test_it_is_chosen_where_the_other_one_is_fixed(self) -> None:
        assert self.chosen(merge_threshold=3.3) == (0.85, 3.3)

    @pytest.mark.parametrize("options", [{"foreground": "everywhere"}, {"background_label": 3}])
    def test_where_nothing_tells_it_is_the_usual_one(self, options: dict[str, object]) -> None:
        assert self.chosen(**options)[0] == THRESHOLD

    def test_a_mask_tells_nothing_about_it(self) -> None:
        calibration = ThresholdCalibration(embedding_dim=2)
        calibration({**self.data(), "mask": torch.ones(1, 40, 40)})
        assert calibration.chosen()["foreground_threshold"] == THRESHOLD

    def test_the_mean_of_two_that_are_as_good_as_each_other(self) -> None:
        assert self.chosen_for(dict.fromkeys((0.6, 0.8), 0.7)) == pytest.approx(0.7)

    def test_one_that_is_worse_by_an_e_fold_counts_less(self) -> None:
        mean = (0.6 + 0.8 / math.e) / (1 + 1 / math.e)
        assert self.chosen_for({0.6: 0.7, 0.8: 0.7 - WORSE}) == pytest.approx(mean, abs=5e-4)

    def test_a_hair_turns_nothing(self) -> None:
        before, after = self.chosen_for({0.6: 0.7, 0.8: 0.7}), self.chosen_for({0.6: 0.701, 0.8: 0.7})
        assert before - 0.005 < after < before

    def chosen_for(self, overlaps: dict[float, float]) -> float:
        """The threshold when some have these overlaps, and all others none."""
        calibration = ThresholdCalibration(embedding_dim=2)
        for threshold, overlap in overlaps.items():
            calibration.total_overlap[FOREGROUND_THRESHOLDS.index(threshold)] = overlap
        calibration.total_weight = 1
        return calibration.chosen()["foreground_threshold"]
