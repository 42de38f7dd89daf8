"""What the annotated objects tell."""

import logging
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.transforms.working_grid import (
    LEAST_ERROR,
    ObjectSizes,
    Survey,
    extent_errors,
    fitting_patch,
    inference_smallest,
    inference_spacing,
    measure_objects,
    smallest_instance,
    standard_spacing,
    survey_objects,
    typical_extents,
    typical_volume,
    voxel_shape,
    working_spacing,
)

SURVEY = Survey(
    object_count=9,
    voxel_size=[2.0, 1.0],
    object_extents=[8, 32],
    extent_errors=[0.5, 0.5],
    object_volume=200,
    smallest_sides=[64.0, 64.0],
    stated_axes=[True] * 2,
)


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


def extents(*label_maps: torch.Tensor) -> list[float]:
    return typical_extents([measure_objects(labels) for labels in label_maps])


class TestTypicalExtents:
    def test_of_a_ball_its_diameter(self) -> None:
        grid = torch.stack(torch.meshgrid(*[torch.arange(40.0) - 20] * 3, indexing="ij"))
        ball = (grid.square().sum(0) < 15**2).int() * 70000
        assert extents(ball) == pytest.approx([30] * 3, rel=0.03)

    def test_along_each_axis(self) -> None:
        labels = torch.zeros(20, 20, dtype=torch.int)
        labels[1:4, 2:7] = 1
        assert extents(labels) == pytest.approx([4 / math.pi * 3, 4 / math.pi * 5])

    def test_long_and_bent_objects_are_as_thick_as_they_are(self) -> None:
        straight, bent = torch.zeros(2, 30, 30, dtype=torch.int)
        straight[5:9, 2:28] = 1
        bent[5:9, 2:28] = 1
        bent[9:27, 2:6] = 1
        assert extents(straight)[0] == pytest.approx(4 / math.pi * 4)
        assert max(extents(bent)) < 4 / math.pi * 10  # the box around it measures 22 x 26

    def test_an_image_full_of_objects_counts_as_one(self) -> None:
        full = torch.zeros(40, 40, dtype=torch.int)
        for number in range(9):
            row, column = 13 * (number // 3), 13 * (number % 3)
            full[row : row + 12, column : column + 12] = number + 1
        sparse = torch.zeros(40, 40, dtype=torch.int)
        sparse[3:9, 3:9], sparse[3:9, 13:19] = 1, 2
        assert extents(full, sparse, sparse) == extents(sparse)
        images = [measure_objects(labels) for labels in (full, sparse, sparse)]
        assert typical_volume(images) == 6 * 6

    def test_of_two_images_that_say_as_much_the_middle(self) -> None:
        fine, coarse = torch.zeros(2, 40, 40, dtype=torch.int)
        for number, row in enumerate((2, 12, 22), start=1):
            fine[row : row + 8, 2:10], coarse[row : row + 9, 2:11] = number, number
        assert extents(fine, coarse) == extents(coarse, fine)
        assert extents(fine, coarse) == pytest.approx([4 / math.pi * (8 + 9) / 2] * 2)

    def test_an_image_with_a_chip_counts_less_than_one(self) -> None:
        whole, chip = torch.zeros(2, 40, 40, dtype=torch.int)
        for number, corner in enumerate((1, 14, 27), start=1):
            whole[corner : corner + 12, corner : corner + 12] = number
        chip[0, 5:8] = 1
        assert extents(whole, chip) == extents(whole)

    def test_images_without_objects_do_not_count(self) -> None:
        labels = torch.zeros(20, 20, dtype=torch.int)
        labels[2:8, 2:8] = 1
        assert extents(labels, torch.zeros_like(labels)) == extents(labels)
        assert typical_volume([measure_objects(labels), measure_objects(torch.zeros_like(labels))]) == 6 * 6

    def test_chips_count_little_and_one_giant_does_not_decide(self) -> None:
        labels = torch.zeros(60, 60, dtype=torch.int)
        for chip in range(5):
            labels[0, 3 * chip : 3 * chip + 2] = chip + 1
        for cell in range(6):
            labels[10:20, 10 * cell : 10 * cell + 10] = 10 + cell
        labels[30:60, :] = 99
        assert extents(labels) == pytest.approx([4 / math.pi * 10] * 2)

    def test_of_all_images_together_whatever_their_order(self) -> None:
        small, large = torch.zeros(2, 30, 30, dtype=torch.int)
        small[2:6, 2:6] = 1
        large[2:22, 2:22] = 1
        assert extents(small, large) == extents(large, small) == extents(large)

    def test_refuses_maps_without_objects(self) -> None:
        with pytest.raises(ValueError, match="no annotated object"):
            extents(torch.zeros(3, 3, dtype=torch.int))


def objects(*chords: float) -> ObjectSizes:
    """Of one image, equally large, so thick along the first axis, and all 10 voxels along the second one."""
    return ObjectSizes(np.full(len(chords), 100), np.stack([chords, np.full(len(chords), 10.0)], axis=1))


class TestExtentErrors:
    def test_objects_that_are_alike_say_the_more_the_more_they_are(self) -> None:
        assert extent_errors([objects(*[8.0] * 4)]) == pytest.approx([LEAST_ERROR / 2] * 2)
        assert extent_errors([objects(*[8.0] * 100)]) == pytest.approx([LEAST_ERROR / 10] * 2)

    def test_objects_that_differ_say_little_along_the_axis_in_which_they_do(self) -> None:
        along, across = extent_errors([objects(4.0, 4.0, 4.0, 4.0, 16.0, 16.0, 16.0, 16.0)])
        assert across == pytest.approx(LEAST_ERROR / 8**0.5)
        assert math.log(2) / 2 < along < math.log(4) / 2  # the median is one of the two, or seldom the mean

    def test_of_a_normal_distribution_that_of_its_median(self) -> None:
        sizes = np.exp(np.random.default_rng(1).normal(3, 0.8, 400))
        assert extent_errors([objects(*sizes)])[0] == pytest.approx(1.25 * 0.8 / 400**0.5, rel=0.3)

    def test_in_whatever_order_and_unit(self) -> None:
        sizes = [3.0, 5.0, 4.0, 9.0, 6.0]
        expected = extent_errors([objects(*sizes)])
        assert extent_errors([objects(*reversed(sizes))]) == expected
        assert extent_errors([objects(*sizes[:2]), objects(*sizes[2:])])[0] == pytest.approx(expected[0], rel=0.5)
        assert extent_errors([objects(*[7 * size for size in sizes])]) == pytest.approx(expected)


class TestWorkingSpacing:
    def test_objects_get_their_standard_size(self) -> None:
        assert working_spacing(SURVEY, "objects") == [1.0, 2.0]  # 16 x 16 voxels

    @pytest.mark.parametrize(("count", "level"), [(4, logging.WARNING), (5, logging.INFO)])
    def test_few_objects_say_little(self, count: int, level: int, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        working_spacing(replace(SURVEY, object_count=count), "objects")
        (record,) = caplog.records
        assert record.levelno == level
        assert f"[1.0, 2.0], as the annotated objects, {count}, mostly measure [8.0, 32.0] voxels" in record.message
        assert ("give --object_size" in record.message) == (level == logging.WARNING)

    def test_image_keeps_the_voxel_size(self) -> None:
        assert working_spacing(SURVEY, "image") == [2.0, 1.0]

    def test_numbers_are_used_as_they_are(self) -> None:
        assert working_spacing(SURVEY, [3, 4]) == [3.0, 4.0]

    def test_refuses_anything_else(self) -> None:
        with pytest.raises(ValueError, match="got 'voxels'"):
            working_spacing(SURVEY, "voxels")
        with pytest.raises(ValueError, match=r"positive numbers, got \[0, 1\]"):
            working_spacing(SURVEY, [0, 1])


class TestInferenceSpacing:
    def test_that_of_the_training(self) -> None:
        assert inference_spacing(None, [3.0, 1.0]) == [3.0, 1.0]

    def test_that_of_the_image_where_the_weights_know_none(self) -> None:
        assert inference_spacing(None, None) is None

    def test_a_sixteenth_of_the_objects_when_their_size_is_given(self) -> None:
        assert inference_spacing([8, 16.0, 4.0], [3.0, 1.0, 1.0]) == [0.5, 1.0, 0.25]

    @pytest.mark.parametrize("size", [[0, 1], [-1.0], [], "large", 12.0, ["a", 1]])
    def test_refuses_anything_else(self, size: Any) -> None:
        with pytest.raises(ValueError, match="list of positive numbers, one an axis, got " + re.escape(repr(size))):
            inference_spacing(size, None)


class TestVoxelShape:
    def test_a_grid_on_which_objects_are_round_has_cubic_voxels(self) -> None:
        assert voxel_shape(SURVEY, working_spacing(SURVEY, "objects")) == [1.0, 1.0]

    def test_voxels_are_long_where_objects_measure_few_of_them(self) -> None:
        assert voxel_shape(SURVEY, working_spacing(SURVEY, "image")) == [4.0, 1.0]  # 8 x 32 voxels

    def test_the_unit_of_the_files_does_not_matter(self) -> None:
        micrometres = replace(SURVEY, voxel_size=[0.002, 0.001])
        assert voxel_shape(micrometres, [0.004, 0.003]) == pytest.approx(voxel_shape(SURVEY, [4.0, 3.0]))


class TestFittingPatch:
    def test_the_largest_where_it_fits(self) -> None:
        assert fitting_patch(SURVEY, [1.0, 1.0], largest=[32, 32], divisor=[8, 8]) == [32, 32]

    def test_less_in_a_thin_image_but_a_multiple_of_the_divisor(self) -> None:
        assert fitting_patch(SURVEY, [3.0, 1.0], largest=[32, 32], divisor=[8, 8]) == [16, 32]  # 21 x 64 voxels

    def test_never_less_than_the_network_takes(self) -> None:
        assert fitting_patch(SURVEY, [30.0, 1.0], largest=[32, 32], divisor=[8, 8]) == [8, 32]

    def test_refuses_another_number_of_axes(self) -> None:
        with pytest.raises(ValueError, match=r"largest must have 2 entries, one an axis, got \[32, 32, 32\]"):
            fitting_patch(SURVEY, [1.0, 1.0], largest=[32, 32, 32], divisor=[8, 8])


class TestSmallestInstance:
    def test_an_eighth_of_the_typical_ellipse(self) -> None:
        assert smallest_instance(SURVEY, SURVEY.voxel_size) == pytest.approx(math.pi / 4 * 8 * 32 / 8)

    def test_a_sixteenth_of_the_typical_ellipsoid(self) -> None:
        survey = Survey(9, [1.0] * 3, [16, 16, 16], [0.1] * 3, 0.0, [50.0] * 3, [True] * 3)
        assert smallest_instance(survey, [1.0] * 3) == pytest.approx(math.pi / 6 * 16**2)

    def test_in_voxels_of_the_working_grid(self) -> None:
        survey = Survey(9, [1.0] * 3, [32, 32, 16], [0.1] * 3, 0.0, [50.0] * 3, [True] * 3)
        assert smallest_instance(survey, [2.0, 2.0, 1.0]) == pytest.approx(math.pi / 6 * 16**2)

    def test_long_objects_are_larger_than_their_thickness_tells(self) -> None:
        assert smallest_instance(replace(SURVEY, object_volume=800), SURVEY.voxel_size) == 100

    def test_giants_do_not_forbid_small_objects(self) -> None:
        giants = replace(SURVEY, object_volume=1e6)
        assert smallest_instance(giants, SURVEY.voxel_size) == pytest.approx(math.pi / 4 * 8 * 32 / 2)

    def test_what_the_user_says_counts_voxels_of_the_files(self) -> None:
        assert smallest_instance(replace(SURVEY, voxel_size=[0.5] * 2), [1.0, 2.0], min_size=80) == 10

    def test_without_annotation_what_the_training_found(self) -> None:
        assert inference_smallest(None, trained=77.5) == 77.5

    def test_objects_of_a_given_size_have_the_standard_one(self) -> None:
        assert inference_smallest([3.0, 0.1], trained=50) == pytest.approx(math.pi / 4 * 16**2 / 8)

    def test_a_size_that_is_none(self) -> None:
        with pytest.raises(ValueError, match="object_size must be a list of positive numbers, one an axis, got 16"):
            inference_smallest(16, trained=50)


class TestStandardSpacing:
    def test_objects_get_one_size_along_every_axis(self) -> None:
        assert standard_spacing([0.3, 0.1], [8, 64], object_size=16) == pytest.approx([0.15, 0.4])

    def test_an_axis_near_its_goal_is_left_alone(self) -> None:
        assert standard_spacing([0.3, 0.1], [14, 18], object_size=16) == [0.3, 0.1]

    def test_never_finer_than_half_a_voxel(self) -> None:
        assert standard_spacing([1.0], [2], object_size=16) == [0.5]


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
        "mask.tif: found one object in 2 pieces, expected an id for each object; if it is a mask, number them"
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
