"""The working grid, and the way back."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCropd, Flipd, MapTransform, Rotate90d, SpatialPadd

from scripts.transforms.resampling import (
    ResampleToSpacingd,
    RestoreGridd,
    resample_linear,
    resample_nearest,
    working_shape,
)
from scripts.transforms.voxel_sizes import AssumeVoxelSized


def image(shape: tuple[int, ...], voxel_size: tuple[float, ...], dtype: torch.dtype = torch.float32) -> MetaTensor:
    affine = torch.diag(torch.tensor([*voxel_size, 1.0], dtype=torch.float64))
    meta = {"original_affine": affine.clone(), "spatial_shape": np.array(shape), "filename_or_obj": "cells.tif"}
    values = torch.arange(int(np.prod(shape))).reshape(1, *shape).to(dtype)
    return MetaTensor(values, affine=affine, meta=meta)


class TestResample:
    def test_nearest_picks_the_voxel_under_each_centre(self) -> None:
        assert resample_nearest(torch.tensor([[1, 2, 3, 4]]), (2,)).tolist() == [[2, 4]]
        assert resample_nearest(torch.tensor([[7, 9]]), (4,)).tolist() == [[7, 7, 9, 9]]

    def test_nearest_keeps_ids_that_float32_cannot_hold(self) -> None:
        assert resample_nearest(torch.tensor([[2**24 + 1]]), (3,)).tolist() == [[2**24 + 1] * 3]

    def test_nearest_up_and_down_again_changes_nothing(self) -> None:
        labels = torch.randint(0, 9, (1, 5, 7, 3))
        assert torch.equal(resample_nearest(resample_nearest(labels, (10, 21, 6)), (5, 7, 3)), labels)

    def test_linear_keeps_a_constant_and_a_mean(self) -> None:
        assert torch.allclose(resample_linear(torch.full((1, 8, 8), 3.0), (5, 3)), torch.tensor(3.0))
        noise = torch.rand(1, 64, 64)
        assert resample_linear(noise, (16, 16)).mean().item() == pytest.approx(noise.mean().item(), abs=0.02)

    def test_linear_smooths_before_it_drops_resolution(self) -> None:
        stripes = torch.tensor([0.0, 1.0]).repeat(32).expand(1, 1, 64)
        assert resample_linear(stripes, (1, 16)).std() < 0.1  # without smoothing: aliasing


class TestWorkingGrid:
    def test_shape_follows_the_voxel_sizes(self) -> None:
        assert working_shape((100, 50), (0.3, 0.1), (0.3, 0.2)) == [100, 25]
        assert working_shape((1, 4), (1, 1), (5, 1)) == [1, 4]

    def test_voxel_size_and_shape_after_resampling(self) -> None:
        data = {"image": image((4, 8, 6), (2, 1, 1)), "label": image((4, 8, 6), (2, 1, 1), torch.int64)}
        result = ResampleToSpacingd(["image", "label"], (2, 2, 2), label_keys="label")(data)
        assert result["image"].shape == result["label"].shape == (1, 4, 4, 3)
        assert result["image"].pixdim.tolist() == [2, 2, 2]
        assert result["label"].dtype == torch.int64

    def test_outer_faces_do_not_move(self) -> None:
        resampled = ResampleToSpacingd("image", (2, 2))({"image": image((8, 8), (1, 1))})["image"]
        assert resampled.affine[:2, 2].tolist() == [0.5, 0.5]  # centre of the first voxel of size 2

    def test_no_spacing_no_change(self) -> None:
        data = {"image": image((4, 8), (2, 1))}
        assert ResampleToSpacingd("image", None)(data)["image"] is data["image"]

    def test_refuses_units_that_cannot_be_the_same(self) -> None:
        with pytest.raises(ValueError, match=r"cells.tif: found the voxel size \[1e-05.*units probably differ"):
            ResampleToSpacingd("image", (0.01, 0.01))({"image": image((4, 8), (1e-5, 1e-5))})

    def test_a_working_grid_of_many_times_as_many_voxels_is_refused(self):
        with pytest.raises(ValueError, match="makes 144 of the working grid, 48 x 96 in all, expected at most 64"):
            ResampleToSpacingd("image", (1 / 12, 1 / 12))({"image": image((4, 8), (1, 1))})

    def test_refuses_another_number_of_axes(self) -> None:
        with pytest.raises(ValueError, match="found 2 axes, expected 3"):
            ResampleToSpacingd("image", (1, 1, 1))({"image": image((4, 8), (1, 1))})

    def test_labels_return_to_the_grid_of_the_file(self) -> None:
        source = image((4, 8, 6), (2, 1, 1))
        working = ResampleToSpacingd("image", (2, 2, 2))({"image": source})["image"]
        restored = RestoreGridd("pred")({"image": working, "pred": torch.ones(1, 4, 4, 3, dtype=torch.int32)})["pred"]
        assert restored.shape == (1, 4, 8, 6)
        assert restored.dtype == torch.int32
        assert torch.equal(restored.affine, source.affine)

    def test_small_instances_are_counted_on_the_grid_of_the_file(self) -> None:
        working = ResampleToSpacingd("image", (1, 2))({"image": image((1, 12), (1, 1))})["image"]
        data = {"image": working, "pred": torch.tensor([[[7, 0, 9, 9, 0, 0]]], dtype=torch.int32)}
        restored = RestoreGridd("pred", min_size=3)(data)["pred"]
        assert restored.flatten().tolist() == [0, 0, 0, 0, 9, 9, 9, 9, 0, 0, 0, 0]

    @pytest.mark.parametrize(
        "moved",
        [
            Flipd("image", spatial_axis=1),
            Rotate90d("image"),
            CenterSpatialCropd("image", roi_size=(8, 10)),
            SpatialPadd("image", spatial_size=(8, 13), method="end"),
        ],
        ids=lambda transform: type(transform).__name__,
    )
    def test_an_image_that_lies_elsewhere_than_its_file_is_refused(self, moved: MapTransform) -> None:
        """Its map would not lie on what was seen."""
        data = ResampleToSpacingd("image", (2, 1.5))(moved({"image": image((8, 12), (1, 1))}))
        data["pred"] = torch.ones(1, *data["image"].shape[1:], dtype=torch.int32)
        with pytest.raises(ValueError, match=r"cells\.tif: found an image that was flipped, turned, cut or padded"):
            RestoreGridd("pred")(data)

    def test_voxels_may_be_taken_to_be_longer_than_the_file_says(self) -> None:
        longer = AssumeVoxelSized("image", voxel_size=[3.0, 2.0], stated=[True, True])
        source = image((4, 8), (1, 1))
        source.meta["stated_voxel_size"] = [math.nan, math.nan]
        data = ResampleToSpacingd("image", (2, 2))(longer({"image": source}))
        assert data["image"].shape == (1, 6, 8)
        data["pred"] = torch.ones(1, 6, 8, dtype=torch.int32)
        assert RestoreGridd("pred")(data)["pred"].shape == (1, 4, 8)


class TestMask:
    """A mask of the file with borders where voxels of the working grid, twice as large, have none."""

    def restored(self, classes: list[int] | None) -> list[int]:
        file_mask = image((2, 10), (1, 1), torch.int64)
        file_mask[:] = torch.tensor([0, 24, 24, 24, 24, 26, 26, 26, 9, 0])
        data = {"image": image((2, 10), (1, 1)), "mask": file_mask, "file_mask": file_mask}
        data = ResampleToSpacingd(["image", "mask"], (1, 2), label_keys="mask")(data)
        inside = data["mask"] > 0 if classes is None else torch.isin(data["mask"], torch.tensor(classes))
        of_class = (data["mask"] == 26) & (classes is not None)
        data["pred"] = (inside * (1 + of_class)).to(torch.int32)
        restored = RestoreGridd("pred", classes=classes)(data)["pred"][0]
        assert torch.equal(restored[0], restored[1])
        return restored[0].tolist()

    def test_instances_lie_in_the_mask_of_the_file(self) -> None:
        assert self.restored(None) == [0, 1, 1, 1, 1, 1, 1, 1, 1, 0]

    def test_instances_lie_in_their_class(self) -> None:
        assert self.restored([24, 26]) == [0, 1, 1, 1, 1, 2, 2, 2, 0, 0]
