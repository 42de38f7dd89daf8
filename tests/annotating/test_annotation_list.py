"""The list of places as files: which label maps there are, places on the file's grid, one list for all images."""

import csv

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from scripts.annotating.annotation_list import FindNextObjectsd, NextObjectsWriter, PaintDoubtd
from scripts.transforms.resampling import ResampleToSpacingd


def scene(annotated: bool = True) -> dict[str, MetaTensor]:
    """Two squares of 6 x 6 pixels in a file of 20 x 40; the networks agree on the left one only."""
    meta = {"filename_or_obj": "cells.tif", "spatial_shape": np.array([20, 40]), "unit": "micrometre"}
    affine = torch.diag(torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64))
    meta["original_affine"] = affine.numpy()
    instances = np.zeros((1, 20, 40), np.int32)
    instances[0, 4:10, 4:10], instances[0, 4:10, 24:30] = 1, 2
    student = np.where(instances > 0, 2.0, -2.0).astype(np.float32) * np.ones((2, 1, 1), np.float32)
    student[1] += 10 * instances[0]
    teacher = student.copy()
    teacher[1, 4:10, 24:27] += 5
    labels = np.zeros((1, 20, 40), np.int32)
    labels[0, 14:18, 14:18] = 9
    data = {"image": instances.astype(np.float32), "pred": instances, "embeddings": np.concatenate([student, teacher])}
    data |= {"label": labels} if annotated else {}
    return {key: MetaTensor(torch.from_numpy(array), affine=affine, meta=meta) for key, array in data.items()}


def find(data, **options):
    return FindNextObjectsd("embeddings", embedding_dim=2, **options)(data)


def written(tmp_path, *samples, count=20):
    evaluator = Engine(lambda engine, sample: [sample])
    NextObjectsWriter(tmp_path, count).attach(evaluator)
    evaluator.run(samples)
    return list(csv.DictReader((tmp_path / "next_objects.csv").open()))


def test_a_second_run_starts_anew(tmp_path):
    evaluator = Engine(lambda engine, sample: [sample])
    NextObjectsWriter(tmp_path, count=20).attach(evaluator)
    tables = []
    for _ in range(2):
        evaluator.run([find(scene())])
        tables.append((tmp_path / "next_objects.csv").read_text())
    assert tables[0] == tables[1]


class TestFind:
    def test_what_the_networks_disagree_on_is_hot(self):
        heat = PaintDoubtd("regions")(find(scene()))["heat"][0]
        assert heat[6, 6] == 0
        assert 50 < heat[6, 26] <= 100
        assert heat[0, 0] == 0

    def test_annotated_objects_are_measured_and_no_candidates(self):
        data = scene()
        data["label"][0, 4:10, 24:30] = 3
        found = find(data)["candidates"]
        assert len(found.known) == 2
        assert found.voxels.tolist() == [[6, 6]]

    def test_special_labels_are_no_objects(self):
        found = find(scene(), background_label=9)["candidates"]
        assert len(found.known) == 0

    @pytest.mark.parametrize("special", ["background_label", "ignore_label"])
    def test_where_somebody_painted_background_nothing_has_been_missed(self, special):
        data = scene()
        data["label"][0, 4:10, 24:30] = 5
        assert find(data, **{special: 5})["candidates"].voxels.tolist() == [[6, 6]]

    def test_without_labels_nothing_is_annotated(self):
        assert len(find(scene(annotated=False))["candidates"].known) == 0

    def test_what_is_left_out_by_a_mask_has_not_been_missed(self):
        data = scene()
        data["pred"][0, 4:10, 24:30] = 0  # faint, and not found
        assert find(data, min_size=10)["candidates"].voxels.tolist() == [[6, 6], [6, 26]]
        data["mask"] = MetaTensor((data["pred"] > 0).int(), meta=data["pred"].meta)
        assert find(data, min_size=10)["candidates"].voxels.tolist() == [[6, 6]]

    def test_places_are_those_of_the_file(self):
        """On a working grid of half the size: the voxel at (3, 13) there was picked from (7, 27)."""
        data = ResampleToSpacingd(
            ["image", "pred", "embeddings", "label"], [1.0, 1.0], ["pred", "embeddings", "label"]
        )(scene())
        assert data["pred"].shape[1:] == (10, 20)
        found = find(data)["candidates"]
        for voxel, id_ in zip(found.voxels, (1, 2), strict=True):
            assert scene()["pred"][0][tuple(voxel)] == id_

    def test_the_voxel_of_the_file_is_the_one_that_a_coarse_grid_has_picked(self) -> None:
        """On a grid 4 times as coarse, of the voxels 4 to 7 the one at 6."""
        data = ResampleToSpacingd(
            ["image", "pred", "embeddings", "label"], [2.0, 2.0], ["pred", "embeddings", "label"]
        )(scene())
        assert find(data)["candidates"].voxels.tolist() == [[6, 6], [6, 26]]

    def test_the_brightness_is_the_mean_of_the_channels(self) -> None:
        data = scene()
        dark = data["image"]  # 0 in the annotated square
        data["image"] = MetaTensor(torch.cat([dark, dark + 2]), meta=dark.meta)
        (known,) = find(data)["candidates"].known
        assert known.tolist() == pytest.approx([np.log(4 * 4), 1, 0])


class TestList:
    def test_columns_in_voxels_and_micrometres(self, tmp_path):
        first = written(tmp_path, find(scene()))[0]
        assert (first["rank"], first["image"]) == ("1", "cells")
        assert (first["y_voxel"], first["x_voxel"]) == ("6", "26")
        assert (first["y_um"], first["x_um"]) == ("3", "13")
        assert 0.5 < float(first["score"]) <= 1

    def test_at_most_as_many_as_asked_for(self, tmp_path):
        assert len(written(tmp_path, find(scene()), count=1)) == 1

    def test_one_list_for_all_images(self, tmp_path):
        other = scene()
        for item in other.values():
            item.meta["filename_or_obj"] = "others.tif"
        lines = written(tmp_path, find(scene()), find(other))
        assert {line["image"] for line in lines} == {"cells", "others"}
        assert [line["rank"] for line in lines] == ["1", "2", "3", "4"]

    def test_each_unit_has_columns_of_its_own(self, tmp_path):
        other = scene()
        for item in other.values():
            item.meta |= {"filename_or_obj": "others.tif", "unit": "pixel"}
        for line in written(tmp_path, find(scene()), find(other)):
            stated, other_unit = ("um", "unit") if line["image"] == "cells" else ("unit", "um")
            assert float(line[f"y_{stated}"]) == int(line["y_voxel"]) / 2
            assert line[f"y_{other_unit}"] == "nan"

    def test_nothing_found_leaves_a_header_and_a_warning(self, tmp_path, caplog):
        empty = scene()
        empty["pred"] *= 0
        empty["embeddings"][:1] = -9
        assert written(tmp_path, find(empty)) == []
        assert [message[:29] for message in caplog.messages] == ["found no place to annotate: a"]

    def test_a_list_of_none_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="count must be at least 1, got 0"):
            NextObjectsWriter(tmp_path, 0)
