"""From embeddings to instances: what every method must find, and what no instance map may be."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.cluster import HDBSCAN

from scripts.clustering import methods as clustering
from scripts.clustering.agglomeration import agglomerate
from scripts.clustering.methods import METHODS, cluster_embeddings
from scripts.clustering.points import SAMPLE
from scripts.geometry.pieces import clean_components
from scripts.metrics import instance_metrics

SHARED = Path(__file__).parents[3] / "shared" / "data"
SCENES = {2: (20, 48), 3: (12, 20, 48)}
Labels = NDArray[np.int32]

every_method = pytest.mark.parametrize("method", METHODS)
in_2d_and_3d = pytest.mark.parametrize("ndim", SCENES)


def scene_labels(ndim: int) -> Labels:
    """Three blocks along x in a margin of background: 1 and 2 touch, 3 stands apart."""
    labels = np.zeros(SCENES[ndim], np.int32)
    inside = (slice(3, -3),) * (ndim - 1)
    for label, start in ((1, 2), (2, 14), (3, 32)):
        labels[(*inside, slice(start, start + 12))] = label
    return labels


def embed(labels: Labels, vectors: dict[int, list[float]], noise: float = 0.0, seed: int = 0) -> NDArray[np.float32]:
    """Embeddings (E, *spatial): each label's vector, and noise."""
    table = np.zeros((max(vectors) + 1, len(vectors[0])), np.float32)
    for label, vector in vectors.items():
        table[label] = vector
    random = np.random.default_rng(seed)
    return np.moveaxis(table[labels] + random.normal(0, noise, (*labels.shape, table.shape[1])), -1, 0).astype("f4")


# objects 1 and 3 share an embedding; the teacher has another space
VECTORS = {0: [0.0, 0.0], 1: [4.0, 0.0], 2: [4.0, 4.0], 3: [4.0, 0.0]}
TEACHER = {0: [9.0, 9.0], 1: [0.0, 5.0], 2: [-5.0, 0.0], 3: [0.0, 5.0]}


def cluster(
    embeddings: NDArray[np.float32],
    foreground: NDArray[np.bool_] | None,
    method: str,
    **options: Any,
) -> Labels:
    """Cluster with a teacher that agrees, unless another one is given."""
    return cluster_embeddings(embeddings, foreground, method, **{"teacher_embeddings": embeddings, **options})


def same_partition(first: Labels, second: Labels) -> bool:
    """Whether two maps differ in the numbers of their ids only; 0 must be 0."""
    pairs = np.unique(np.stack([first.ravel(), second.ravel()]), axis=1)
    one_to_one = all(len(np.unique(ids)) == len(ids) for ids in pairs)
    return one_to_one and np.array_equal(first == 0, second == 0)


def shares_found(found: Labels, truth: Labels, at_least: int = 1) -> list[float]:
    """Share of each large enough object that is one instance; an instance counts for one object only."""
    shares, taken = [], {0}
    for label, size in sorted(enumerate(np.bincount(truth.ravel())), key=lambda entry: -entry[1]):
        if label > 0 and size >= at_least:
            counts = np.bincount(found[truth == label])
            counts[[instance for instance in taken if instance < len(counts)]] = 0
            shares.append(counts.max() / size)
            taken.add(int(counts.argmax()))
    return shares


def assert_instance_map(labels: Labels, foreground: NDArray[np.bool_], min_size: int) -> None:
    """int32, ids 1..K, each one connected component of at least min_size voxels inside the foreground."""
    assert labels.dtype == np.int32
    assert labels.shape == foreground.shape
    sizes = np.bincount(labels.ravel())[1:]
    assert len(sizes) == 0 or sizes.min() >= max(1, min_size)
    components = cc3d.connected_components(labels, connectivity=2 * labels.ndim)
    assert components.max() == len(sizes)
    assert not labels[~foreground].any()


def assert_truth(found: Labels, truth: Labels) -> None:
    """The true objects and no others, but for some voxels at borders, where the watershed of auto cuts corners."""
    assert_instance_map(found, truth > 0, 50)
    assert found.max() == truth.max()
    assert min(shares_found(found, truth)) > 0.88


