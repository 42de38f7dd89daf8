"""Results in the order of axes in which MONAI Label writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.files.monai_label import ReverseAxesForMonaiLabeld

REQUEST = {"image_path": "/studies/image.nii.gz"}


def segmented(shape: tuple[int, ...], affine: np.ndarray, is_placed: bool) -> dict[str, Any]:
    """An image on a working grid half as fine, and its result on the grid of the file."""
    placement = affine if is_placed else np.full((4, 4), np.nan)
    meta = {"original_affine": affine, "spatial_shape": np.array(shape), "placement": placement}
    image = MetaTensor(torch.zeros(1, *(side // 2 for side in shape)), meta={**meta, "affine": 2 * affine})
    pred = torch.arange(np.prod(shape), dtype=torch.int32).reshape(1, *shape)
    return {"image": image, "pred": MetaTensor(pred, meta={**meta, "affine": affine})}


def test_the_axes_of_a_volume_are_reversed() -> None:
    affine = np.array([[0.0, 0.0, 0.5, 5.0], [0.0, 0.7, 0.0, -2.0], [1.1, 0.0, 0.0, 7.0], [0.0, 0.0, 0.0, 1.0]])
    data = segmented((2, 4, 6), affine, is_placed=True)
    result = ReverseAxesForMonaiLabeld("pred")({**data, **REQUEST})
    assert result["pred"].shape == (1, 6, 4, 2)
    assert result["pred"].dtype == torch.int32
    for z, y, x in np.ndindex(2, 4, 6):
        assert result["pred"][0, x, y, z] == data["pred"][0, z, y, x]
    expected = np.diag([0.5, 0.7, 1.1, 1.0])
    expected[:3, 3] = [5.0, -2.0, 7.0]
    for meta in (result["image"].meta, result["pred"].meta, result["image_meta_dict"]):
        np.testing.assert_array_equal(meta["affine"], expected)
        assert list(meta["spatial_shape"]) == [6, 4, 2]


@pytest.mark.parametrize("sizes", [[1.1, 0.7, 0.5], [0.7, 0.5]])
def test_voxel_sizes_go_with_their_axes(sizes: list[float]) -> None:
    """Of a TIFF file, which tells no place and no direction."""
    data = segmented((2, 4, 6)[-len(sizes) :], np.diag([*sizes, 1.0]), is_placed=False)
    result = ReverseAxesForMonaiLabeld("pred")({**data, **REQUEST})
    np.testing.assert_array_equal(result["image_meta_dict"]["affine"], np.diag([*sizes[::-1], 1.0]))


def test_a_volume_that_lies_on_its_side_keeps_its_place() -> None:
    """The first axis of its file runs along z."""
    data = segmented((2, 4, 6), np.diag([1.1, 0.7, 0.5, 1.0]), is_placed=True)
    result = ReverseAxesForMonaiLabeld("pred")({**data, **REQUEST})
    np.testing.assert_array_equal(result["image_meta_dict"]["affine"][:3, :3], np.diag([1.1, 0.7, 0.5])[:, ::-1])


@pytest.mark.parametrize("shape", [(2, 4, 6), (4, 6)])
def test_of_others_nothing_changes(shape: tuple[int, ...]) -> None:
    data = segmented(shape, np.eye(len(shape) + 1), is_placed=True)
    result = ReverseAxesForMonaiLabeld("pred")(data)
    assert result.keys() == data.keys()
    assert result["pred"] is data["pred"]
    assert result["image"] is data["image"]
