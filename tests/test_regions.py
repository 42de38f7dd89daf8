"""Regions of alike embeddings, on strips of pixels whose values can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from scripts.regions import local_change, lowest_around, small_regions, smoothed
from scripts.voxels import ForegroundVoxels


def strip(*values: float, height: int = 1) -> Tensor:
    """Embeddings (1, height, N) that change along x only."""
    return torch.tensor(values, dtype=torch.float32).repeat(1, height, 1)


def everywhere(embeddings: Tensor) -> ForegroundVoxels:
    return ForegroundVoxels(embeddings, torch.ones(embeddings.shape[1:], dtype=torch.bool))


def blur(values: Tensor, voxels: ForegroundVoxels) -> Tensor:
    return smoothed(values, voxels.before, voxels.after)


class TestByHand:
    def test_local_change_is_the_mean_step_to_the_neighbours(self) -> None:
        assert local_change(everywhere(strip(0, 0, 4, 4)))[0].tolist() == [0, 2, 2, 0]

    def test_local_change_counts_the_neighbours_there_are(self) -> None:
        # corner of a 2 x 2 image: one step of 0 and one of 4
        assert local_change(everywhere(strip(0, 4, height=2)))[0].tolist() == [2, 2, 2, 2]

    def test_local_change_does_not_look_outside(self) -> None:
        voxels = ForegroundVoxels(strip(0, 1, 9), torch.tensor([[True, True, False]]))
        assert local_change(voxels)[0].tolist() == [1, 1]

    def test_local_change_is_a_distance_in_all_dimensions(self) -> None:
        assert local_change(everywhere(torch.tensor([[[0.0, 3]], [[0, 4]]])))[0].tolist() == [5, 5]

    def test_local_change_of_one_voxel(self) -> None:
        assert local_change(everywhere(torch.ones(3, 1, 1, 1)))[0].tolist() == [0]

    def test_voxels_beyond_a_wall_are_no_neighbours(self) -> None:
        _, before, after = local_change(everywhere(strip(0, 1, 4, 5)), wall=2)
        assert after[1].tolist() == [1, 4, 3, 4, 4]  # 4 is outside
        assert before[1].tolist() == [4, 0, 4, 2, 4]

    def test_a_step_up_to_the_height_of_a_wall_is_none(self) -> None:
        voxels = everywhere(strip(0, 2, 4))
        _, before, after = local_change(voxels, wall=2)
        assert torch.equal(before, voxels.before)
        assert torch.equal(after, voxels.after)

    def test_blurring_a_point(self) -> None:
        # twice a quarter, a half, a quarter is 1, 4, 6, 4, 1 sixteenths, along both axes
        image = torch.zeros(9, 9)
        image[4, 4] = 256
        blurred = blur(image.ravel(), everywhere(image[None])).reshape(9, 9)
        assert blurred[4, 2:7].tolist() == [6, 24, 36, 24, 6]
        assert blurred[3, 2:7].tolist() == [4, 16, 24, 16, 4]

    def test_blurring_leaves_what_is_even(self) -> None:
        voxels = everywhere(strip(*[0] * 4, height=3))
        assert blur(torch.full((12,), 3.0), voxels).tolist() == [3] * 12

    def test_minima_lie_inside(self) -> None:
        # a flat field with one high voxel: what touches the outside is raised
        voxels = everywhere(strip(*[0] * 7, height=7))
        values = torch.zeros(49)
        values[24] = 1
        raised = blur(values, voxels).reshape(7, 7)
        assert raised[0, 3] > raised[2, 2]

    def test_the_lowest_around_a_voxel_is_looked_for_at_its_corners_too(self) -> None:
        voxels = everywhere(strip(0, 0, 0, height=3))
        lowest, where = lowest_around(torch.tensor([5.0, 4, 3, 6, 7, 8, 9, 9, 9]), voxels.before, voxels.after)
        assert lowest.reshape(3, 3).tolist() == [[4, 3, 3], [4, 3, 3], [6, 6, 7]]
        assert where.reshape(3, 3).tolist() == [[1, 2, 2], [1, 2, 2], [3, 3, 4]]


class TestSmallRegions:
    def test_two_flat_strips_are_two_regions(self) -> None:
        regions = small_regions(everywhere(strip(*[0] * 6, *[4] * 6, height=5))).reshape(5, 12)
        assert regions.max() == 2
        assert len(np.unique(regions[:, :6])) == len(np.unique(regions[:, 6:])) == 1

    def test_thin_objects_beside_a_calm_one_keep_their_voxels(self) -> None:
        # two pixels wide, with a jump on both sides, and so much more change than to the right of them
        regions = small_regions(everywhere(strip(*[0] * 6, *[4] * 2, *[8] * 6, height=9))).reshape(9, 14)
        objects = [set(part.unique().tolist()) for part in (regions[:, :6], regions[:, 6:8], regions[:, 8:])]
        assert set.union(*objects) == set(range(1, sum(map(len, objects)) + 1))  # none in two

    def test_a_flat_image_is_one_region(self) -> None:
        assert small_regions(everywhere(strip(*[2] * 6, height=5))).tolist() == [1] * 30

    def test_voxels_that_touch_nothing_are_regions(self) -> None:
        voxels = ForegroundVoxels(strip(1, 2, 3), torch.tensor([[True, False, True]]))
        assert sorted(small_regions(voxels).tolist()) == [1, 2]

    @pytest.mark.parametrize("shape", [(24, 30), (8, 12, 14), (1, 20, 20)])
    def test_every_voxel_of_the_foreground_has_one(self, shape: tuple[int, ...]) -> None:
        random = np.random.default_rng(0)
        foreground = torch.from_numpy(random.random(shape) < 0.3)  # many pieces, some that touch by corners
        embeddings = torch.from_numpy(random.normal(size=(4, *shape)).astype(np.float32))
        regions = small_regions(ForegroundVoxels(embeddings, foreground))
        assert regions.shape == (int(foreground.sum()),)
        assert regions.unique().tolist() == list(range(1, int(regions.max()) + 1))
