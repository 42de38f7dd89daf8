"""The working grid."""

import pytest
import torch
from image_samples import image

from scripts.transforms.resampling import (
    ResampleToSpacingd,
    resample_linear,
    resample_nearest,
    working_shape,
)


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

    def test_refuses_a_spacing_far_below_the_voxel_size_along_any_axis(self) -> None:
        with pytest.raises(ValueError, match=r"found the voxel size \[1\.0, 1\.0\].*units probably differ"):
            ResampleToSpacingd("image", (1, 1 / 20))({"image": image((4, 8), (1, 1))})

    def test_a_working_grid_of_many_times_as_many_voxels_is_refused(self):
        with pytest.raises(ValueError, match="makes 144 of the working grid, 48 x 96 in all, expected at most 64"):
            ResampleToSpacingd("image", (1 / 12, 1 / 12))({"image": image((4, 8), (1, 1))})

    def test_refuses_another_number_of_axes(self) -> None:
        with pytest.raises(ValueError, match="found 2 axes, expected 3"):
            ResampleToSpacingd("image", (1, 1, 1))({"image": image((4, 8), (1, 1))})
