"""Objects of several classes in one label map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from scripts.transforms.classes import (
    NumberByClassd,
    SelectClassesd,
    draw_objects,
    objects_of_class,
)

IDS = [0, 7, 24, 24000, 24001, 26, 26000, 33002]


def select(ids: list[int] = IDS, **options: object) -> list[int]:
    labels = MetaTensor(torch.tensor([[ids]]), meta={"filename_or_obj": "a.png"})
    return SelectClassesd("label", **options)({"label": labels})["label"].flatten().tolist()


class TestSelectClasses:
    def test_without_classes_nothing_changes(self) -> None:
        assert select(classes=None) == IDS

    def test_objects_of_other_classes_and_regions_without_objects_become_unlabelled(self) -> None:
        assert select(classes=[26]) == [0, 0, 0, 0, 0, 0, 26000, 0]

    def test_crowds_of_these_classes_are_ignored(self) -> None:
        assert select(classes=[24, 33], ignore_label=255) == [0, 0, 255, 24000, 24001, 0, 0, 33002]

    def test_crowds_may_keep_their_ids_where_something_is_ignored(self) -> None:
        expected = [0, 0, 24, 24000, 24001, 0, 0, 33002]
        assert select(classes=[24, 33], ignore_label=255, keep_crowds=True) == expected
        assert select(classes=[24, 33], keep_crowds=True) == [0, 0, 0, *expected[3:]]

    def test_painted_background_and_ignored_voxels_stay(self) -> None:
        assert select([0, 7, 9, 1, 1001, 2001], classes=[1], background_label=7, ignore_label=9) == [
            0,
            7,
            9,
            9,
            1001,
            0,
        ]

    def test_crowds_are_ignored_also_under_an_id_that_the_map_cannot_hold(self) -> None:
        labels = MetaTensor(torch.tensor([[IDS]], dtype=torch.int32), meta={"filename_or_obj": "a.png"})
        selected = SelectClassesd("label", [24], ignore_label=2**32 - 1)({"label": labels})["label"]
        assert selected.flatten().tolist() == [0, 0, 2**32 - 1, 24000, 24001, 0, 0, 0]

    def test_objects_that_were_not_drawn_become_unlabelled(self) -> None:
        assert select(classes=[24], ignore_label=255, drawn={"a.png": [24001]}) == [0, 0, 255, 0, 24001, 0, 0, 0]
        assert select(classes=[24], ignore_label=255, drawn={"b.png": [24001]}) == [0, 0, 255, 0, 0, 0, 0, 0]

    @pytest.mark.parametrize(
        ("labels", "found"),
        [
            (torch.tensor([[[0.0, 26001.0]]]), "a label map of type float32"),
            (torch.tensor([[[-26001, 26001]]]), "the negative id -26001"),
        ],
    )
    def test_numbers_that_are_no_ids(self, labels: torch.Tensor, found: str) -> None:
        labels = MetaTensor(labels, meta={"filename_or_obj": "a.png"})
        with pytest.raises(ValueError, match=f"a.png: found {found}, expected"):
            SelectClassesd("label", classes=[26])({"label": labels})


@pytest.mark.parametrize("classes", [26, "26", [0], [26.5]])
def test_classes_are_a_list_of_positive_integers(classes: Any) -> None:
    for use in (
        lambda: SelectClassesd("label", classes),
        lambda: draw_objects([], classes, fraction=1),
        lambda: NumberByClassd("pred", classes, has_masks=True),
    ):
        with pytest.raises(ValueError, match=r"classes must be a list of positive integers such as \[24, 26\], got"):
            use()


class TestDrawObjects:
    @pytest.fixture
    def labels(self, tmp_path: Path) -> list[Path]:
        """Ten maps with 10, 9, ..., 1 cars and one person each, and a last one without objects."""
        paths = [tmp_path / f"{number}.png" for number in range(11)]
        for number, path in enumerate(paths):
            ids = [*range(26000, 26010 - number), 24000 if number < 10 else 24, 7, 0]
            Image.fromarray(np.array([ids], np.uint16)).save(path)
        return paths

    def counts(self, drawn: dict[str, list[int]], class_: int) -> int:
        return sum(id_ // 1000 == class_ for ids in drawn.values() for id_ in ids)

    def test_all_of_them(self, labels: list[Path]) -> None:
        drawn = draw_objects(labels, [24, 26], fraction=1)
        assert sorted(drawn[str(labels[7])]) == [24000, 26000, 26001, 26002]
        assert str(labels[10]) not in drawn

    def test_a_share_of_each_class_over_all_maps(self, labels: list[Path]) -> None:
        drawn = draw_objects(labels, [24, 26], fraction=0.2)
        assert self.counts(drawn, 24) == 2  # of 10
        assert self.counts(drawn, 26) == 11  # of 55
        assert max(map(len, drawn.values())) > 1  # not a share of each map

    def test_at_least_one_of_a_class_that_exists(self, labels: list[Path]) -> None:
        drawn = draw_objects(labels, [24, 33], fraction=0.001)
        assert (self.counts(drawn, 24), self.counts(drawn, 33)) == (1, 0)

    def test_the_seed_decides_and_no_other_class_has_a_say(self, labels: list[Path]) -> None:
        cars = draw_objects(labels, [26], fraction=0.2, seed=3)
        assert cars == draw_objects(labels, [26], fraction=0.2, seed=3)
        assert cars != draw_objects(labels, [26], fraction=0.2, seed=4)
        both = draw_objects(labels, [24, 26], fraction=0.2, seed=3)
        assert cars == {path: [id_ for id_ in ids if id_ >= 26000] for path, ids in both.items() if max(ids) >= 26000}

    @pytest.mark.parametrize(("mode", "found"), [("RGB", "3 channels"), ("F", "type float32")])
    def test_maps_of_colours_or_floats_are_refused(self, labels: list[Path], mode: str, found: str) -> None:
        path = labels[3].with_suffix(".tif" if mode == "F" else ".png")
        Image.open(labels[3]).convert("F").convert(mode).save(path)
        with pytest.raises(ValueError, match=rf"{path.name}: found a label map of {found}, expected"):
            draw_objects([*labels[:3], path], [24, 26], fraction=1)

    def test_no_object_at_all_is_refused(self, labels: list[Path]) -> None:
        with pytest.raises(ValueError, match=r"Found no object of the classes \[31\] in 11 label maps, expected some"):
            draw_objects(labels, [31], fraction=1)

    def test_a_share_outside_of_0_to_1_is_refused(self, labels: list[Path]) -> None:
        with pytest.raises(ValueError, match=r"fraction must lie in .* got 1\.5"):
            draw_objects(labels, [26], fraction=1.5)


class TestNumberByClass:
    INSTANCES = torch.tensor([[4, 5, 1, 2, 2, 0, 0]])

    def number(self, classes: list[int] | None, **mask: torch.Tensor) -> list[int]:
        transform = NumberByClassd("pred", classes, has_masks=bool(mask))
        return transform({"pred": self.INSTANCES, **mask})["pred"].flatten().tolist()

    def test_ids_tell_the_class(self) -> None:
        mask = torch.tensor([[24, 24, 26, 26, 26, 7, 0]])
        assert self.number([24, 26, 33], mask=mask) == [24000, 24001, 26000, 26001, 26001, 0, 0]

    def test_one_class_needs_no_mask(self) -> None:
        assert self.number([26])[:4] == [26003, 26004, 26000, 26001]

    def test_scores_follow_their_instances(self) -> None:
        data = {"pred": self.INSTANCES, "pred_scores": torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64)}
        numbered = NumberByClassd("pred", [26], has_masks=False)(data)
        scores, ids = numbered["pred_scores"], numbered["pred"].flatten()[[2, 3, 0, 1]].long()
        assert scores[ids - 1].tolist() == pytest.approx([0.1, 0.2, 0.4, 0.5])
        assert len(scores) == 26004

    def test_of_more_instances_than_ids_the_largest_are_kept(self) -> None:
        instances = torch.cat([torch.arange(1, 1501), torch.tensor([1200, 1500])])[None].int()
        data = {"pred": instances, "pred_scores": torch.linspace(0, 1, 1500, dtype=torch.float64)}
        numbered = NumberByClassd("pred", [26], has_masks=False)(data)
        ids = numbered["pred"].flatten()
        assert sorted(set(ids.tolist())) == [0, *range(26000, 27000)]
        assert (ids[997], ids[998], ids[1199], ids[1499], ids[1200]) == (26997, 0, 26998, 26999, 0)
        assert numbered["pred_scores"][26999 - 1] == 1

    def test_without_classes_ids_stay(self) -> None:
        assert self.number(None) == self.INSTANCES.flatten().tolist()

    def test_an_image_without_instances(self) -> None:
        transform = NumberByClassd("pred", [26], has_masks=False)
        assert transform({"pred": torch.zeros(1, 3, 3, dtype=torch.int32)})["pred"].max() == 0

    def test_several_classes_without_a_mask_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"Found no masks, expected some that tell the classes \[24, 26\] apart"):
            NumberByClassd("pred", [24, 26], has_masks=False)


def test_objects_of_class() -> None:
    assert objects_of_class(torch.tensor(IDS), 24).tolist() == [0, 0, 0, 24000, 24001, 0, 0, 0]
