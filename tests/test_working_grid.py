"""The working voxel size of a training."""

import pytest
import torch
from monai.data import MetaTensor

from scripts.working_grid import working_spacing


def load(entry: dict) -> dict:
    """A 32 x 64 image of voxel size (2, 1) with one whole object of 8 x 32 voxels, and painted background."""
    affine = torch.diag(torch.tensor([2.0, 1.0, 1.0]))
    labels = torch.zeros(1, 32, 64, dtype=torch.int32)
    labels[0, 4:12, 10:42] = 1
    labels[0, 20:] = 9
    return {"image": MetaTensor(labels.float(), affine=affine), "label": MetaTensor(labels, affine=affine)}


def test_objects_get_their_standard_size() -> None:
    assert working_spacing([{}], load, "objects", background_label=9) == [1.0, 2.0]  # 16 x 16 voxels


def test_image_keeps_the_voxel_size() -> None:
    assert working_spacing([{}], load, "image") == [2.0, 1.0]


def test_numbers_are_used_as_they_are() -> None:
    assert working_spacing([], load, [3, 4]) == [3.0, 4.0]


def test_refuses_anything_else() -> None:
    with pytest.raises(ValueError, match="got 'voxels'"):
        working_spacing([{}], load, "voxels")
    with pytest.raises(ValueError, match=r"positive numbers, got \[0, 1\]"):
        working_spacing([{}], load, [0, 1])
