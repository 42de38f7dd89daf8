"""Where to annotate next: what can be computed by hand, then what must hold for any candidates."""

import numpy as np
import pytest

from scripts.annotating.next_objects import (
    Candidates,
    appearance,
    candidate_regions,
    find_candidates,
    inner_places,
    rank,
)

NOBODY = np.zeros((0, 3))


def candidates(doubts, features=None, places=None, extent=1.0) -> Candidates:
    """Candidates on one line, ten voxels apart and each of its own kind where nothing else is said."""
    count = len(doubts)
    features = np.arange(count)[:, None] * 100.0 if features is None else np.array(features, float)[:, None]
    places = 10 * np.arange(count)[:, None] if places is None else np.array(places)[:, None]
    return Candidates(places, np.full(count, extent), np.array(doubts), np.repeat(features, 3, axis=1))


class TestRegions:
    PROBABILITY = np.array([[0.9] * 3 + [0.0] * 5 + [0.4] * 3 + [0.0]], np.float32)
    INSTANCES = np.array([[1] * 3 + [0] * 9], np.int32)
    NOTHING = np.zeros((1, 12), bool)

    def test_what_looks_a_little_like_an_object_is_one_more(self):
        regions = candidate_regions(self.INSTANCES, self.PROBABILITY, self.NOTHING, min_size=3)
        assert regions.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0, 2, 2, 2, 0]]

    def test_how_little_depends_on_the_threshold_of_the_foreground(self) -> None:
        regions = candidate_regions(self.INSTANCES, self.PROBABILITY, self.NOTHING, 3, foreground_threshold=0.9)
        assert regions.tolist() == self.INSTANCES.tolist()  # 0.4 is less than 0.46 of 0.9

    def test_what_is_too_small_is_none(self):
        assert candidate_regions(self.INSTANCES, self.PROBABILITY, self.NOTHING, min_size=4).max() == 1

    def test_where_all_is_tissue_only_instances_count(self):
        assert (candidate_regions(self.INSTANCES, None, self.NOTHING, min_size=1) == self.INSTANCES).all()

    def test_the_rim_of_an_instance_is_no_object(self):
        probability = np.array([[0.9, 0.9, 0.5, 0.4, 0.0, 0.0]], np.float32)
        instances = np.array([[1, 1, 0, 0, 0, 0]], np.int32)
        assert (candidate_regions(instances, probability, instances > 9, min_size=1) == instances).all()

    def test_nor_is_the_rim_of_an_annotated_object_that_was_not_found(self) -> None:
        probability = np.array([[0.0, 0.9, 0.9, 0.0, 0.0, 0.0, 0.9, 0.9, 0.0]], np.float32)
        annotated = np.array([[0, 0, 0, 1, 1, 1, 0, 0, 0]], bool)
        assert not candidate_regions(np.zeros((1, 9), np.int32), probability, annotated, min_size=1).any()

    def test_nothing_where_somebody_has_annotated(self):
        annotated = np.array([[1] * 3 + [0] * 9], bool)
        regions = candidate_regions(self.INSTANCES, self.PROBABILITY, annotated, min_size=3)
        assert regions.tolist() == [[0] * 8 + [1, 1, 1, 0]]


