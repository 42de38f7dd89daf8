"""What the metrics do not see."""

from __future__ import annotations

import torch

from scripts.transforms.ignored import ForgetIgnoredd


def test_forgets_ignored_voxels() -> None:
    forget = ForgetIgnoredd("label", ignore_label=8)
    assert forget({"label": torch.tensor([[[0, 1, 7, 8]]])})["label"].flatten().tolist() == [0, 1, 7, 0]
    assert ForgetIgnoredd("label")({"label": torch.tensor([[[0, 8]]])})["label"].flatten().tolist() == [0, 8]


def test_forgets_instances_that_lie_mostly_on_ignored_voxels() -> None:
    forget = ForgetIgnoredd("label", ignore_label=9, prediction_key="pred")
    data = {"label": torch.tensor([[[9, 9, 9, 1, 1, 0]]]), "pred": torch.tensor([[[5, 5, 6, 6, 7, 0]]])}
    result = forget(data)
    assert result["pred"].flatten().tolist() == [0, 0, 6, 6, 7, 0]  # 6 lies there with one half of its voxels
    assert result["label"].flatten().tolist() == [0, 0, 0, 1, 1, 0]