class TestByHand:
    @every_method
    def test_three_strips(self, method: str) -> None:
        # the first and the last share an embedding, and are two instances nevertheless
        strips = np.repeat([1, 2, 1], 8).astype(np.int32)[None].repeat(6, 0)
        expected = np.repeat([1, 2, 3], 8).astype(np.int32)[None].repeat(6, 0)
        embeddings = embed(strips, {0: [0.0], 1: [-2.0], 2: [2.0]})
        assert same_partition(cluster(embeddings, None, method, min_size=10), expected)

    @every_method
    @pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1)])
    def test_one_voxel(self, method: str, shape: tuple[int, ...]) -> None:
        embeddings = np.ones((3, *shape), np.float32)
        assert cluster(embeddings, None, method, min_size=1).tolist() == np.ones(shape, int).tolist()
        assert cluster(embeddings, None, method, min_size=2).max() == 0

    @every_method
    @in_2d_and_3d
    def test_empty_foreground(self, method: str, ndim: int) -> None:
        shape = SCENES[ndim]
        labels = cluster(np.ones((2, *shape), np.float32), np.zeros(shape, bool), method)
        assert labels.dtype == np.int32
        assert labels.shape == shape
        assert not labels.any()

    @every_method
    @pytest.mark.parametrize("noise", [0.0, 0.05, 0.1])
    @pytest.mark.parametrize("dim", [1, 4])
    def test_all_is_one_object(self, method: str, noise: float, dim: int) -> None:
        everything = np.zeros((8, 10, 12), np.int32)
        labels = cluster(embed(everything, {0: [0.5] * dim}, noise), None, method)
        assert (labels == 1).all()


@every_method
@in_2d_and_3d
class TestScene:
    def test_clean_embeddings_give_the_truth(self, method: str, ndim: int) -> None:
        truth = scene_labels(ndim)
        assert_truth(cluster(embed(truth, VECTORS), truth > 0, method), truth)

    def test_noise_within_delta_var_gives_the_truth(self, method: str, ndim: int) -> None:
        truth = scene_labels(ndim)
        found = cluster(embed(truth, VECTORS, 0.1), truth > 0, method, teacher_embeddings=embed(truth, TEACHER, 0.1, 1))
        assert_truth(found, truth)

    def test_without_foreground_the_background_is_one_more_instance(self, method: str, ndim: int) -> None:
        truth = scene_labels(ndim)
        found = cluster(embed(truth, VECTORS), None, method)
        assert_truth(found, np.where(truth == 0, 4, truth))

    def test_deterministic(self, method: str, ndim: int) -> None:
        truth = scene_labels(ndim)
        embeddings = embed(truth, VECTORS, 0.3)
        first, second = (cluster(embeddings, truth > 0, method) for _ in range(2))
        assert np.array_equal(first, second)

    def test_a_speck_goes_to_its_object(self, method: str, ndim: int) -> None:
        truth = scene_labels(ndim)
        embeddings = embed(truth, VECTORS)
        embeddings[(slice(None), *[slice(6, 8)] * ndim)] = -4.0
        assert_truth(cluster(embeddings, truth > 0, method), truth)

    def test_any_kind_of_array(self, method: str, ndim: int) -> None:
        truth = scene_labels(ndim)
        embeddings = embed(truth, VECTORS)
        tensor = torch.from_numpy(embeddings).half().requires_grad_(True)
        found = cluster(tensor, torch.from_numpy(truth > 0), method)
        assert np.array_equal(found, cluster(embeddings, truth > 0, method))
        assert np.array_equal(found, cluster(embeddings.astype(np.float64), (truth > 0).astype(np.uint8), method))


