"""What the annotated objects tell."""

import pytest
import torch
from monai.data import MetaTensor

from scripts.working_grid import Survey, smallest_instance, survey_objects, working_spacing

SURVEY = Survey(voxel_size=[2.0, 1.0], object_extents=[8, 32])


def load(entry: dict) -> dict:
    """A 32 x 64 image of voxel size (2, 1) with one whole object of 8 x 32 voxels, and painted background."""
    affine = torch.diag(torch.tensor([2.0, 1.0, 1.0]))
    labels = torch.zeros(1, 32, 64, dtype=torch.int32)
    labels[0, 4:12, 10:42] = 1
    labels[0, 20:] = 9
    return {"image": MetaTensor(labels.float(), affine=affine), "label": MetaTensor(labels, affine=affine)}


def test_a_survey_measures_the_objects() -> None:
    assert survey_objects([{}], load, background_label=9) == SURVEY


class TestWorkingSpacing:
    def test_objects_get_their_standard_size(self) -> None:
        assert working_spacing(SURVEY, "objects") == [1.0, 2.0]  # 16 x 16 voxels

    def test_image_keeps_the_voxel_size(self) -> None:
        assert working_spacing(SURVEY, "image") == [2.0, 1.0]

    def test_numbers_are_used_as_they_are(self) -> None:
        assert working_spacing(SURVEY, [3, 4]) == [3.0, 4.0]

    def test_refuses_anything_else(self) -> None:
        with pytest.raises(ValueError, match="got 'voxels'"):
            working_spacing(SURVEY, "voxels")
        with pytest.raises(ValueError, match=r"positive numbers, got \[0, 1\]"):
            working_spacing(SURVEY, [0, 1])


class TestSmallestInstance:
    def test_a_sixteenth_of_the_typical_ellipse(self) -> None:
        assert smallest_instance(SURVEY) == 13  # pi / 4 * 8 * 32 = 201

    def test_a_sixteenth_of_the_typical_ellipsoid(self) -> None:
        assert smallest_instance(Survey([1.0] * 3, [16, 16, 16])) == 134  # pi / 6 * 16^3 = 2145

    def test_at_least_one_voxel(self) -> None:
        assert smallest_instance(Survey([1.0] * 2, [1, 2])) == 1
