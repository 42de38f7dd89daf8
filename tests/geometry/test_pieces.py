"""Instances in one piece, by hand on strips and small images."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.geometry.pieces import (
    clean_components,
    count_pieces,
    face_components,
    give_to_neighbors,
    keep_largest_pieces,
    restore_lost,
)


def image(*rows: list[int]) -> NDArray[np.int32]:
    return np.array(rows, np.int32)


class TestFaceComponents:
    def test_corners_do_not_touch(self) -> None:
        assert face_components(image([1, 0], [0, 1])).tolist() == [[1, 0], [0, 2]]

    def test_two_ids_are_two_components(self) -> None:
        assert face_components(image([7, 7, 3])).tolist() == [[1, 1, 2]]

    def test_in_3d_edges_do_not_touch(self) -> None:
        assert face_components(np.eye(2, dtype=np.int32)[:, None]).max() == 2


class TestCleanComponents:
    def test_small_pieces_go_to_the_neighbour_they_touch(self) -> None:
        clusters = np.array([[1, 1, 1, 1, 2], [1, 1, 3, 1, 2], [1, 1, 1, 1, 2]], np.int32)
        found = clean_components(clusters, min_size=3)
        assert found.tolist() == [[1, 1, 1, 1, 2]] * 3

    def test_small_pieces_that_touch_nothing_are_dropped(self) -> None:
        clusters = np.array([[5, 5, 5, 0, 4], [5, 5, 5, 0, 4]], np.int32)
        assert clean_components(clusters, min_size=3).tolist() == [[1, 1, 1, 0, 0]] * 2

    def test_small_pieces_reach_an_instance_through_each_other(self) -> None:
        clusters = np.array([[1, 1, 1, 2, 3, 4]], np.int32)
        assert clean_components(clusters, min_size=2).tolist() == [[1] * 6]

    def test_only_small_pieces_leave_nothing(self) -> None:
        clusters = np.array([[1, 1, 2, 2]], np.int32)
        assert clean_components(clusters, min_size=3).tolist() == [[0] * 4]

    def test_corners_do_not_connect(self) -> None:
        clusters = np.array([[7, 0], [0, 7]], np.int32)
        assert sorted(clean_components(clusters, min_size=1).ravel().tolist()) == [0, 0, 1, 2]


def test_pieces_and_voxels_of_each_id() -> None:
    pieces, voxels = count_pieces(image([1, 0, 1, 1, 2]), 4)
    assert pieces.tolist() == [0, 2, 1, 0]  # background is not counted
    assert voxels.tolist() == [1, 3, 1, 0]


class TestGiveToNeighbors:
    def test_instances_grow_into_crumbs_from_both_sides(self) -> None:
        kept, crumbs = image([1, 1, 0, 0, 0, 0, 2]), image([0, 0, 1, 1, 1, 1, 0]) > 0
        assert give_to_neighbors(kept, crumbs, (kept > 0) | crumbs).tolist() == [[1, 1, 1, 1, 2, 2, 2]]

    def test_what_none_can_reach_stays_background(self) -> None:
        kept, crumbs = image([1, 0, 0, 3]), image([0, 0, 1, 0]) > 0
        assert give_to_neighbors(kept, crumbs, image([1, 0, 1, 0]) > 0).tolist() == [[1, 0, 0, 3]]

    def test_nothing_but_crumbs_changes(self) -> None:
        random = np.random.default_rng(0)
        kept = random.integers(0, 4, (9, 10, 11)).astype(np.int32)
        crumbs = (kept == 0) & (random.random(kept.shape) < 0.5)
        grown = give_to_neighbors(kept, crumbs, (kept > 0) | crumbs)
        assert np.array_equal(grown[~crumbs], kept[~crumbs])
        assert grown.dtype == np.int32


class TestKeepLargestPieces:
    def test_a_piece_cut_off_goes_to_what_it_touches(self) -> None:
        instances = image([1, 1, 1, 2, 2, 2, 1])
        assert keep_largest_pieces(instances, np.zeros_like(instances)).tolist() == [[1, 1, 1, 2, 2, 2, 2]]

    def test_a_piece_alone_is_dropped(self) -> None:
        instances = image([1, 1, 0, 1])
        assert keep_largest_pieces(instances, np.zeros_like(instances)).tolist() == [[1, 1, 0, 0]]

    def test_nothing_is_given_over_the_border_of_a_region(self) -> None:
        instances = image([1, 1, 1, 2, 2, 2, 1])
        regions = image([0, 0, 0, 0, 0, 0, 1])
        assert keep_largest_pieces(instances, regions).tolist() == [[1, 1, 1, 2, 2, 2, 0]]


class TestRestoreLost:
    def restore_lost(self, instances: NDArray[np.int32], source: NDArray[np.int32]) -> list[list[int]]:
        return restore_lost(instances, source, np.zeros_like(source), np.zeros_like(instances)).tolist()

    def test_a_lost_instance_gets_the_background_voxel_in_its_place(self) -> None:
        assert self.restore_lost(image([1, 0, 0]), image([1, 0, 2])) == [[1, 0, 2]]

    def test_it_is_taken_from_an_instance_that_stays_in_one_piece(self) -> None:
        assert self.restore_lost(image([1, 1, 1]), image([1, 1, 2])) == [[1, 1, 2]]

    def test_no_instance_is_removed_for_it(self) -> None:
        assert self.restore_lost(image([1]), image([1, 2])) == [[1]]

    def test_the_nearest_voxel_is_so_in_space(self) -> None:
        """Columns are four times as close to each other as rows."""
        instances = image([1, 0, 2, 3], [4, 5, 6, 0], [7, 8, 9, 10])
        source = image([0], [11], [0])
        assert self.restore_lost(instances, source) == [[1, 0, 2, 3], [4, 5, 6, 11], [7, 8, 9, 10]]

    def test_it_stays_in_its_region(self) -> None:
        source, source_regions, regions = image([0, 2, 0]), image([5, 5, 5]), image([6, 6, 5])
        assert restore_lost(np.zeros_like(source), source, source_regions, regions).tolist() == [[0, 0, 2]]

    @pytest.mark.parametrize("count", [1, 3])
    def test_instances_that_are_there_stay_as_they_are(self, count: int) -> None:
        instances = np.arange(1, count + 1, dtype=np.int32)[None]
        assert self.restore_lost(instances, instances) == instances.tolist()
