"""Agglomeration, step by step on strips of pixels, and as a whole on drifting and touching objects."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.agglomeration import (
    agglomerate,
    local_change,
    merge_regions,
    region_statistics,
    settle_borders,
    small_regions,
    touching_regions,
)

MERGE_DISTANCE = 1.5


def strip(*values: float, height: int = 1) -> NDArray[np.float32]:
    """Embeddings (1, height, N) that change along x only."""
    return np.tile(np.array(values, np.float32), (1, height, 1))


def merged(sizes: list[float], means: list[float], pairs: list[tuple[int, int]], distance: float) -> list[int]:
    """New ids of regions 1, 2, ... with 1-D mean embeddings; region 0 is the background."""
    weights = np.array([0.0, *sizes])
    sums = (weights * np.array([0.0, *means]))[:, None]
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return merge_regions(weights, sums, table, distance).tolist()


def chain(count: int) -> list[tuple[int, int]]:
    return [(first, first + 1) for first in range(1, count)]


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

    def test_touching_regions(self) -> None:
        regions = np.array([[1, 1, 2], [3, 3, 2], [0, 0, 0], [4, 4, 4]], np.int32)
        assert touching_regions(regions).tolist() == [[1, 2], [1, 3], [2, 3]]

    def test_corners_do_not_touch(self) -> None:
        assert touching_regions(np.array([[1, 0], [0, 2]], np.int32)).shape == (0, 2)

    def test_the_closest_merge_first(self) -> None:
        # 0 and 1 merge to 0.5, which leaves 2.2 too far away, though it was 1.2 from 1
        assert merged([1, 1, 1], [0, 1, 2.2], chain(3), MERGE_DISTANCE) == [0, 1, 1, 2]

    def test_a_mean_is_weighted_by_size(self) -> None:
        # 9 voxels at 1 and one at 0 have their mean at 0.9, 1.3 from 2.2
        assert merged([1, 9, 1], [0, 1, 2.2], chain(3), MERGE_DISTANCE) == [0, 1, 1, 1]

    def test_only_neighbours_merge(self) -> None:
        assert merged([1, 1, 1], [0, 5, 0], chain(3), MERGE_DISTANCE) == [0, 1, 2, 3]

    def test_neighbours_are_inherited(self) -> None:
        # 1 and 3 do not touch, but both touch 2
        assert merged([1, 1, 1], [0, 0.1, 0.2], [(1, 2), (2, 3)], MERGE_DISTANCE) == [0, 1, 1, 1]

    def test_the_threshold_itself_does_not_merge(self) -> None:
        assert merged([1, 1], [0, 1.5], chain(2), MERGE_DISTANCE) == [0, 1, 2]

    def test_nothing_touches(self) -> None:
        assert merged([1, 1], [0, 0], [], MERGE_DISTANCE) == [0, 1, 2]

    def test_a_border_voxel_goes_to_the_nearest_of_those_it_touches(self) -> None:
        # the means are 0 and 3 or so; the third voxel is like the first instance, and touches it
        instances = np.array([[1, 1, 2, 2, 2]], np.int32)
        assert settle_borders(instances, strip(0, 0, 0, 4, 4)).tolist() == [[1, 1, 1, 2, 2]]

    def test_no_voxel_leaves_for_an_instance_that_it_does_not_touch(self) -> None:
        instances = np.array([[1, 1, 0, 2, 2, 2]], np.int32)
        assert np.array_equal(settle_borders(instances, strip(0, 0, 0, 0, 4, 4)), instances)

    def test_the_first_and_the_last_row_do_not_touch(self) -> None:
        instances = np.array([[1, 1], [2, 2], [3, 3]], np.int32)
        embeddings = np.array([[[9, 9], [4, 4], [9, 9]]], np.float32)
        assert np.array_equal(settle_borders(instances, embeddings), instances)

    def test_merging_leaves_its_input(self) -> None:
        sizes, sums = np.array([0.0, 1, 1]), np.array([[0.0], [0], [1]])
        merge_regions(sizes, sums, np.array([[1, 2]]), MERGE_DISTANCE)
        assert sizes.tolist() == [0, 1, 1]
        assert sums.tolist() == [[0], [0], [1]]


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


class TestAgglomerate:
    def test_a_drifting_object_stays_one_beside_its_neighbour(self) -> None:
        # the left object drifts by 2, which no ball of radius delta_var = 0.5 holds; the right one is 4 away
        random = np.random.default_rng(0)
        embeddings = strip(*np.linspace(0, 2, 40), *[6] * 20, height=20)
        embeddings = embeddings + random.normal(0, 0.03, embeddings.shape).astype(np.float32)
        labels = agglomerate(embeddings, np.ones((20, 60), bool), MERGE_DISTANCE)
        assert labels.max() == 2
        assert len(np.unique(labels[:, :39])) == len(np.unique(labels[:, 41:])) == 1

    def test_far_objects_may_share_an_embedding(self) -> None:
        labels = agglomerate(strip(*[0] * 8, *[4] * 8, *[0] * 8, height=6), np.ones((6, 24), bool), MERGE_DISTANCE)
        assert [len(np.unique(labels[:, start : start + 8])) for start in (0, 8, 16)] == [1, 1, 1]
        assert labels.max() == 3

    def test_outside_the_foreground_is_zero(self) -> None:
        foreground = np.ones((6, 12), bool)
        foreground[:, 6] = False
        labels = agglomerate(strip(*[0] * 12, height=6), foreground, MERGE_DISTANCE)
        assert np.array_equal(labels > 0, foreground)

    def test_deterministic(self) -> None:
        embeddings = np.random.default_rng(0).normal(size=(3, 20, 20)).astype(np.float32)
        first, second = (agglomerate(embeddings, np.ones((20, 20), bool), MERGE_DISTANCE) for _ in range(2))
        assert np.array_equal(first, second)
        assert first.dtype == np.int32
