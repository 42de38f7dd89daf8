"""Regions of alike embeddings, on strips of pixels whose values can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.regions import local_change, region_centers, region_statistics, small_regions


def strip(*values: float, height: int = 1) -> NDArray[np.float32]:
    """Embeddings (1, height, N) that change along x only."""
    return np.tile(np.array(values, np.float32), (1, height, 1))


class TestByHand:
    def test_local_change_is_the_mean_step_to_the_neighbours(self) -> None:
        assert local_change(strip(0, 0, 4, 4)).tolist() == [[0, 2, 2, 0]]

    def test_local_change_counts_the_neighbours_there_are(self) -> None:
        # corner of a 2 x 2 image: one step of 0 and one of 4
        assert local_change(strip(0, 4, height=2)).tolist() == [[2, 2], [2, 2]]

    def test_local_change_is_a_distance_in_all_dimensions(self) -> None:
        embeddings = np.array([[[0, 3]], [[0, 4]]], np.float32)
        assert local_change(embeddings).tolist() == [[5, 5]]

    def test_local_change_of_one_voxel(self) -> None:
        assert local_change(np.ones((3, 1, 1, 1), np.float32)).tolist() == [[[0]]]

    def test_region_statistics(self) -> None:
        sizes, sums = region_statistics(
            np.array([[[1, 2, 3]], [[10, 20, 30]]], np.float32), np.array([[0, 1, 1]], np.int32)
        )
        assert sizes.tolist() == [1, 2]
        assert sums.tolist() == [[1, 10], [5, 50]]

    def test_region_centers(self) -> None:
        # region 1 holds the pixels (0, 0), (0, 1) and (1, 0), region 2 only (1, 1)
        centers = region_centers(np.array([[1, 1], [1, 2]], np.int32))
        assert centers[1:].tolist() == [[1 / 3, 1 / 3], [1, 1]]

    def test_the_background_has_a_place_in_the_tables(self) -> None:
        assert len(region_centers(np.array([[0, 2]], np.int32))) == 3


class TestSmallRegions:
    def test_two_flat_strips_are_two_regions(self) -> None:
        regions = small_regions(strip(*[0] * 6, *[4] * 6, height=5), np.ones((5, 12), bool))
        assert regions.max() == 2
        assert len(np.unique(regions[:, :6])) == len(np.unique(regions[:, 6:])) == 1

    def test_a_flat_image_is_one_region(self) -> None:
        assert small_regions(strip(*[2] * 6, height=5), np.ones((5, 6), bool)).tolist() == [[1] * 6] * 5

    def test_a_piece_on_a_slope_is_not_lost(self) -> None:
        # the change grows along x, so its only minimum lies left of the foreground
        foreground = np.zeros((30, 30), bool)
        foreground[10:20, 10:20] = True
        regions = small_regions(strip(*np.linspace(0, 1, 30) ** 2, height=30), foreground)
        assert (regions > 0).tolist() == foreground.tolist()

    @pytest.mark.parametrize("shape", [(24, 30), (8, 12, 14)])
    def test_regions_fill_the_foreground_exactly(self, shape: tuple[int, ...]) -> None:
        random = np.random.default_rng(0)
        foreground = random.random(shape) < 0.3  # many pieces, some that touch by corners
        regions = small_regions(random.normal(size=(4, *shape)).astype(np.float32), foreground)
        assert np.array_equal(regions > 0, foreground)
