"""What is refused before it trains or segments wrongly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from image_samples import load
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from PIL import Image

from scripts.transforms.checks import CheckImaged, CheckLabelsd

SHAPE = (1, 3, 5, 7)


def tensor(values: Any, file: str = "a.tif", affine: np.ndarray | None = None) -> MetaTensor:
    meta = {"filename_or_obj": file}
    return MetaTensor(torch.as_tensor(values), meta=meta, affine=np.eye(4) if affine is None else affine)


def ramp(*shape: int) -> torch.Tensor:
    return torch.arange(float(np.prod(shape))).reshape(shape)


def check_image(values: torch.Tensor, file: str = "a.tif", **options: Any) -> dict:
    return CheckImaged("image", **{"spatial_dims": 3, **options})({"image": tensor(values, file)})


def check_label(
    label: torch.Tensor,
    image: torch.Tensor | None = None,
    file: str = "b.tif",
    **options: Any,
) -> torch.Tensor:
    data = {"image": tensor(ramp(*SHAPE) if image is None else image), "label": tensor(label, file)}
    return CheckLabelsd("label", "image", **options)(data)["label"]


class TestImages:
    def test_a_good_image_passes_unchanged(self) -> None:
        image = ramp(*SHAPE)
        assert torch.equal(check_image(image)["image"].as_tensor(), image)

    def test_channels_are_accepted_where_the_network_takes_them(self) -> None:
        check_image(ramp(3, 5, 7), spatial_dims=2, in_channels=3)

    def test_a_2d_image_under_the_3d_config(self) -> None:
        message = r"^a\.tif: found a 2D image, 5 x 7 \(y, x\), expected a 3D image \(add configs/2d\.json .*\)\.$"
        with pytest.raises(ValueError, match=message):
            check_image(ramp(1, 5, 7))

    def test_a_stack_whose_planes_are_called_channels(self) -> None:
        with pytest.raises(
            ValueError, match=r"found a 2D image, 5 x 7 \(y, x\), with 3 channels, expected a 3D.* colours"
        ):
            check_image(ramp(3, 5, 7))

    def test_a_3d_image_under_the_2d_config(self) -> None:
        message = r"^a\.nii: found a 3D image, 7 x 5 x 3 \(x, y, z\), expected a 2D image \(leave out"
        with pytest.raises(ValueError, match=message):
            check_image(ramp(*SHAPE), file="a.nii", spatial_dims=2)

    def test_a_colour_image(self) -> None:
        with pytest.raises(ValueError, match=r"found 3 channels, expected 1, the number given as in_channels in"):
            check_image(ramp(3, 3, 5, 7))

    def test_a_grey_image_where_the_network_takes_colours(self) -> None:
        with pytest.raises(ValueError, match=r"found 1 channel, expected 3, the number given as in_channels in"):
            check_image(ramp(*SHAPE), in_channels=3)

    @pytest.mark.parametrize("file", ["a.tif", "a.png"])
    def test_a_fourth_channel_that_the_file_calls_transparency(self, tmp_path: Path, file: str) -> None:
        """As tifffile does where it is given an array (Y, X, 4) and no more."""
        Image.fromarray(np.ones((5, 7, 4), np.uint8)).save(tmp_path / file)
        check = CheckImaged("image", spatial_dims=2, in_channels=4)
        with pytest.raises(ValueError, match=r"found 3 channels beside one that is .* transparency, expected 4, the"):
            check({"image": load(tmp_path / file)})

    def test_a_label_map_in_the_place_of_an_image(self) -> None:
        image = tensor(ramp(1, 5, 7), "plant_label.png")
        image.meta["has_palette"] = True
        with pytest.raises(ValueError, match=r"^plant_label\.png: found colours from a palette, .*, expected grey"):
            CheckImaged("image", spatial_dims=2)({"image": image})

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_values_that_are_no_numbers(self, value: float) -> None:
        image = ramp(*SHAPE)
        image[0, 1, 2, 3:5] = value
        with pytest.raises(ValueError, match="found 2 values that are infinite or not a number"):
            check_image(image)

    def test_a_constant_image(self) -> None:
        with pytest.raises(ValueError, match="found the value 7 everywhere, expected an image with contrast"):
            check_image(torch.full(SHAPE, 7.0))

    def test_a_constant_image_that_is_told(self) -> None:
        check = CheckImaged("image", spatial_dims=3, allow_blank=True)
        assert check({"image": tensor(ramp(*SHAPE), "a.tif")})["is_blank"] is False
        assert check({"image": tensor(torch.full(SHAPE, 7.0), "a.tif")})["is_blank"] is True

    def test_a_constant_colour(self) -> None:
        colour = torch.tensor([7.0, 8.0]).reshape(2, 1, 1).expand(2, 5, 7)
        check = CheckImaged("image", spatial_dims=2, in_channels=2, allow_blank=True)
        assert check({"image": tensor(colour, "a.tif")})["is_blank"] is True
        with pytest.raises(ValueError, match="found the value 7, 8 everywhere, expected an image with contrast"):
            CheckImaged("image", spatial_dims=2, in_channels=2)({"image": tensor(colour, "a.tif")})

    def test_one_channel_with_contrast_is_enough(self) -> None:
        image = torch.cat([torch.full((1, 5, 7), 7.0), ramp(1, 5, 7)])
        assert torch.equal(check_image(image, spatial_dims=2, in_channels=2)["image"].as_tensor(), image)

    def test_no_voxel(self) -> None:
        with pytest.raises(ValueError, match="found no voxel, expected an image with contrast"):
            check_image(torch.zeros(1, 0, 5, 7))


class TestLabels:
    def ids(self, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        ids = torch.zeros(SHAPE, dtype=dtype)
        ids[0, 0, 1:3, 1:4] = 5
        ids[0, 2, 0:2, 5:7] = 9
        return ids

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
    def test_values_stay_and_the_type_becomes_int32(self, dtype: torch.dtype) -> None:
        label = check_label(self.ids(dtype))
        assert label.dtype == torch.int32
        assert torch.equal(label.as_tensor(), self.ids())

    def test_ids_beyond_32_bits_stay_int64(self) -> None:
        ids = self.ids(torch.int64) * 2**31
        label = check_label(ids)
        assert label.dtype == torch.int64
        assert torch.equal(label.as_tensor(), ids)

    def test_the_label_takes_over_the_grid_of_the_image(self) -> None:
        image = tensor(ramp(*SHAPE), affine=np.diag([0.3, 0.1, 0.1, 1]))
        label = tensor(self.ids(), affine=np.diag([3e-4, 1e-4, 1e-4, 1]))  # the same, in millimetres
        checked = CheckLabelsd("label", "image")({"image": image, "label": label})["label"]
        assert torch.equal(checked.affine, image.affine)
        assert checked.meta["filename_or_obj"] == "a.tif"
        assert label.affine[0, 0] == 3e-4

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_floats(self, dtype: torch.dtype) -> None:
        with pytest.raises(ValueError, match=r"^b\.tif: found a label map of type float\d\d, expected integer ids"):
            check_label(self.ids(dtype))

    def test_negative_ids(self) -> None:
        with pytest.raises(ValueError, match=r"found the negative id -1, expected 0 \(unlabelled\) and ids"):
            check_label(self.ids() - 1)

    @pytest.mark.parametrize("dtype", [np.uint8, np.int32])
    def test_slices_that_the_file_calls_colours(self, dtype: type, tmp_path: Path) -> None:
        """As a TIFF that tifffile, or napari, is not told more about."""
        slices = self.ids()[0].numpy().astype(dtype)
        tifffile.imwrite(tmp_path / "b.tif", slices, photometric="rgb", planarconfig="separate")
        label = load(tmp_path / "b.tif", dtype=None)
        assert label.shape == (3, 5, 7)  # (C, Y, X)
        image = tensor(ramp(*SHAPE), affine=np.diag([2.0, 1.0, 1.0, 1.0]))
        checked = CheckLabelsd("label", "image")({"image": image, "label": label})["label"]
        assert torch.equal(checked.as_tensor(), self.ids())
        assert torch.equal(checked.affine, image.affine)
        assert checked.meta["filename_or_obj"] == str(tmp_path / "b.tif")

    def test_four_slices_that_the_file_calls_colours_and_transparency(self, tmp_path: Path) -> None:
        slices = np.arange(4 * 5 * 7, dtype=np.uint16).reshape(4, 5, 7)
        tifffile.imwrite(tmp_path / "b.tif", slices, photometric="rgb", planarconfig="separate")
        label = load(tmp_path / "b.tif", dtype=None)
        checked = CheckLabelsd("label", "image")({"image": tensor(ramp(1, 4, 5, 7)), "label": label})["label"]
        assert np.array_equal(checked.numpy()[0], slices)

    def test_several_channels(self) -> None:
        with pytest.raises(ValueError, match="found a label map of 3 channels, expected one channel of integer ids; c"):
            check_label(self.ids().expand(3, 3, 5, 7))

    def test_no_label_map_where_none_is_needed(self) -> None:
        CheckLabelsd("mask", "image", allow_missing_keys=True)({"image": tensor(ramp(*SHAPE))})

    def test_another_shape_is_told_in_the_order_of_each_file(self) -> None:
        message = (
            r"^b\.nii\.gz: found a label map of shape 7 x 5 x 2 \(x, y, z\), "
            r"expected the shape 3 x 5 x 7 \(z, y, x\) of a\.tif\.$"
        )
        with pytest.raises(ValueError, match=message):
            check_label(self.ids()[:, :2], file="b.nii.gz")

    def test_swapped_axes(self) -> None:
        with pytest.raises(ValueError, match=r"shape 7 x 5 x 3 \(z, y, x\), expected the shape 3 x 5 x 7"):
            check_label(self.ids().permute(0, 3, 2, 1))

    def test_no_object(self) -> None:
        message = "found no annotated object, only the values 0, expected at least one object id"
        with pytest.raises(ValueError, match=message):
            check_label(self.ids() * 0)

    def test_background_and_ignored_voxels_are_no_objects(self) -> None:
        with pytest.raises(ValueError, match="only the values 0, 5, 9"):
            check_label(self.ids(), background_label=5, ignore_label=9)
        check_label(self.ids(), background_label=5)

    def test_an_empty_label_is_accepted_on_request(self) -> None:
        assert check_label(self.ids() * 0, allow_empty=True).sum() == 0


def test_named_in_a_config() -> None:
    parser = ConfigParser(
        {
            "spatial_dims": 3,
            "background_label": None,
            "checks": {
                "_target_": "Compose",
                "transforms": [
                    {
                        "_target_": "scripts.transforms.checks.CheckImaged",
                        "keys": "image",
                        "spatial_dims": "@spatial_dims",
                    },
                    {
                        "_target_": "scripts.transforms.checks.CheckLabelsd",
                        "label_key": "label",
                        "image_key": "image",
                        "background_label": "@background_label",
                    },
                ],
            },
        }
    )
    label = torch.zeros(SHAPE, dtype=torch.int64)
    label[0, 1] = 4
    checked = parser.get_parsed_content("checks")({"image": tensor(ramp(*SHAPE)), "label": tensor(label)})
    assert checked["label"].dtype == torch.int32
