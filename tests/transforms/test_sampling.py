"""Simulated sparse annotation, and the extent of what is annotated."""

import pytest
import torch
from monai.data import MetaTensor

from scripts.transforms.sampling import ForgetIgnoredd, KeepObjectFractiond, annotated_ids, where_id


def label_map(ids: list[int], name: str = "cells.tif") -> MetaTensor:
    return MetaTensor(torch.tensor([[ids]]), meta={"filename_or_obj": f"/somewhere/{name}"})


def test_ids_are_neither_unlabelled_nor_background_nor_ignored() -> None:
    assert annotated_ids(torch.tensor([0, 3, 3, 70000, 9, 1]), background_label=9, ignore_label=1).tolist() == [
        3,
        70000,
    ]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64])
def test_an_id_that_the_type_of_the_labels_cannot_hold_is_nowhere(dtype: torch.dtype) -> None:
    labels = torch.tensor([0, 1, 1], dtype=dtype)
    assert where_id(labels, 1).tolist() == [False, True, True]
    for id_ in (257, 2**32, 2**32 + 1, 2**40, -1, -255):  # some of which are 0 or 1 in fewer bits
        assert not where_id(labels, id_).any()
        assert len(annotated_ids(labels, background_label=id_, ignore_label=None)) == 1
    assert not where_id(labels, None).any()


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


def test_forgets_ignored_voxels() -> None:
    forget = ForgetIgnoredd("label", ignore_label=8)
    assert forget({"label": label_map([0, 1, 7, 8])})["label"].flatten().tolist() == [0, 1, 7, 0]
    assert ForgetIgnoredd("label")({"label": label_map([0, 8])})["label"].flatten().tolist() == [0, 8]


def test_forgets_instances_that_lie_mostly_on_ignored_voxels() -> None:
    forget = ForgetIgnoredd("label", ignore_label=9, prediction_key="pred")
    data = {"label": label_map([9, 9, 9, 1, 1, 0]), "pred": torch.tensor([[[5, 5, 6, 6, 7, 0]]])}
    result = forget(data)
    assert result["pred"].flatten().tolist() == [0, 0, 6, 6, 7, 0]  # 6 lies there with one half of its voxels
    assert result["label"].flatten().tolist() == [0, 0, 0, 1, 1, 0]