class TestProperties:
    @every_method
    @pytest.mark.parametrize("shape", [(16, 20), (6, 9, 10)])
    @pytest.mark.parametrize("dim", [1, 3])
    @pytest.mark.parametrize("min_size", [0, 1, 8])
    def test_noise_gives_an_instance_map(self, method: str, shape: tuple[int, ...], dim: int, min_size: int) -> None:
        for seed in range(2):
            random = np.random.default_rng(seed)
            embeddings, foreground = random.normal(size=(dim, *shape)), random.random(shape) < 0.7
            found = cluster(embeddings.astype(np.float32), foreground, method, min_size=min_size)
            assert_instance_map(found, foreground, min_size)

    @pytest.mark.parametrize("method", ["auto", "mean_shift", "hdbscan"])
    @pytest.mark.parametrize("shape", [(16, 20), (6, 9, 10)])
    def test_no_piece_of_the_foreground_is_lost(self, method: str, shape: tuple[int, ...]) -> None:
        random = np.random.default_rng(0)
        embeddings, foreground = (
            random.normal(size=(3, *shape)).astype(np.float32),
            random.random(shape) < 0.3,
        )
        found = cluster_embeddings(embeddings, foreground, method, min_size=1)
        assert np.array_equal(found > 0, foreground)

    def test_an_object_on_a_slope_is_found(self) -> None:
        # embeddings that change faster and faster along x, as position-coded ones may
        embeddings = np.tile(np.linspace(0, 1, 30, dtype=np.float32) ** 2, (1, 30, 1))
        foreground = np.zeros((30, 30), bool)
        foreground[10:20, 10:20] = True
        assert np.array_equal(cluster_embeddings(embeddings, foreground), foreground)

    def test_a_drifting_object_stays_one_with_auto(self) -> None:
        drift = np.linspace(0, 3.5, 36, dtype=np.float32)[None, None].repeat(20, 1)
        embeddings = drift + np.random.default_rng(0).normal(0, 0.03, drift.shape).astype(np.float32)
        assert (cluster_embeddings(embeddings, method="auto") == 1).all()

    def test_delta_var_scales_with_the_embeddings(self) -> None:
        truth = scene_labels(2)
        embeddings = embed(truth, VECTORS, 0.1)
        for method in ("auto", "mean_shift", "hdbscan"):
            found = cluster_embeddings(100 * embeddings, truth > 0, method, delta_var=50)
            assert same_partition(found, cluster_embeddings(embeddings, truth > 0, method)), method

    def test_more_voxels_than_the_sample_holds(self) -> None:
        truth = scene_labels(2).repeat(6, 0).repeat(6, 1)
        assert (truth > 0).sum() > 15_000
        for method in ("mean_shift", "hdbscan"):
            assert same_partition(cluster_embeddings(embed(truth, VECTORS, 0.1), truth > 0, method), truth), method

    def test_hdbscan_finds_in_a_sample_what_is_large_enough_in_the_image(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("scripts.clustering.points.SAMPLE", 200)
        truth = np.repeat([1, 2], [30, 10]).astype(np.int32)[None].repeat(30, 0)  # 300 voxels, about 50 in the sample
        found = cluster_embeddings(embed(truth, VECTORS, 0.1), method="hdbscan", min_size=100)
        assert same_partition(found, truth)


def stripes(width: int) -> Labels:
    return np.arange(1, 13, dtype=np.int32).repeat(width)[:, None].repeat(60, 1)


def sheets(width: int) -> Labels:
    return np.arange(1, 9, dtype=np.int32).repeat(width)[:, None, None].repeat(15, 1).repeat(15, 2)


def rings(width: int) -> Labels:
    distance = np.hypot(*(np.indices((41, 41)) - 20))
    return np.where(distance < 18, distance // width + 1, 0).astype(np.int32)


def tubes(width: int) -> Labels:
    return np.arange(1, 10).reshape(3, 3).repeat(width, 0).repeat(width, 1)[:, :, None].repeat(30, 2).astype(np.int32)


def dumb_bells(width: int) -> Labels:
    """Two discs with a bridge of that width between them, three times."""
    rows, columns = np.indices((24, 60))
    disc = np.minimum(np.hypot(rows - 12, columns - 12), np.hypot(rows - 12, columns - 47)) < 9
    bridge = (abs(rows - 12 + 0.5) <= width / 2) & (columns > 12) & (columns < 47)
    return np.concatenate([np.where(disc | bridge, label, 0) for label in (1, 2, 3)]).astype(np.int32)


class TestThinObjects:
    """What is only a few voxels wide has few voxels to tell noise by, and touches itself at few faces."""

    @pytest.mark.parametrize(
        ("shape", "width"),
        [
            (shape, width)
            for shape in (stripes, sheets, rings, tubes, dumb_bells)
            for width in (1, 2, 3)
            if (shape, width) != (rings, 1)  # the pixels of which touch by corners only
        ],
    )
    @pytest.mark.parametrize("noise", [0.0, 0.3, 0.5])
    def test_auto_finds_them(self, shape: Callable[[int], Labels], width: int, noise: float) -> None:
        truth = shape(width)
        random = np.random.default_rng(0)
        directions = random.normal(size=(*truth.shape, 8))
        scatter = noise * directions / np.linalg.norm(directions, axis=-1, keepdims=True)
        vectors = well_apart(truth.max() + 1, 8, random)
        embeddings = np.moveaxis(vectors[truth] + scatter, -1, 0).astype(np.float32)
        foreground = None if truth.all() else truth > 0
        found = cluster_embeddings(embeddings, foreground, "auto", min_size=10)
        assert instance_metrics(found, np.where(large_enough(truth, 10), truth, 0))["ap50"] == 1


def large_enough(labels: Labels, voxels: int) -> NDArray[np.bool_]:
    return np.bincount(labels.ravel())[labels] >= voxels


class TestAgainstDensityClustering:
    """HDBSCAN looks at embeddings alone; on what the loss asks for, looking at the image too must not be worse."""

    @pytest.mark.parametrize("ndim", [2, 3])
    @pytest.mark.parametrize("scatter", [0.5, 1.0])
    @pytest.mark.parametrize("background", [True, False])
    def test_auto_is_as_good(self, ndim: int, scatter: float, background: bool) -> None:
        random = np.random.default_rng(0)
        shape = (70, 70) if ndim == 2 else (18, 20, 20)
        centers = random.random((20, ndim)) * shape
        voxels = np.moveaxis(np.indices(shape), 0, -1).astype(float)
        distance, nearest_center = cKDTree(centers).query(voxels)
        truth = np.where(distance < 8, nearest_center + 1, 0 if background else nearest_center + 1).astype(np.int32)
        vectors = well_apart(21, 8, random)
        noise = random.normal(0, scatter / 8**0.5, (*shape, 8))
        embeddings = np.moveaxis(vectors[truth] + noise, -1, 0).astype(np.float32)
        other = HDBSCAN(min_cluster_size=30, copy=True).fit(embeddings.reshape(8, -1).T).labels_.reshape(shape) + 1
        scores = [
            instance_metrics(clean_components(found.astype(np.int32), 30), truth)["ap50"]
            for found in (cluster_embeddings(embeddings, min_size=30), other)
        ]
        assert scores[0] >= scores[1] - 0.01


def well_apart(count: int, dim: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Vectors, 4 or more from each other."""
    vectors = np.empty((0, dim))
    while len(vectors) < count:
        vector = random.normal(0, 2, (1, dim))
        if (np.linalg.norm(vectors - vector, axis=1) >= 4).all():
            vectors = np.concatenate([vectors, vector])
    return vectors


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.57 GiB, max allowed: 27.20 GiB)."),
    ],
)
def test_what_does_not_fit_into_a_gpu_is_clustered_on_the_host(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def full_once(*arguments: Any) -> Labels:
        calls.append(arguments)
        if len(calls) == 1:
            raise error
        return agglomerate(*arguments)

    monkeypatch.setattr(clustering, "agglomerate", full_once)
    labels = scene_labels(2)
    assert np.array_equal(cluster(embed(labels, VECTORS), labels > 0, "auto"), labels)
    assert len(calls) == 2


@in_2d_and_3d
class TestConsistency:
    def test_drops_what_the_teacher_divides(self, ndim: int) -> None:
        truth = scene_labels(ndim)
        divided = truth.copy()
        divided[..., 8:14][truth[..., 8:14] == 1] = 4  # the teacher sees two objects in the first
        teacher = embed(divided, {**TEACHER, 4: [0.0, -5.0]})
        found = cluster(embed(truth, VECTORS), truth > 0, "consistency", teacher_embeddings=teacher)
        assert same_partition(found, np.where(truth == 1, 0, truth))

    def test_drops_what_the_teacher_joins(self, ndim: int) -> None:
        truth = scene_labels(ndim)
        teacher = embed(truth, {**TEACHER, 2: TEACHER[1]})  # the teacher sees one object in the touching two
        found = cluster(embed(truth, VECTORS), truth > 0, "consistency", teacher_embeddings=teacher)
        assert same_partition(found, np.where(truth == 3, 1, 0))

    def test_keeps_what_the_teacher_joins_with_the_background_alone(self, ndim: int) -> None:
        truth = scene_labels(ndim)
        teacher = embed(truth, {**TEACHER, 0: TEACHER[2]})
        found = cluster(embed(truth, VECTORS), truth > 0, "consistency", teacher_embeddings=teacher)
        assert same_partition(found, truth)

    def test_forgives_a_teacher_that_differs_a_little(self, ndim: int) -> None:
        truth = scene_labels(ndim)
        shifted = np.roll(truth, 1, axis=-1)
        found = cluster(embed(truth, VECTORS), truth > 0, "consistency", teacher_embeddings=embed(shifted, TEACHER))
        assert same_partition(found, truth)


def test_consistency_keeps_an_object_that_is_within_delta_var_of_its_mean() -> None:
    """Four of its six voxels see three themselves: too few, were the ball not moved to where most are."""
    teacher = np.array([[[0, 0, 0.4], [-0.4, 0, 0]], [[0, 0, 0], [0, 0.4, -0.4]]], np.float32)
    student = np.zeros_like(teacher)
    assert (cluster_embeddings(student, method="consistency", teacher_embeddings=teacher, min_size=1) == 1).all()


def test_consistency_drops_an_object_whose_voxels_the_teacher_leaves_for_others() -> None:
    """From 0 the ball moves by way of 0.45 towards 0.8, and the object is not in it any more."""
    truth = np.full((12, 12), 2, np.int32)
    truth[4:8, 4:8] = 1
    teacher = np.where(truth == 1, 0, np.float32(0.8))[None]
    teacher[0, :, :3] = 0.45
    embeddings = embed(truth, VECTORS)[1:]
    found = cluster_embeddings(embeddings, method="consistency", teacher_embeddings=teacher, min_size=10)
    assert np.array_equal(found > 0, truth == 2)


def test_consistency_keeps_a_large_object_far_from_the_origin() -> None:
    """In float32 the sum of a million embeddings, one by one, is far from what their mean is."""
    embeddings = np.zeros((2, 1000, 1000), np.float32)
    embeddings[0] = 200.3
    assert cluster_embeddings(embeddings, method="consistency", teacher_embeddings=embeddings).max() == 1


def two_halves(*shape: int, dim: int = 2) -> tuple[Labels, NDArray[np.float32]]:
    """Labels 1 and 2 on the two halves of the last axis, and their embeddings, 4 apart."""
    labels = np.ones(shape, np.int32)
    labels[..., shape[-1] // 2 :] = 2
    return labels, embed(labels, {0: [0.0] * dim, 1: [1.0] * dim, 2: [1.0] * (dim - 1) + [5.0]})


@every_method
class TestUnusualInput:
    """A right answer, whatever the numbers, the memory layout and the sizes are."""

    TRUTH, EMBEDDINGS = two_halves(6, 12)

    @pytest.mark.parametrize(
        "as_given",
        [
            np.float64,
            np.float16,
            np.int64,
            np.uint8,
            np.asfortranarray,
            lambda e: e[:, ::-1, ::-1].copy()[:, ::-1, ::-1],
            lambda e: np.repeat(e, 2, axis=-1)[..., ::2],
            lambda e: e.tolist(),
            lambda e: torch.from_numpy(e).bfloat16(),
            lambda e: torch.from_numpy(np.ascontiguousarray(e.T)).permute(2, 1, 0),
            lambda e: torch.from_numpy(e).int(),
        ],
    )
    def test_embeddings_of_any_type_and_layout(self, method: str, as_given: Callable[..., Any]) -> None:
        assert same_partition(cluster(as_given(self.EMBEDDINGS), None, method, min_size=5), self.TRUTH)

    @pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64, torch.bool, torch.int32, torch.bfloat16])
    def test_foreground_of_any_type(self, method: str, dtype: Any) -> None:
        left = self.TRUTH == 1
        foreground = torch.from_numpy(left).to(dtype) if isinstance(dtype, torch.dtype) else left.astype(dtype)
        assert np.array_equal(cluster(self.EMBEDDINGS, foreground, method, min_size=5), left)

    def test_the_input_is_left_alone(self, method: str) -> None:
        embeddings, foreground = self.EMBEDDINGS.copy(), self.TRUTH > 0
        for array in (embeddings, foreground):
            array.flags.writeable = False
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cluster(embeddings, foreground, method, min_size=5)

    def test_one_dimension(self, method: str) -> None:
        truth, embeddings = two_halves(4, 5, 12, dim=1)
        assert same_partition(cluster(embeddings, None, method, min_size=5), truth)

    @pytest.mark.parametrize("min_size", [0, 1])
    def test_no_smallest_size(self, method: str, min_size: int) -> None:
        assert same_partition(cluster(self.EMBEDDINGS, None, method, min_size=min_size), self.TRUTH)

    def test_nothing_is_large_enough(self, method: str) -> None:
        assert not cluster(self.EMBEDDINGS, None, method, min_size=10**9).any()

    @pytest.mark.parametrize("shape", [(1, 160, 160), (160, 1, 160), (2, 3, 4000), (1, 30_000)])
    def test_flat_and_long_images(self, method: str, shape: tuple[int, ...]) -> None:
        truth, embeddings = two_halves(*shape)
        assert same_partition(cluster(embeddings, None, method, min_size=100), truth)

    def test_more_objects_than_sixteen_bits_hold(self, method: str) -> None:
        if method == "consistency":
            pytest.skip("mean shift with a look at each cluster: 15 s for nothing new")
        foreground = np.zeros((520, 512), bool)
        foreground[::2, ::2] = True  # 66,560 pixels, none of which touches another one
        found = cluster(np.ones((1, *foreground.shape), np.float32), foreground, method, min_size=1)
        assert found.max() == 66_560
        assert np.array_equal(np.bincount(found.ravel())[1:], np.ones(66_560))

    def test_the_number_of_threads_does_not_show(self, method: str) -> None:
        embeddings = embed(scene_labels(2).repeat(4, 0).repeat(3, 1), VECTORS, 0.25)
        assert embeddings[0].size > SAMPLE
        before = torch.get_num_threads()
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(cluster(embeddings, None, method))
        torch.set_num_threads(before)
        assert np.array_equal(*found)


@every_method
class TestRefused:
    """What has no right answer is refused with one sentence that quotes it, by every method and before any work."""

    EMBEDDINGS = np.zeros((2, 5, 6), np.float32)

    def refuses(self, method: str, message: str, embeddings: Any = EMBEDDINGS, **options: Any) -> None:
        options = {"teacher_embeddings": self.EMBEDDINGS, **options}
        with pytest.raises(ValueError, match=message) as refusal:
            cluster_embeddings(embeddings, method=method, **options)
        assert "\n" not in str(refusal.value)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_embeddings_that_are_not_finite(self, method: str, value: float) -> None:
        embeddings = self.EMBEDDINGS.copy()
        embeddings[0, 1, 2:4] = value
        self.refuses(method, "^embeddings must be finite, got 2 NaN", embeddings)
        self.refuses(method, "^embeddings must be finite, got 2 NaN", torch.from_numpy(embeddings).half())

    def test_embeddings_that_are_a_sparse_tensor(self, method: str) -> None:
        self.refuses(
            method, "dense tensor, got the layout torch.sparse_coo", torch.from_numpy(self.EMBEDDINGS).to_sparse()
        )

    def test_embeddings_that_do_not_fit_into_float32(self, method: str) -> None:
        self.refuses(method, "finite, got 60 NaN or infinite", np.full((2, 5, 6), 1e300))

    def test_embeddings_whose_squares_do_not(self, method: str) -> None:
        self.refuses(
            method, r"within \+-1e\+15, got values from -1e\+30 to 0", np.linspace(-1e30, 0, 60).reshape(2, 5, 6)
        )

    @pytest.mark.parametrize("dtype", [np.complex64, object, str])
    def test_embeddings_that_are_no_real_numbers(self, method: str, dtype: type) -> None:
        self.refuses(method, "real numbers, got the data type", self.EMBEDDINGS.astype(dtype))

    @pytest.mark.parametrize("shape", [(5, 6), (1, 2, 3, 4, 5), ()])
    def test_other_dimensions(self, method: str, shape: tuple[int, ...]) -> None:
        self.refuses(method, f"2D or 3D, got .{', '.join(map(str, shape))}", np.zeros(shape))

    @pytest.mark.parametrize("shape", [(0, 5, 6), (2, 0, 6), (2, 5, 6, 0)])
    def test_an_empty_axis(self, method: str, shape: tuple[int, ...]) -> None:
        self.refuses(method, rf"no empty axis, got the shape \({', '.join(map(str, shape))}\)", np.zeros(shape))

    @pytest.mark.parametrize("delta_var", [0.0, -0.5, math.nan, math.inf, 1e300, "0.5", None])
    def test_delta_var(self, method: str, delta_var: Any) -> None:
        self.refuses(
            method,
            rf"delta_var must be positive and at most 1e\+15, got {re.escape(repr(delta_var))}",
            delta_var=delta_var,
        )

    @pytest.mark.parametrize("merge_threshold", [0, -1.0, math.nan, "2"])
    def test_merge_threshold(self, method: str, merge_threshold: Any) -> None:
        self.refuses(
            method, f"merge_threshold must be positive, got {merge_threshold!r}", merge_threshold=merge_threshold
        )

    @pytest.mark.parametrize("min_size", [-1, 2.5, math.nan, "50", None])
    def test_min_size(self, method: str, min_size: Any) -> None:
        self.refuses(method, f"whole number of voxels and not negative, got {min_size!r}", min_size=min_size)

    @pytest.mark.parametrize("shape", [(6, 5), (5, 6, 1), (1, 5, 6), (30,)])
    def test_a_foreground_of_another_shape(self, method: str, shape: tuple[int, ...]) -> None:
        self.refuses(method, rf"\(5, 6\), got \({', '.join(map(str, shape))}", foreground=np.ones(shape, bool))

    @pytest.mark.parametrize("value", [0.5, np.nan, 1 + 0j, "yes", None])
    def test_a_foreground_that_is_no_mask(self, method: str, value: Any) -> None:
        foreground = np.full((5, 6), value)
        self.refuses(method, "foreground must be a mask of 0 and 1, got", foreground=foreground)

    def test_a_negative_foreground(self, method: str) -> None:
        foreground = np.array([[1, 1, 0, 0, -7, 0]] * 5)
        self.refuses(method, "foreground must be a mask, 0 outside, got the negative value -7", foreground=foreground)


class TestRefusedOnce:
    EMBEDDINGS = TestRefused.EMBEDDINGS

    def test_an_unknown_method(self) -> None:
        with pytest.raises(ValueError, match="one of auto, mean_shift, hdbscan, consistency, got 'kmeans'"):
            cluster_embeddings(self.EMBEDDINGS, method="kmeans")

    def test_consistency_without_a_teacher(self) -> None:
        with pytest.raises(ValueError, match="teacher_embeddings, got None"):
            cluster_embeddings(self.EMBEDDINGS, method="consistency")

    def test_a_teacher_that_is_not_finite(self) -> None:
        with pytest.raises(ValueError, match="^teacher_embeddings must be finite, got 60 NaN"):
            cluster_embeddings(self.EMBEDDINGS, method="consistency", teacher_embeddings=self.EMBEDDINGS + np.nan)

    @pytest.mark.parametrize("shape", [(2, 6, 5), (3, 5, 6), (2, 5, 6, 1)])
    def test_a_teacher_of_another_shape(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=rf"\(2, 5, 6\), got \({', '.join(map(str, shape))}\)"):
            cluster_embeddings(self.EMBEDDINGS, method="consistency", teacher_embeddings=np.zeros(shape))


@pytest.mark.skipif(not SHARED.exists(), reason="the development images are not part of the repository")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "step"), [("nuclei3d/1136_labels", (2, 3, 3)), ("membranes3d/upper_labels", (2, 5, 5))]
)
def test_real_shapes(name: str, step: tuple[int, int, int], method: str) -> None:
    """Ideal embeddings of real objects: one random direction per object, with noise below delta_var."""
    path = next(SHARED.glob(f"{name}*"))
    truth = tifffile.imread(path)[tuple(slice(None, None, s) for s in step)].astype(np.int32)
    truth = clean_components(truth, min_size=50)
    directions = np.random.default_rng(0).normal(size=(truth.max() + 1, 16))
    vectors = 6 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    embeddings = embed(truth, dict(enumerate(vectors.tolist())), noise=0.08)
    found = cluster(embeddings, truth > 0, method)
    assert_instance_map(found, truth > 0, 50)
    shares = shares_found(found, truth, at_least=200)  # of smaller ones the sample may hold no voxel
    assert len(shares) > 10
    assert np.mean(shares) > 0.9