class TestMeasures:
    def test_size_brightness_and_its_spread(self):
        looks = appearance(np.array([[0, 1, 1, 2]]), np.array([[9.0, 2.0, 4.0, 7.0]]))
        assert looks == pytest.approx(np.array([[np.log(2), 3, 1], [0, 7, 0]]))

    def test_a_place_lies_inside_even_a_ring(self):
        y, x = np.indices((21, 21)) - 10
        ring = (np.abs(np.hypot(y, x) - 7) < 2).astype(np.int32)
        (place,) = inner_places(ring)
        assert ring[tuple(place)] == 1

    def test_the_middle_of_a_cube_in_two_and_three_dimensions(self):
        for dims in (2, 3):
            cube = np.zeros((9,) * dims, np.int32)
            cube[(slice(2, 7),) * dims] = 1
            assert inner_places(cube).tolist() == [[4] * dims]

    def test_certain_where_both_networks_select_the_region_alone(self):
        regions = np.array([[0, 1, 1, 0, 0, 0, 2, 2]], np.int32)
        sure = np.array([[[0, 9, 9, 0, 0, 0, 5, 5]]], np.float32)
        torn = np.array([[[0, 9, 9, 0, 0, 0, 5, 9]]], np.float32)
        nowhere = regions < 0
        assert find_candidates(regions, nowhere, sure[0], sure, sure, 0.5).doubts == pytest.approx([0, 0], abs=1e-6)
        doubts = find_candidates(regions, nowhere, sure[0], sure, torn, 0.5).doubts
        assert doubts[0] == pytest.approx(0, abs=1e-6)
        assert doubts[1] > 0.5

    def test_the_extent_of_a_square_is_the_diameter_of_its_disc(self):
        embeddings, square = np.zeros((1, 10, 10), np.float32), np.ones((10, 10), np.int32)
        found = find_candidates(square, square < 0, embeddings[0], embeddings, embeddings, 0.5)
        assert found.extents == pytest.approx([2 * (100 / np.pi) ** 0.5])

    def test_a_place_is_where_nobody_has_looked(self):
        """A region of many merged objects, of which one is annotated: the deepest voxel would lie in it."""
        regions, looked_at = np.ones((25, 25), np.int32), np.zeros((25, 25), bool)
        looked_at[10:15, 10:15] = True
        embeddings = np.zeros((1, 25, 25), np.float32)
        assert candidate_regions(regions, None, looked_at, min_size=1).all()
        found = find_candidates(regions, looked_at, embeddings[0], embeddings, embeddings, 0.5)
        assert not looked_at[tuple(found.places[0])]
        assert found.extents == pytest.approx([2 * (625 / np.pi) ** 0.5])


class TestRank:
    def test_the_most_doubtful_first(self):
        assert [number for _, number, _ in rank([candidates([0.2, 0.9, 0.5])], NOBODY, 3)] == [1, 2, 0]

    def test_images_share_one_list(self):
        listed = rank([candidates([0.2, 0.9]), candidates([0.5])], np.full((1, 3), -1e4), 2)
        assert [(image, number) for image, number, _ in listed] == [(0, 1), (1, 0)]

    def test_what_looks_like_an_annotated_object_comes_last(self):
        found = candidates([0.9, 0.3], features=[5.0, 50.0])
        assert [number for _, number, _ in rank([found], np.full((1, 3), 5.0), 2)] == [1, 0]

    def test_the_second_of_a_kind_waits(self):
        found = candidates([0.9, 0.8, 0.3], features=[0.0, 0.0, 50.0])
        assert [number for _, number, _ in rank([found], NOBODY, 3)] == [0, 2, 1]

    def test_two_pieces_of_one_object_are_one_place(self):
        found = candidates([0.9, 0.8, 0.3], places=[0, 3, 30], extent=5.0)
        assert [number for _, number, _ in rank([found], NOBODY, 3)] == [0, 2]

    def test_near_in_different_images_is_not_near(self):
        images = [candidates([0.9], places=[0], extent=5.0), candidates([0.8], features=[7.0], places=[1], extent=5.0)]
        assert len(rank(images, NOBODY, 3)) == 2

    def test_scores_never_rise(self):
        random = np.random.default_rng(0)
        found = candidates(random.random(50), features=random.random(50))
        scores = [score for _, _, score in rank([found], random.random((3, 3)), 50)]
        assert scores == sorted(scores, reverse=True)
        assert 0 <= min(scores) <= max(scores) <= 1

    def test_no_candidate_no_place(self):
        assert rank([candidates([])], NOBODY, 3) == []
