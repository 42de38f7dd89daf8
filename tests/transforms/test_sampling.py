"""Simulated sparse annotation, and the extent of what is annotated."""

import pytest
import torch
from monai.data import MetaTensor

from scripts.transforms.sampling import KeepObjectFractiond


def label_map(ids: list[int], name: str = "cells.tif") -> MetaTensor:
    return MetaTensor(torch.tensor([[ids]]), meta={"filename_or_obj": f"/somewhere/{name}"})


class TestKeepObjectFraction:
    def test_keeps_the_rounded_share_and_turns_the_rest_unlabelled(self) -> None:
        labels = label_map([*range(55)])  # 54 objects
        kept = KeepObjectFractiond("label", fraction=0.2)({"label": labels})["label"]
        assert len(torch.unique(kept)) - 1 == 11
        assert torch.all((kept == 0) | (kept == labels))

    def test_of_a_plain_tensor_too(self) -> None:
        kept = KeepObjectFractiond("label", 0.5)({"label": torch.tensor([[1, 2, 3, 4]])})["label"]
        assert (kept != 0).sum() == 2

    def test_keeps_at_least_one(self) -> None:
        kept = KeepObjectFractiond("label", fraction=0.01)({"label": label_map([0, 5, 6])})["label"]
        assert len(torch.unique(kept[kept > 0])) == 1

    def test_special_labels_stay_and_are_not_counted(self) -> None:
        transform = KeepObjectFractiond("label", fraction=0.5, background_label=7, ignore_label=8)
        kept = transform({"label": label_map([1, 2, 7, 8])})["label"].flatten().tolist()
        assert kept[2:] == [7, 8]
        assert sorted(kept[:2]) in ([0, 1], [0, 2])

    def test_same_seed_and_name_same_choice_whatever_the_folder(self) -> None:
        transform = KeepObjectFractiond("label", fraction=0.5, seed=3)
        names = ("cells.tif", "cells.tif", "elsewhere/cells.tif")
        first, *others = (transform({"label": label_map([*range(20)], name)})["label"] for name in names)
        assert all(torch.equal(first, other) for other in others)

    def test_other_seed_or_name_other_choice(self) -> None:
        def choose(seed: int, name: str) -> list[int]:
            transform = KeepObjectFractiond("label", fraction=0.5, seed=seed)
            return transform({"label": label_map([*range(40)], name)})["label"].flatten().tolist()

        assert choose(0, "a.tif") != choose(1, "a.tif")
        assert choose(0, "a.tif") != choose(0, "b.tif")

    @pytest.mark.parametrize("fraction", [0, -0.5, 1.5])
    def test_refuses_a_share_outside_of_0_to_1(self, fraction: float) -> None:
        with pytest.raises(ValueError, match=f"fraction must lie in .* got {fraction}"):
            KeepObjectFractiond("label", fraction=fraction)
