"""What the annotated objects tell."""

import logging
import math
import re
from dataclasses import replace
from typing import Any

import pytest

from scripts.transforms.survey import Survey
from scripts.transforms.working_grid import (
    fitting_patch,
    inference_smallest,
    inference_spacing,
    remind_of_grid,
    smallest_instance,
    standard_spacing,
    voxel_shape,
    warn_of_dropped_objects,
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


class TestReminder:
    """Weights of a first round on images like the ones of now, with fewer objects."""

    TRAINED = {"spacing": [2.0, 1.0], "voxel_size": [2.0, 1.0], "smallest_instance": 25.1327}

    def test_another_grid_than_the_first_rounds_is_told_and_how_to_keep_it(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        remind_of_grid(self.TRAINED, SURVEY, [4.0, 1.0])
        assert caplog.messages == [
            "spacing: [4.0, 1.0], where the weights to start from were trained on [2.0, 1.0]; to stay there give "
            '--spacing "[2.0,1.0]" --smallest_instance 25.13'
        ]

    @pytest.mark.parametrize("settings", [TRAINED, {**TRAINED, "voxel_size": [1.0, 1.0]}, {"spacing": None}])
    def test_nothing_is_said_of_other_images_or_of_nearly_the_same_grid(
        self, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        remind_of_grid(settings, SURVEY, [2.1, 1.1] if settings == self.TRAINED else [4.0, 1.0])
        assert not caplog.records


class TestDroppedObjects:
    """Of objects with 99, 233 and 5000 voxels, on a working grid of voxels as large as three of the files'."""

    SURVEY = replace(SURVEY, voxel_size=[1.0, 1.0], object_volumes=(5000.0, 233.0, 99.0))

    @pytest.mark.parametrize(("smallest", "min_size", "told"), [(80, 0, "2 of 3"), (136, 100, "1 of 3")])
    def test_those_that_no_instance_can_show_are_told(
        self, smallest: float, min_size: int, told: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        warn_of_dropped_objects(self.SURVEY, [3.0, 1.0], smallest, min_size)
        assert f"{told} annotated objects have fewer than {min_size or 240} voxels" in caplog.text
        assert "--min_size; the smallest of them has 99" in caplog.text

    def test_nothing_is_said_where_all_are_kept(self, caplog: pytest.LogCaptureFixture) -> None:
        warn_of_dropped_objects(self.SURVEY, [3.0, 1.0], smallest=33)
        assert not caplog.records


class TestStandardSpacing:
    def test_objects_get_one_size_along_every_axis(self) -> None:
        assert standard_spacing([0.3, 0.1], [8, 64]) == pytest.approx([0.15, 0.4])

    def test_an_axis_near_its_goal_is_left_alone(self) -> None:
        assert standard_spacing([0.3, 0.1], [14, 18]) == [0.3, 0.1]

    def test_never_finer_than_half_a_voxel(self) -> None:
        assert standard_spacing([1.0], [2]) == [0.5]
