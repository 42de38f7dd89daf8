"""Scores of instances: what can be computed by hand, then what must hold for any embeddings."""

import numpy as np
import pytest
import torch

from scripts.clustering import confidence
from scripts.clustering.confidence import KERNEL_RADIUS, MARGIN, drop_unsure, instance_scores

DELTA_VAR = 0.5
HALF = KERNEL_RADIUS * DELTA_VAR  # the distance at which a voxel belongs half
FAR = 100.0


def row(*embeddings: float) -> np.ndarray:
    """(1, N): one embedding dimension, one axis."""
    return np.array([embeddings], np.float32)


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


class TestByHand:
    def test_equal_inside_and_alone_is_certain(self) -> None:
        assert instance_scores(ids(0, 1, 1, 0), row(FAR, 3, 3, FAR), DELTA_VAR) == pytest.approx([1])

    def test_a_neighbour_that_fits_half_counts_half(self) -> None:
        scores = instance_scores(ids(1, 1, 0, 0), row(0, 0, HALF, FAR), DELTA_VAR)
        assert scores == pytest.approx([2 / (2 + 0.5)])

    def test_voxels_half_a_radius_from_their_mean_fit_by_the_fourth_root_of_a_half(self) -> None:
        scores = instance_scores(ids(1, 1), row(-HALF / 2, HALF / 2), DELTA_VAR)
        assert scores == pytest.approx([0.5**0.25])

    def test_an_object_cut_into_two_halves_is_half_an_object(self) -> None:
        assert instance_scores(ids(1, 1, 2, 2), row(5, 5, 5, 5), DELTA_VAR) == pytest.approx([0.5, 0.5])

    def test_distances_are_those_of_all_dimensions(self) -> None:
        embeddings = np.array([[0, 0.6 * HALF], [0, 0.8 * HALF]], np.float32)
        assert instance_scores(ids(1, 0), embeddings, DELTA_VAR) == pytest.approx([1 / (1 + 0.5)])

    def test_the_kernel_grows_with_delta_var(self) -> None:
        assert instance_scores(ids(1, 0), row(0, 3.0), 1.5) == pytest.approx([1 / (1 + 0.5)])

    def test_a_large_object_far_from_the_origin(self) -> None:
        scores = instance_scores(np.ones((1000, 1000), np.int32), np.full((1, 1000, 1000), 500.3, np.float32))
        assert scores == pytest.approx([1])

    def test_one_voxel(self) -> None:
        assert instance_scores(ids(0, 1, 0), row(FAR, 0, FAR), DELTA_VAR) == pytest.approx([1])

    def test_only_the_surroundings_count(self) -> None:
        """An object far away may share the embedding."""
        near, far = [0.0] + [FAR] * (MARGIN - 1) + [0.0], [0.0] + [FAR] * MARGIN + [0.0]
        for embeddings, expected in ((near, 0.5), (far, 1.0)):
            instances = ids(1, *[0] * (len(embeddings) - 1))
            assert instance_scores(instances, row(*embeddings), DELTA_VAR) == pytest.approx([expected])

    def test_a_mean_like_no_voxel_at_all(self) -> None:
        assert instance_scores(ids(1, 1), row(-FAR, FAR), DELTA_VAR) == pytest.approx([0])

    def test_nothing_found_nothing_scored(self) -> None:
        assert instance_scores(np.zeros((4, 5), np.int32), np.zeros((8, 4, 5), np.float32)).shape == (0,)


