"""Scores of each class, by hand."""

from __future__ import annotations

import pytest
import torch

from scripts.metrics.class_metrics import ClassMetrics


def maps(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows)[:, None, None]


def test_each_class_is_the_mean_over_the_images_that_hold_it() -> None:
    metric = ClassMetrics([24, 26, 33])
    truth = maps([26000, 26000, 24000, 24000], [26000, 26000, 0, 0], [0, 0, 0, 0])
    found = maps([26001, 26001, 24000, 0], [26000, 26001, 0, 0], [0, 0, 0, 26000])
    metric(found, truth)
    scores = metric.aggregate()
    assert scores["24"]["ap50"] == 1.0  # found with IoU 1/2
    assert scores["24"]["images"] == 1
    # found; cut into two halves, one of which matches; one where there is none
    assert scores["26"]["ap50"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert scores["26"]["dic"] == pytest.approx((0 + 1 + 1) / 3)
    assert scores["26"]["images"] == 3
    assert scores["33"] == {"images": 0}


def test_an_object_found_under_another_class_is_missed_in_one_and_wrong_in_the_other() -> None:
    metric = ClassMetrics([26, 27])
    metric(maps([27000, 27000]), maps([26000, 26000]))
    assert {class_: score["ap50"] for class_, score in metric.aggregate().items()} == {"26": 0.0, "27": 0.0}


def test_with_sparse_truth_images_without_annotated_objects_say_nothing() -> None:
    metric = ClassMetrics([26], sparse=True)
    metric(maps([26000, 0, 26001], [26000, 0, 0]), maps([26000, 0, 0], [0, 0, 0]))
    assert metric.aggregate()["26"]["ap50"] == 1.0
    assert metric.aggregate()["26"]["images"] == 1


def test_with_sparse_truth_an_annotated_object_of_another_class_is_known_to_be_none_of_this_one() -> None:
    metric = ClassMetrics([24, 26], sparse=True)
    metric(maps([24000, 24001, 24001, 24002]), maps([24000, 26000, 26000, 0]))
    assert {class_: score["ap50"] for class_, score in metric.aggregate().items()} == {"24": 0.5, "26": 0.0}


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("background_label", [5, 24003, 2**32 + 5])
def test_painted_background_is_no_object_of_any_class(background_label: int, sparse: bool) -> None:
    metric = ClassMetrics([24], sparse=sparse, background_label=background_label)
    truth = maps([24000, 24000, 0, background_label])
    metric(maps([24000, 24000, 0, 24001]), truth.int() if background_label < 2**31 else truth)
    assert metric.aggregate()["24"]["ap50"] == 0.5


def test_repeated_images_do_not_count() -> None:
    metric = ClassMetrics([26], is_repetition=True)
    metric(maps([26000, 0]), maps([26000, 26000]))
    assert metric.aggregate() == {"26": {"images": 0}}
    assert not metric.has_seen_objects()


def test_it_starts_anew_after_a_reset() -> None:
    metric = ClassMetrics([26])
    metric(maps([0]), maps([26000]))
    metric.reset()
    with pytest.raises(ValueError, match="seen 0 images"):
        metric.aggregate()
