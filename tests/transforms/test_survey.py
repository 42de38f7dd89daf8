"""What the training files have in common."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.transforms.object_sizes import LEAST_ERROR
from scripts.transforms.survey import survey_objects
from scripts.transforms.working_grid import fitting_patch, inference_smallest, smallest_instance, working_spacing


def load(entry: dict) -> dict:
    """A 32 x 64 image of voxel size (2, 1) with one whole object of 8 x 32 voxels, and painted background."""
    affine = torch.diag(torch.tensor([2.0, 1.0, 1.0]))
    labels = torch.zeros(1, 32, 64, dtype=torch.int32)
    labels[0, 4:12, 10:42] = 1
    labels[0, 20:] = 9
    return {"image": MetaTensor(labels.float(), affine=affine), "label": MetaTensor(labels, affine=affine)}


def test_a_survey_measures_the_objects() -> None:
    survey = survey_objects([{}], load, background_label=9)
    assert survey.voxel_size == [2.0, 1.0]
    assert survey.smallest_sides == [64.0, 64.0]
    assert survey.object_extents == pytest.approx([4 / math.pi * 8, 4 / math.pi * 32])
    assert survey.extent_errors == [LEAST_ERROR] * 2
    assert survey.object_volume == 8 * 32
    assert survey.object_count == 1


def test_a_patch_lies_in_all_images() -> None:
    def load_part(entry: dict) -> dict:
        rows, columns = entry["shape"]
        return {key: values[:, :rows, :columns] for key, values in load(entry).items()}

    survey = survey_objects([{"shape": (16, 64)}, {"shape": (32, 48)}], load_part, background_label=9)
    assert survey.smallest_sides == [32.0, 48.0]  # in the unit of the files, for voxels of (2, 1)
    assert fitting_patch(survey, [2.0, 1.0], largest=[64, 64], divisor=[8, 8]) == [16, 48]


def test_ignored_voxels_divide_no_object() -> None:
    def load_slab(entry: dict) -> dict:
        loaded = load(entry)
        loaded["label"][..., 20:24] = 8  # through the object, which spans 32 columns
        return loaded

    survey = survey_objects([{}], load_slab, background_label=9, ignore_label=8)
    assert survey.object_extents == pytest.approx([4 / math.pi * 8, 4 / math.pi * (32 - 4)])


def test_who_knows_how_large_objects_are_says_so() -> None:
    survey = survey_objects([{}], load, background_label=9, object_size=[32.0, 24.0])
    assert survey.object_extents == [16.0, 24.0]  # voxels of (2, 1)
    assert survey.extent_errors == [0.0, 0.0]
    assert survey.object_volume == pytest.approx(math.pi / 4 * 16 * 24)
    assert survey.object_count == 1
    assert working_spacing(survey) == [2.0, 1.5]
    assert smallest_instance(survey, [2.0, 1.5]) == pytest.approx(inference_smallest([32.0, 24.0], trained=0))


def test_files_that_state_no_voxel_size_are_taken_to_be_like_those_that_do() -> None:
    def load_stated(entry: dict) -> dict:
        loaded = load(entry)
        loaded["image"].meta["stated_voxel_size"] = entry["stated"]
        return loaded

    stated, unstated = {"stated": [2.0, 1.0]}, {"stated": [math.nan, 1.0]}  # along the first axis 2.0 or nothing
    assert survey_objects([unstated, unstated], load_stated).stated_axes == [False, True]
    assert survey_objects([unstated, stated], load_stated).stated_axes == [True, True]


@pytest.mark.parametrize("factor", [2, 8])
def test_objects_are_as_large_in_finer_voxels(factor: int) -> None:
    """Two files of the same objects, one of them with voxels that are `factor` times shorter along the second axis."""

    def load_finer(entry: dict) -> dict:
        loaded = load(entry)
        affine = torch.diag(torch.tensor([2.0, 1.0 / entry["factor"], 1.0]))
        labels = loaded["label"].as_tensor().repeat_interleave(entry["factor"], dim=2)
        return {"image": MetaTensor(labels.float(), affine=affine), "label": MetaTensor(labels, affine=affine)}

    alone = survey_objects([{"factor": 1}], load_finer, background_label=9)
    both = survey_objects([{"factor": 1}, {"factor": factor}], load_finer, background_label=9)
    for survey in (alone, both):
        assert np.multiply(survey.object_extents, survey.voxel_size) == pytest.approx([64 / math.pi, 128 / math.pi])
        assert survey.object_volume * math.prod(survey.voxel_size) == pytest.approx(8 * 2 * 32)
    assert working_spacing(both) == pytest.approx(working_spacing(alone))
    assert smallest_instance(both, [2.0, 2.0]) == pytest.approx(smallest_instance(alone, [2.0, 2.0]))


def test_beside_lengths_numbers_of_pixels_say_nothing() -> None:
    def load_unit(entry: dict) -> dict:
        loaded = load(entry)
        sizes, loaded["image"].meta["unit"] = entry["sizes"], entry["unit"]
        loaded["image"].meta["stated_voxel_size"] = np.array(sizes)
        loaded["image"].affine = torch.diag(torch.tensor([*sizes, 1.0], dtype=torch.float64))
        return loaded

    lengths = {"sizes": [0.4, 0.2], "unit": "micrometre"}
    pixels = {"sizes": [2.0, 1.1], "unit": "pixel"}
    together, alone = survey_objects([lengths, pixels, pixels], load_unit), survey_objects([pixels], load_unit)
    assert (together.voxel_size, together.in_pixels) == ([0.4, 0.2], False)
    assert (alone.voxel_size, alone.in_pixels) == ([2.0, 1.1], True)
    assert together.smallest_sides == pytest.approx(survey_objects([lengths], load_unit).smallest_sides)
    assert not survey_objects([lengths], load_unit).in_pixels


def test_a_mask_of_all_objects_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def load_mask(entry: dict) -> dict:
        loaded = load(entry)
        loaded["label"][0, 2:10, 48:60] = entry["id"]
        loaded["label"].meta["filename_or_obj"] = "mask.tif"
        return loaded

    survey_objects([{"id": 2}], load_mask, background_label=9)  # two objects
    assert not caplog.records
    survey_objects([{"id": 1}], load_mask, background_label=9)
    assert caplog.messages == [
        "mask.tif: found ids in several pieces: 1, expected one whole object for each id; number the objects of a "
        "mask, paint all slices of one"
    ]


def test_two_objects_that_fill_the_image_are_no_mask(caplog: pytest.LogCaptureFixture) -> None:
    def load_full(entry: dict) -> dict:
        loaded = load(entry)
        loaded["label"][:, :16], loaded["label"][:, 16:] = 1, 2
        return loaded

    survey_objects([{}], load_full)
    assert not caplog.records


def test_crumbs_of_one_object_do_not_make_a_mask(caplog: pytest.LogCaptureFixture) -> None:
    def load_crumb(entry: dict) -> dict:
        loaded = load(entry)
        loaded["label"][0, 2:4, 48:60] = 1
        return loaded

    survey_objects([{}], load_crumb, background_label=9)
    assert not caplog.records


def test_an_id_that_no_label_map_holds_is_told(caplog: pytest.LogCaptureFixture) -> None:
    survey_objects([{}], load, background_label=9)
    assert not caplog.records
    survey_objects([{}, {}], load, background_label=9, ignore_label=8)
    assert caplog.messages == ["ignore_label: found no voxel of the id 8 in any label map"]


def test_training_on_no_image_is_refused() -> None:
    """As MONAI Label asks for where nothing is annotated yet."""
    with pytest.raises(ValueError, match="train#dataset#data: found no image, expected at least one"):
        survey_objects([], dict)
