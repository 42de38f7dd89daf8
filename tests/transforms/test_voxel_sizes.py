"""How long voxels are taken to be where files do not agree to say it."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.transforms.resampling import ResampleToSpacingd, working_voxels_per_voxel
from scripts.transforms.voxel_sizes import AssumeVoxelSized, assumed_voxel_sizes


def image(voxel_size: tuple[float, ...], *stated: float, unit: str = "micrometre") -> MetaTensor:
    affine = torch.diag(torch.tensor([*voxel_size, 1.0], dtype=torch.float64))
    meta = {
        "unit": unit,
        "stated_voxel_size": np.array(stated),
        "filename_or_obj": "b.tif",
        "spatial_shape": np.array([8, 12]),
    }
    return MetaTensor(torch.rand(1, 8, 12), affine=affine, meta={**meta, "original_affine": affine.clone()})


class TestAmongTrainingFiles:
    def test_what_is_not_stated_is_the_median_of_what_is(self) -> None:
        sizes = [[0.2, 0.1], [0.4, 0.1], [1.0, 1.0]]
        assert assumed_voxel_sizes(sizes, [[True] * 2, [True] * 2, [False] * 2])[2] == pytest.approx([0.3, 0.1])

    def test_where_none_states_it_and_where_all_do_nothing_changes(self) -> None:
        sizes = [[1.0, 0.1], [2.0, 0.3]]
        assert assumed_voxel_sizes(sizes, [[False, True]] * 2).tolist() == sizes


class TestLaterImages:
    def resampled(self, image: MetaTensor, stated: list[bool] | None) -> MetaTensor:
        """As with weights that were trained on voxels of 0.5 x 0.25, and work at twice these lengths."""
        data = AssumeVoxelSized("image", [0.5, 0.25], stated)({"image": image})
        return ResampleToSpacingd("image", [1.0, 0.5])(data)["image"]

    @pytest.mark.parametrize(
        ("voxel_size", "stated", "trained"),
        [
            ((0.5, 0.25), (0.5, 0.25), [True, True]),
            ((1.0, 1.0), (math.nan, math.nan), [True, True]),  # saved without its calibration
            ((1.0, 0.25), (math.nan, 0.25), [True, True]),
            ((2.0, 1.0), (2.0, 1.0), [False, False]),  # the weights count voxels, whatever these are
        ],
    )
    def test_it_has_the_voxels_of_those_trained_on(
        self, voxel_size: tuple[float, ...], stated: tuple[float, ...], trained: list[bool]
    ) -> None:
        working = self.resampled(image(voxel_size, *stated), trained)
        assert working.shape == (1, 4, 6)
        assert working.pixdim.tolist() == [1.0, 0.5]
        assert working.meta["original_affine"].diag().tolist() == [*voxel_size, 1.0]
        assert working_voxels_per_voxel(working) == 0.25

    def test_a_warning_says_so(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            self.resampled(image((0.5, 0.25), 0.5, 0.25), [True, True])
            assert not caplog.records
            self.resampled(image((1.0, 0.25), math.nan, 0.25), [True, True])
        assert "b.tif: voxels are taken to be as long as those of the images trained on along y," in caplog.text

    @pytest.mark.parametrize(
        ("voxel_size", "is_told"),
        [((0.25, 0.5), True), ((0.28, 0.53), True), ((0.5, 0.25), False), ((0.4, 0.3), False), ((0.25, 0.25), False)],
    )
    def test_a_warning_tells_of_axes_in_another_order(
        self, voxel_size: tuple[float, ...], is_told: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            assert self.resampled(image(voxel_size, *voxel_size), [True, True]).pixdim.tolist() != list(voxel_size)
        found = (
            f"b.tif: voxels of {voxel_size[0]} x {voxel_size[1]} along y, x, those of the images trained on of 0.5 x"
        )
        assert (found in caplog.text) == is_told

    def test_another_voxel_size_that_is_stated_counts(self) -> None:
        assert self.resampled(image((1.0, 0.5), 1.0, 0.5), [True, True]).shape == (1, 8, 12)

    @pytest.mark.parametrize("in_pixels", [False, True])
    def test_lengths_and_numbers_of_pixels_are_not_compared(
        self, in_pixels: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        units = ["pixel", "micrometre"]
        same, other = (image((2.0, 1.5), 2.0, 1.5, unit=unit) for unit in (units[not in_pixels], units[in_pixels]))
        transform = AssumeVoxelSized("image", [0.5, 0.25], [True, True], in_pixels)
        assert transform({"image": same})["image"] is same
        assert not caplog.records
        assert transform({"image": other})["image"].pixdim.tolist() == [0.5, 0.25]
        assert "as long as those of the images trained on along y, x" in caplog.text

    def test_one_axis_in_pixels_says_nothing_beside_lengths(self) -> None:
        """ImageJ, where only the distance of slices is set."""
        found = AssumeVoxelSized("image", [0.5, 0.25], [True, True], False)(
            {"image": image((2.2, 1.0), 2.2, math.nan, unit="pixel")}
        )
        assert found["image"].pixdim.tolist() == [0.5, 0.25]

    def test_weights_that_do_not_say_what_they_were_trained_on(self) -> None:
        untouched = image((1.0, 1.0), math.nan, math.nan)
        assert AssumeVoxelSized("image", None, None)({"image": untouched})["image"] is untouched