class TestProperties:
    @pytest.fixture(params=[(20, 24), (8, 12, 10)], ids=["2D", "3D"])
    def scene(self, request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
        """Two touching objects on background, and embeddings with some noise."""
        instances = np.zeros(request.param, np.int32)
        middle, inner = request.param[0] // 2, (slice(2, -2),) * (len(request.param) - 1)
        instances[(slice(2, middle), *inner)], instances[(slice(middle, -2), *inner)] = 1, 2
        centers = 2 * np.array([[-1, 1, 1], [0, -1, 1]], np.float32)  # (E, id)
        noise = 0.2 * np.random.default_rng(0).standard_normal((2, *request.param), np.float32)
        return instances, centers[:, instances] + noise

    def test_scores_lie_between_0_and_1(self, scene: tuple[np.ndarray, np.ndarray]) -> None:
        scores = instance_scores(*scene)
        assert scores.shape == (2,)
        assert ((scores > 0.5) & (scores < 1)).all()

    def test_where_the_embeddings_lie_does_not_matter(self, scene: tuple[np.ndarray, np.ndarray]) -> None:
        instances, embeddings = scene
        assert instance_scores(instances, embeddings + 50) == pytest.approx(instance_scores(*scene), abs=1e-3)

    @pytest.mark.parametrize("shape", [(70, 50), (33, 41, 9), (200,)])
    @pytest.mark.parametrize("many", [0, 10**9])
    def test_voxels_out_of_reach_may_be_left_out(
        self, shape: tuple[int, ...], many: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Long objects whose embeddings hold positions: the formula with every voxel of the bounding box."""
        monkeypatch.setattr(confidence, "MANY_OUTSIDE", many)
        coordinates = np.indices(shape).astype(np.float32)
        instances = (1 + coordinates.sum(0) // 5 % 7).astype(np.int32)  # diagonal bands
        noise = 0.3 * np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
        embeddings = np.concatenate([0.25 * coordinates, instances + noise])
        expected = []
        for id_ in range(1, 8):
            member = instances == id_  # bands reach across the image, so that their boxes are all of it
            mean = embeddings[:, member].mean(1).reshape(-1, *[1] * len(shape))
            belongs = 0.5 ** (np.square(embeddings - mean).sum(0) / HALF**2)
            expected.append(belongs[member].sum() / (member.sum() + belongs[~member].sum()))
        assert instance_scores(instances, embeddings, DELTA_VAR) == pytest.approx(expected, rel=1e-4)

    def test_the_number_of_threads_does_not_show(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Sums of so many voxels would be shared out among threads."""
        scene = np.ones((100, 100, 100), np.int32), np.random.default_rng(0).normal(size=(3, 100, 100, 100))
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        scores = instance_scores(*scene)
        try:
            torch.set_num_threads(before + 2)
            assert instance_scores(*scene).tolist() == scores.tolist()
            assert torch.get_num_threads() == before + 2
        finally:
            torch.set_num_threads(before)

    def test_arrays_and_tensors_are_the_same(self, scene: tuple[np.ndarray, np.ndarray]) -> None:
        instances, embeddings = scene
        turned = torch.from_numpy(embeddings.swapaxes(1, 2).copy()).transpose(1, 2)  # in another order in memory
        assert instance_scores(instances, turned).tolist() == instance_scores(*scene).tolist()

    def test_looser_embeddings_score_less(self, scene: tuple[np.ndarray, np.ndarray]) -> None:
        instances, embeddings = scene
        noise = np.random.default_rng(1).standard_normal(embeddings.shape, np.float32)
        assert (instance_scores(instances, embeddings + 0.5 * noise) < instance_scores(*scene)).all()

    def test_a_piece_of_an_object_scores_less_than_the_object(self, scene: tuple[np.ndarray, np.ndarray]) -> None:
        instances, embeddings = scene
        cut = instances.copy()
        cut[..., : cut.shape[-1] // 2][cut[..., : cut.shape[-1] // 2] == 1] = 0
        assert instance_scores(cut, embeddings)[0] < 0.9 * instance_scores(*scene)[0]


class TestDropUnsure:
    SCORES = np.array([0.2, 0.9, 0.5])

    def test_zero_keeps_all(self) -> None:
        instances, scores = drop_unsure(ids(3, 0, 1, 2), self.SCORES, 0)
        assert instances.tolist() == [3, 0, 1, 2]
        assert scores.tolist() == self.SCORES.tolist()

    def test_what_is_left_is_numbered_anew_with_its_own_scores(self) -> None:
        instances, scores = drop_unsure(ids(3, 0, 1, 2), self.SCORES, 0.5)
        assert instances.tolist() == [2, 0, 0, 1]
        assert instances.dtype == np.int32
        assert scores.tolist() == [0.9, 0.5]

    def test_all_may_go(self) -> None:
        instances, scores = drop_unsure(ids(1, 0), np.array([0.3]), 1)
        assert instances.tolist() == [0, 0]
        assert scores.shape == (0,)
