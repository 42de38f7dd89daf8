"""Regions of alike embeddings, on strips of pixels whose values can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from scripts.clustering import regions
from scripts.clustering.regions import local_change, lowest_around, small_regions, smoothed, typical_steps, wall_height
from scripts.geometry import voxels as voxels_module
from scripts.geometry.voxels import ForegroundVoxels


def strip(*values: float, height: int = 1) -> Tensor:
    """Embeddings (1, height, N) that change along x only."""
    return torch.tensor(values, dtype=torch.float32).repeat(1, height, 1)


def everywhere(embeddings: Tensor) -> ForegroundVoxels:
    return ForegroundVoxels(embeddings, torch.ones(embeddings.shape[1:], dtype=torch.bool))


def no_walls(voxels: ForegroundVoxels) -> Tensor:
    return torch.zeros(voxels.foreground.ndim, voxels.count + 1, dtype=torch.bool)


def change(voxels: ForegroundVoxels) -> list[float]:
    return local_change(voxels)[0][:-1].tolist()


def blur(values: Tensor, voxels: ForegroundVoxels) -> Tensor:
    return smoothed(with_outside(values), voxels, no_walls(voxels))[:-1]


def with_outside(values: Tensor) -> Tensor:
    return torch.cat([values, values.max()[None]])


def small_regions_of(voxels: ForegroundVoxels) -> Tensor:
    found = small_regions(voxels)
    assert found[-1] == 0  # outside
    return found[:-1]


class TestByHand:
    def test_local_change_is_the_mean_step_to_the_neighbours(self) -> None:
        assert change(everywhere(strip(0, 0, 4, 4))) == [0, 2, 2, 0]

    def test_local_change_counts_the_neighbours_there_are(self) -> None:
        # corner of a 2 x 2 image: one step of 0 and one of 4
        assert change(everywhere(strip(0, 4, height=2))) == [2, 2, 2, 2]

    def test_local_change_does_not_look_outside(self) -> None:
        voxels = ForegroundVoxels(strip(0, 1, 9), torch.tensor([[True, True, False]]))
        assert change(voxels) == [1, 1]

    def test_local_change_is_a_distance_in_all_dimensions(self) -> None:
        assert change(everywhere(torch.tensor([[[0.0, 3]], [[0, 4]]]))) == [5, 5]

    def test_local_change_of_one_voxel(self) -> None:
        assert change(everywhere(torch.ones(3, 1, 1, 1))) == [0]

    def test_outside_embeddings_change_as_much_as_anywhere(self) -> None:
        assert local_change(everywhere(strip(0, 0, 4, 5)))[0].tolist() == [0, 2, 2.5, 1, 2.5]

    def test_a_wall_is_a_large_step(self) -> None:
        _, walls = local_change(everywhere(strip(0, 1, 4, 5)), wall=2)
        assert walls.tolist() == [[False] * 5, [False, True, False, False, False]]

    def test_a_step_up_to_the_height_of_a_wall_is_none(self) -> None:
        _, walls = local_change(everywhere(strip(0, 2, 4)), wall=2)
        assert not walls.any()

    def test_voxels_behind_a_wall_are_no_neighbours(self) -> None:
        voxels = everywhere(strip(0, 1, 4, 5))
        walls = no_walls(voxels)
        walls[1, 1] = True
        assert lowest_around(with_outside(torch.tensor([3.0, 2, 1, 4])), voxels, walls).tolist() == [1, 1, 2, 2, 4]

    def test_walls_are_half_as_high_as_objects_are_apart(self) -> None:
        assert wall_height(everywhere(strip(*[0] * 6, *[4] * 6)), delta_var=0.5) == 2

    def test_walls_are_higher_where_embeddings_scatter(self) -> None:
        assert wall_height(everywhere(strip(*[0, 2] * 6)), delta_var=0.5) == 5

    def test_borders_of_thin_objects_are_no_scatter(self) -> None:
        stripes = torch.arange(30.0).mul(4).view(1, 30, 1).repeat(1, 1, 20)  # more borders than steps inside
        assert wall_height(everywhere(stripes), delta_var=0.5) == 2

    def test_steps_are_looked_at_in_the_whole_volume(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not on one face of it, as every tenth voxel of rows of ten would be."""
        monkeypatch.setattr(regions, "SAMPLE", 20)
        embeddings = strip(0, *[1] * 9, height=20)
        assert typical_steps(everywhere(embeddings)) == (0, 1)
        assert typical_steps(everywhere(embeddings.flip(-1))) == (0, 1)

    def test_one_voxel_has_no_steps(self) -> None:
        assert wall_height(everywhere(torch.ones(3, 1, 1, 1)), delta_var=0.5) == 2

    def test_blurring_a_point(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # twice a quarter, a half, a quarter is 1, 4, 6, 4, 1 sixteenths, along both axes
        monkeypatch.setattr(regions, "BLURS", 2)
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
        values = with_outside(torch.tensor([5.0, 4, 3, 6, 7, 8, 9, 9, 9]))
        where = lowest_around(values, voxels, no_walls(voxels))[:-1]
        assert where.reshape(3, 3).tolist() == [[1, 2, 2], [1, 2, 2], [3, 3, 4]]


class TestSmallRegions:
    def test_two_flat_strips_are_two_regions(self) -> None:
        found = small_regions_of(everywhere(strip(*[0] * 6, *[4] * 6, height=5))).reshape(5, 12)
        assert found.max() == 2
        assert len(np.unique(found[:, :6])) == len(np.unique(found[:, 6:])) == 1

    def test_thin_objects_beside_a_calm_one_keep_their_voxels(self) -> None:
        # two pixels wide, with a jump on both sides, and so much more change than to the right of them
        found = small_regions_of(everywhere(strip(*[0] * 6, *[4] * 2, *[8] * 6, height=9))).reshape(9, 14)
        objects = [set(part.unique().tolist()) for part in (found[:, :6], found[:, 6:8], found[:, 8:])]
        assert set.union(*objects) == set(range(1, sum(map(len, objects)) + 1))  # none in two

    @pytest.mark.parametrize("width", [1, 2, 3])
    @pytest.mark.parametrize("noise", [0.0, 0.3])
    def test_no_region_lies_in_two_thin_objects(self, width: int, noise: float) -> None:
        objects = torch.arange(1, 13).repeat_interleave(width).repeat(30, 1)
        random = torch.Generator().manual_seed(0)
        vectors = 3 * torch.randn(13, 8, generator=random)
        scatter = noise / 8**0.5 * torch.randn(8, *objects.shape, generator=random)
        found = small_regions_of(everywhere(vectors[objects].movedim(-1, 0) + scatter))
        pairs = torch.stack([found, objects.ravel()]).unique(dim=1)
        assert pairs.shape[1] == found.max()

    def test_a_flat_image_is_one_region(self) -> None:
        assert small_regions_of(everywhere(strip(*[2] * 6, height=5))).tolist() == [1] * 30

    def test_voxels_that_touch_nothing_are_regions(self) -> None:
        voxels = ForegroundVoxels(strip(1, 2, 3), torch.tensor([[True, False, True]]))
        assert sorted(small_regions_of(voxels).tolist()) == [1, 2]

    @pytest.mark.parametrize("shape", [(24, 30), (8, 12, 14), (1, 20, 20)])
    def test_every_voxel_of_the_foreground_has_one(self, shape: tuple[int, ...]) -> None:
        random = np.random.default_rng(0)
        foreground = torch.from_numpy(random.random(shape) < 0.3)  # many pieces, some that touch by corners
        embeddings = torch.from_numpy(random.normal(size=(4, *shape)).astype(np.float32))
        found = small_regions_of(ForegroundVoxels(embeddings, foreground))
        assert found.shape == (int(foreground.sum()),)
        assert found.unique().tolist() == list(range(1, int(found.max()) + 1))

    @pytest.mark.parametrize("shape", [(24, 30), (8, 12, 14)])
    def test_portions_change_nothing(self, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
        random = np.random.default_rng(0)
        foreground = torch.from_numpy(random.random(shape) < 0.8)
        embeddings = torch.from_numpy(random.normal(size=(4, *shape)).astype(np.float32))
        whole = small_regions(ForegroundVoxels(embeddings, foreground))
        monkeypatch.setattr(voxels_module, "PORTION", 7)
        assert torch.equal(small_regions(ForegroundVoxels(embeddings, foreground)), whole)
