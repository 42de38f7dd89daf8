"""What the metrics do not see."""

from __future__ import annotations

import pytest
import torch

from scripts.metrics import instance_metrics
from scripts.transforms.ignored import ForgetIgnoredd


def test_forgets_ignored_voxels() -> None:
    data = {"label": torch.tensor([[[0, 1, 7, 8]]]), "pred": torch.zeros(1, 1, 4, dtype=torch.int32)}
    assert ForgetIgnoredd("label", ignore_label=8)(data)["label"].flatten().tolist() == [0, 1, 7, 0]
    assert ForgetIgnoredd("label")(data)["label"].flatten().tolist() == [0, 1, 7, 8]


@pytest.mark.parametrize(
    ("label", "pred", "seen"),
    [
        ([9, 9, 1, 1, 0], [5, 5, 5, 5, 0], [0, 0, 5, 5, 0]),  # what is hidden of an instance is not wrong
        ([9, 9, 9, 1, 1], [0, 6, 6, 6, 0], [0, 0, 0, 6, 0]),  # though most of it is hidden, it is object 1
        ([9, 9, 9, 0, 1], [0, 6, 6, 6, 0], [0, 0, 0, 0, 0]),  # it may be right, where nobody sees it
        ([9, 9, 9, 4, 1], [0, 6, 6, 6, 0], [0, 0, 0, 0, 0]),  # nor is painted background an object
        ([9, 9, 0, 0, 1], [0, 6, 6, 6, 0], [0, 0, 6, 6, 0]),  # half of it is seen, and wrong
        ([9, 9, 9, 1, 1], [7, 7, 7, 0, 0], [0, 0, 0, 0, 0]),
    ],
)
def test_instances_are_judged_by_what_is_seen_of_them(label: list[int], pred: list[int], seen: list[int]) -> None:
    forget = ForgetIgnoredd("label", ignore_label=9, background_label=4)
    result = forget({"label": torch.tensor([[label]]), "pred": torch.tensor([[pred]])})
    assert result["pred"].flatten().tolist() == seen
    assert result["label"].flatten().tolist() == [0 if id_ == 9 else id_ for id_ in label]


def test_a_crowd_hides_instances_of_its_own_class_alone() -> None:
    label = [24, 24, 24, 24, 0, 26000, 255, 24000]
    pred = [24001, 24001, 26001, 26001, 0, 26000, 26000, 24002]
    forget = ForgetIgnoredd("label", ignore_label=255, classes=[24, 26])
    result = forget({"label": torch.tensor([[label]]), "pred": torch.tensor([[pred]])})
    assert result["pred"].flatten().tolist() == [0, 0, 26001, 26001, 0, 26000, 0, 24002]
    assert result["label"].flatten().tolist() == [0, 0, 0, 0, 0, 26000, 0, 24000]


def test_of_hidden_parts_of_objects_nothing_is_asked() -> None:
    truth = torch.zeros(1, 12, 12, dtype=torch.int32)
    truth[0, 1:6, 1:6], truth[0, 7:11, 2:9] = 3, 70_000
    label = truth.masked_fill((torch.arange(12) > 3) & (torch.arange(12) < 8), 9)
    result = ForgetIgnoredd("label", ignore_label=9)({"label": label, "pred": truth})
    for sparse in (False, True):
        metrics = instance_metrics(result["pred"][0], result["label"][0], sparse=sparse)
        assert metrics["ap"] == metrics["pq"] == metrics["sbd"] == metrics["annotated_iou"] == 1
        assert metrics["dic"] == metrics["arand"] == 0
