"""The metrics, specified by maps counted by hand, by others' implementations, and by what must never be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.data import MetaTensor
from monai.metrics.panoptic_quality import compute_panoptic_quality
from scipy.optimize import linear_sum_assignment
from skimage.metrics import adapted_rand_error, variation_of_information

from scripts.metrics.instances import METRIC_NAMES, InstanceMetrics, instance_metrics

PERFECT = {
    "ap50": 1.0,
    "ap": 1.0,
    "f1": 1.0,
    "sbd": 1.0,
    "dic": 0.0,
    "pq": 1.0,
    "arand": 0.0,
    "voi_split": 0.0,
    "voi_merge": 0.0,
    "annotated_iou": 1.0,
}


def labels(*ids: int) -> np.ndarray:
    return np.array(ids, dtype=np.int32)


def random_labels(seed: int, objects: int = 12, shape: tuple[int, ...] = (8, 12, 10)) -> np.ndarray:
    """Blocks of 2 x 2 x 2 voxels with random ids 0..objects."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, objects + 1, [size // 2 for size in shape])
    for axis in range(len(shape)):
        coarse = coarse.repeat(2, axis=axis)
    return coarse


def noisy(truth: np.ndarray, seed: int, share: float = 0.2) -> np.ndarray:
    """The truth with a share of its voxels given to random other objects."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(truth.shape) < share, rng.permutation(truth.ravel()).reshape(truth.shape), truth)


class TestByHand:
    def test_two_objects_found_exactly(self) -> None:
        truth = labels(1, 1, 0, 2, 2)
        assert instance_metrics(truth, truth) == PERFECT

    def test_two_objects_merged_into_one(self) -> None:
        # The prediction has IoU 4 / 6 with the larger object and 2 / 6 with the smaller one.
        metrics = instance_metrics(labels(7, 7, 7, 7, 7, 7), labels(1, 1, 1, 1, 2, 2))
        assert metrics["ap50"] == 1 / 2  # TP 1, FN 1
        assert metrics["ap"] == pytest.approx(4 / 10 / 2)  # 4 of 10 thresholds are at most 2 / 3
        assert metrics["f1"] == pytest.approx(2 / 3)
        assert metrics["sbd"] == pytest.approx((8 / 10 + 4 / 8) / 2)  # truth side; the other side has 8 / 10
        assert metrics["dic"] == 1
        assert metrics["pq"] == pytest.approx((4 / 6) / 1.5)
        assert metrics["arand"] == pytest.approx(1 - 14 / ((14 + 30) / 2))  # ordered pairs: 4*3 + 2*1, 6*5
        assert metrics["voi_split"] == 0
        assert metrics["voi_merge"] == pytest.approx(math.log2(3) - 2 / 3)  # entropy of 2/3, 1/3
        assert metrics["annotated_iou"] == pytest.approx((4 / 6 + 2 / 6) / 2)

    def test_one_object_split_is_the_merge_with_exchanged_roles(self) -> None:
        one, two = labels(7, 7, 7, 7, 7, 7), labels(1, 1, 1, 1, 2, 2)
        split, merge = instance_metrics(two, one), instance_metrics(one, two)
        for name in ("ap50", "ap", "f1", "sbd", "dic", "pq", "arand"):
            assert split[name] == pytest.approx(merge[name])
        assert split["voi_split"] == pytest.approx(merge["voi_merge"])
        assert split["voi_merge"] == 0
        assert split["annotated_iou"] == pytest.approx(4 / 6)

    def test_shifted_square(self) -> None:
        truth, prediction = np.zeros((12, 12), int), np.zeros((12, 12), int)
        truth[2:8, 2:8] = 1
        prediction[2:8, 3:9] = 1  # shared 6 * 5 = 30, union 6 * 7 = 42: IoU 5 / 7, Dice 60 / 72
        metrics = instance_metrics(prediction, truth)
        assert metrics["annotated_iou"] == pytest.approx(5 / 7)
        assert metrics["sbd"] == pytest.approx(5 / 6)
        assert metrics["pq"] == pytest.approx(5 / 7)
        assert metrics["ap50"] == 1
        assert metrics["ap"] == 0.5  # found at 0.5, 0.55, 0.6, 0.65, 0.7

    @pytest.mark.parametrize("label", ["2", True, 2.0])
    def test_a_background_label_that_is_no_integer(self, label: Any) -> None:
        with pytest.raises(ValueError, match=f"background_label must be an integer or None, got {label!r}"):
            instance_metrics([1, 2], [1, 2], background_label=label)

    def test_a_missed_and_an_invented_object(self) -> None:
        metrics = instance_metrics(labels(1, 1, 0, 0, 3, 3), labels(1, 1, 2, 2, 0, 0))
        assert metrics["ap50"] == 1 / 3
        assert metrics["ap"] == pytest.approx(1 / 3)
        assert metrics["f1"] == metrics["pq"] == metrics["sbd"] == 0.5
        assert metrics["dic"] == 0
        assert metrics["annotated_iou"] == 0.5

    @pytest.mark.parametrize(("shared", "found_at"), [(10, 1), (11, 2), (15, 6), (19, 10), (20, 10)])
    def test_an_iou_equal_to_a_threshold_is_a_match(self, shared: int, found_at: int) -> None:
        truth, prediction = np.ones(20, int), np.zeros(20, int)
        prediction[:shared] = 1
        assert instance_metrics(prediction, truth)["ap"] == pytest.approx(found_at / 10)

    def test_of_two_equal_halves_one_is_the_match(self) -> None:
        halves, whole = labels(1, 1, 2, 2), labels(5, 5, 5, 5)
        for prediction, truth in ((halves, whole), (whole, halves)):
            metrics = instance_metrics(prediction, truth)
            assert metrics["ap50"] == 0.5  # one TP, one unmatched
            assert metrics["f1"] == pytest.approx(2 / 3)
            assert metrics["pq"] == 0  # strictly above 0.5, as in its paper


class TestSparse:
    """0 in the truth means that nobody looked there."""

    def test_a_prediction_where_nobody_looked_is_not_false(self) -> None:
        prediction, truth = labels(1, 1, 0, 4, 4, 4, 0), labels(5, 5, 0, 0, 0, 0, 0)
        assert instance_metrics(prediction, truth, sparse=True) == PERFECT
        assert instance_metrics(prediction, truth)["ap50"] == 0.5

    @pytest.mark.parametrize(("on_annotated", "on_unlabelled", "false"), [(1, 2, 0), (2, 2, 1), (2, 1, 1)])
    def test_it_is_false_if_at_most_half_of_it_is_unlabelled(
        self, on_annotated: int, on_unlabelled: int, false: int
    ) -> None:
        truth = labels(*[1] * 10, *[0] * 10)
        prediction = np.zeros(20, int)
        prediction[:7] = 1  # finds the object, IoU 0.7
        prediction[10 - on_annotated : 10 + on_unlabelled] = 2
        metrics = instance_metrics(prediction, truth, sparse=True)
        assert metrics["ap50"] == 1 / (1 + false)
        assert metrics["dic"] == false

    def test_spilling_out_of_an_annotated_object_is_wrong(self) -> None:
        # The annotated object is whole: a prediction twice its size has IoU 0.5, and three times is a miss.
        truth = labels(1, 1, 0, 0, 0, 0)
        twice, thrice = labels(3, 3, 3, 3, 0, 0), labels(3, 3, 3, 3, 3, 3)
        assert instance_metrics(twice, truth, sparse=True)["annotated_iou"] == 0.5
        assert instance_metrics(twice, truth, sparse=True)["ap50"] == 1
        assert instance_metrics(thrice, truth, sparse=True)["annotated_iou"] == pytest.approx(1 / 3)
        assert instance_metrics(thrice, truth, sparse=True)["ap50"] == 0

    def test_one_segment_for_everything_is_not_rewarded(self) -> None:
        truth = np.zeros((10, 10), int)
        truth[:2, :2], truth[5:7, 5:7] = 1, 2
        metrics = instance_metrics(np.ones((10, 10), int), truth, sparse=True)
        assert metrics["ap50"] == metrics["sbd"] == metrics["pq"] == 0
        assert metrics["annotated_iou"] == pytest.approx(4 / 100)
        assert metrics["voi_merge"] == 1

    @pytest.mark.parametrize("seed", range(5))
    def test_annotated_iou_rand_and_voi_are_the_same_sparse_or_not(self, seed: int) -> None:
        prediction, truth = random_labels(seed), random_labels(seed + 100)
        truth[truth > 3] = 0
        dense, sparse = (instance_metrics(prediction, truth, sparse=value) for value in (False, True))
        for name in ("annotated_iou", "arand", "voi_split", "voi_merge"):
            assert dense[name] == sparse[name]

    @pytest.mark.parametrize("seed", range(5))
    def test_without_unlabelled_voxels_sparse_changes_nothing(self, seed: int) -> None:
        truth = random_labels(seed) + 1
        prediction = noisy(truth, seed)
        assert instance_metrics(prediction, truth, sparse=True) == instance_metrics(prediction, truth)

    def test_an_instance_on_painted_background_is_wrong(self) -> None:
        prediction, truth = labels(1, 1, 0, 4, 4, 4, 0), labels(5, 5, 0, 7, 7, 0, 0)
        assert instance_metrics(prediction, truth, sparse=True, background_label=7)["ap50"] == 0.5
        assert instance_metrics(prediction, labels(5, 5, 0, 7, 0, 0, 0), True, background_label=7) == PERFECT

    @pytest.mark.parametrize("seed", range(5))
    def test_where_all_else_is_painted_sparse_changes_nothing(self, seed: int) -> None:
        prediction, truth = random_labels(seed), random_labels(seed + 100)
        painted = np.where(truth == 0, 300, truth)
        expected = instance_metrics(prediction, truth)
        for sparse in (False, True):
            assert instance_metrics(prediction, painted, sparse, background_label=300) == expected

    def test_a_truth_without_objects_contradicts_nothing(self) -> None:
        assert instance_metrics(labels(1, 1, 0, 2), labels(0, 0, 0, 0), sparse=True) == PERFECT


class TestEmpty:
    @pytest.mark.parametrize("sparse", [False, True])
    @pytest.mark.parametrize("shape", [(4, 4), (2, 3, 4), (0,), (3, 0)])
    def test_both_empty_is_perfect(self, shape: tuple[int, ...], sparse: bool) -> None:
        empty = np.zeros(shape, int)
        assert instance_metrics(empty, empty, sparse=sparse) == PERFECT

    @pytest.mark.parametrize("sparse", [False, True])
    def test_nothing_predicted(self, sparse: bool) -> None:
        metrics = instance_metrics(labels(0, 0, 0, 0, 0), labels(1, 1, 2, 2, 0), sparse=sparse)
        for name in ("ap50", "ap", "f1", "sbd", "pq", "annotated_iou"):
            assert metrics[name] == 0
        assert metrics["arand"] == 1
        assert metrics["dic"] == 2
        assert (metrics["voi_split"], metrics["voi_merge"]) == (0, 1)  # two objects of one size: 1 bit

    def test_nothing_predicted_but_where_nobody_looked(self) -> None:
        truth = labels(1, 1, 0, 0, 0)
        elsewhere, everywhere = labels(0, 0, 3, 3, 3), labels(3, 3, 3, 3, 3)
        assert instance_metrics(elsewhere, truth, sparse=True)["arand"] == 1
        assert instance_metrics(everywhere, truth, sparse=True)["arand"] == 0  # both voxels are together

    def test_nothing_annotated_in_a_fully_annotated_image(self) -> None:
        metrics = instance_metrics(labels(1, 1, 2, 2, 0), labels(0, 0, 0, 0, 0))
        for name in ("ap50", "ap", "f1", "sbd", "pq", "annotated_iou"):
            assert metrics[name] == 0
        assert metrics["arand"] == 1
        assert metrics["dic"] == 2
        assert (metrics["voi_split"], metrics["voi_merge"]) == (1, 0)


class TestOracles:
    """Others' implementations give the same numbers."""

    @pytest.mark.parametrize("seed", range(8))
    def test_rand_and_voi_are_scikit_images(self, seed: int) -> None:
        truth = random_labels(seed)
        prediction = noisy(truth, seed) if seed % 2 else random_labels(seed + 50, objects=5)
        metrics = instance_metrics(prediction, truth)
        split, merge = variation_of_information(truth, prediction, ignore_labels=(0,))
        assert metrics["arand"] == pytest.approx(adapted_rand_error(truth, prediction, ignore_labels=(0,))[0])
        assert metrics["voi_split"] == pytest.approx(split)
        assert metrics["voi_merge"] == pytest.approx(merge)

    @pytest.mark.parametrize("seed", range(4))
    def test_panoptic_quality_is_monais(self, seed: int) -> None:
        truth = random_labels(seed)
        prediction = noisy(truth, seed)
        expected = compute_panoptic_quality(torch.tensor(prediction), torch.tensor(truth), smooth_numerator=0.0)
        assert instance_metrics(prediction, truth)["pq"] == pytest.approx(expected.item(), abs=1e-6)

    @given(hnp.arrays(np.int32, (2, 12), elements=st.integers(0, 3)))
    def test_detection_and_dice_are_those_of_masks_compared_one_by_one(self, maps: np.ndarray) -> None:
        prediction, truth = maps
        predicted = [prediction == number for number in np.unique(prediction[prediction > 0])]
        annotated = [truth == number for number in np.unique(truth[truth > 0])]
        if not predicted or not annotated:
            return
        iou = np.array([[(t & p).sum() / (t | p).sum() for p in predicted] for t in annotated])
        dice = np.array([[2 * (t & p).sum() / (t.sum() + p.sum()) for p in predicted] for t in annotated])
        precisions = []
        for threshold in np.arange(10, 20) / 20:
            rows, columns = linear_sum_assignment(iou >= threshold, maximize=True)
            matched = (iou[rows, columns] >= threshold).sum()
            precisions.append(matched / (len(annotated) + len(predicted) - matched))
        metrics = instance_metrics(prediction, truth)
        assert metrics["ap50"] == pytest.approx(precisions[0])
        assert metrics["ap"] == pytest.approx(np.mean(precisions))
        assert metrics["sbd"] == pytest.approx(min(dice.max(axis=0).mean(), dice.max(axis=1).mean()))
        assert metrics["annotated_iou"] == pytest.approx(iou.max(axis=1).mean())


class TestProperties:
    @pytest.mark.parametrize("sparse", [False, True])
    @pytest.mark.parametrize("seed", range(4))
    def test_ids_do_not_matter(self, seed: int, sparse: bool) -> None:
        truth = random_labels(seed)
        prediction = noisy(truth, seed)
        rng = np.random.default_rng(seed)
        renamed = [np.concatenate(([0], rng.choice(2**31, 12, replace=False) + 1)) for _ in range(2)]
        expected = instance_metrics(prediction, truth, sparse)
        metrics = instance_metrics(renamed[0][prediction], renamed[1][truth], sparse)
        assert metrics == pytest.approx(expected)

    @pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", ">u2", "uint32", "int64", "uint64"])
    def test_integer_types_do_not_matter(self, dtype: str) -> None:
        truth = random_labels(3)
        expected = instance_metrics(noisy(truth, 1), truth)
        assert instance_metrics(noisy(truth, 1).astype(dtype), truth.astype(dtype)) == expected

    def test_tensors_are_the_same_as_arrays(self) -> None:
        truth = random_labels(3)
        prediction = noisy(truth, 1)
        metrics = instance_metrics(MetaTensor(torch.tensor(prediction)), torch.tensor(truth))
        assert metrics == instance_metrics(prediction, truth)

    @given(hnp.arrays(np.int64, hnp.array_shapes(max_dims=3, max_side=6), elements=st.integers(0, 5)))
    def test_the_truth_itself_is_perfect(self, truth: np.ndarray) -> None:
        assert instance_metrics(truth, truth) == PERFECT
        assert instance_metrics(truth, truth, sparse=True) == PERFECT

    @given(
        data=st.data(),
        shape=hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5),
        largest=st.sampled_from([1, 3, 2**31, 2**62]),
        sparse=st.booleans(),
    )
    def test_every_pair_of_maps_has_finite_metrics_within_their_range(
        self, data: st.DataObject, shape: tuple[int, ...], largest: int, sparse: bool
    ) -> None:
        maps = hnp.arrays(np.int64, shape, elements=st.integers(0, largest))
        metrics = instance_metrics(data.draw(maps), data.draw(maps), sparse)
        assert tuple(metrics) == METRIC_NAMES
        assert all(type(value) is float and math.isfinite(value) and value >= 0 for value in metrics.values())
        assert all(metrics[name] <= 1 for name in METRIC_NAMES if name not in ("dic", "voi_split", "voi_merge"))

    def test_many_objects_need_no_dense_table(self) -> None:
        truth = np.arange(200_000) + 1  # a dense table would hold 4e10 numbers
        assert instance_metrics(truth[::-1], truth) == PERFECT


class TestRefused:
    def test_different_shapes(self) -> None:
        with pytest.raises(ValueError, match=r"same shape, but they have \(2, 3\) and \(3, 2\)\."):
            instance_metrics(np.zeros((2, 3), int), np.zeros((3, 2), int))

    @pytest.mark.parametrize("value", [np.zeros(3), torch.zeros(3, dtype=torch.bfloat16), np.zeros(3, bool)])
    def test_not_integers(self, value: np.ndarray | torch.Tensor) -> None:
        with pytest.raises(TypeError, match=r"ground_truth must be .* integers, but its dtype is .*(float|bool)"):
            instance_metrics(np.zeros(3, int), value)

    def test_negative_ids(self) -> None:
        with pytest.raises(ValueError, match=r"prediction must hold ids >= 0, but its smallest is -4\."):
            instance_metrics(labels(0, -4, 1), labels(0, 1, 1))


class TestInstanceMetrics:
    @staticmethod
    def images(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(prediction, truth) pairs, each (1, *spatial)."""
        truths = [random_labels(seed)[None] for seed in range(count)]
        return [
            (torch.tensor(noisy(truth, 1, share=seed / 10)), torch.tensor(truth)) for seed, truth in enumerate(truths)
        ]

    def test_the_mean_over_batches_and_lists(self) -> None:
        images = self.images(4)
        metric = InstanceMetrics()
        metric(*(torch.stack(maps) for maps in zip(*images[:2], strict=True)))  # (2, 1, *spatial)
        metric(*(list(maps) for maps in zip(*images[2:], strict=True)))  # lists of (1, *spatial)
        rows = [instance_metrics(prediction[0], truth[0]) for prediction, truth in images]
        expected = {name: np.mean([row[name] for row in rows]) for name in METRIC_NAMES}
        assert metric.aggregate() == pytest.approx(expected)
        assert metric.per_image().tolist() == [[row[name] for name in METRIC_NAMES] for row in rows]

    def test_reset_forgets(self) -> None:
        (bad, truth), metric = (self.images(4)[3], InstanceMetrics())
        metric([bad], [truth])
        metric.reset()
        metric([truth], [truth])
        assert metric.aggregate() == PERFECT

    def test_sparse_leaves_images_without_annotation_out_of_the_mean(self) -> None:
        missed, nothing = torch.tensor([[1, 1, 0]]), torch.zeros(1, 3, dtype=torch.int32)
        metric = InstanceMetrics(sparse=True)
        metric([nothing, missed], [missed, nothing])
        assert metric.aggregate()["annotated_iou"] == 0
        assert metric.per_image()[:, METRIC_NAMES.index("annotated_iou")].tolist() == [0, 1]

    def test_a_label_that_the_map_cannot_hold_is_nowhere_in_it(self) -> None:
        metric = InstanceMetrics(sparse=True, background_label=2**32 + 1)  # 1 in 32 bits
        metric([torch.ones(1, 3, dtype=torch.int32)], [torch.ones(1, 3, dtype=torch.int32)])
        assert metric.has_seen_objects()

    def test_sparse_without_any_annotation_is_still_a_number(self) -> None:
        metric = InstanceMetrics(sparse=True)
        metric([torch.ones(1, 3, dtype=torch.int32)], [torch.zeros(1, 3, dtype=torch.int32)])
        assert metric.aggregate() == PERFECT

    def test_refuses_channels_and_unequal_batches(self) -> None:
        metric = InstanceMetrics()
        two_channels, one = (
            torch.zeros(1, 2, 4, 4, dtype=torch.int32),
            torch.zeros(1, 1, 4, 4, dtype=torch.int32),
        )
        with pytest.raises(ValueError, match=r"prediction must have .* but it has \(1, 2, 4, 4\)"):
            metric(two_channels, one)
        with pytest.raises(ValueError, match="prediction has 2 images, but ground_truth has 1"):
            metric(one.repeat(2, 1, 1, 1), one)
        with pytest.raises(ValueError, match="0 images"):
            metric.aggregate()

    def test_two_processes_with_three_and_two_images_are_one_process_with_five(self, tmp_path: Path) -> None:
        torch.multiprocessing.spawn(_aggregate_on_rank, args=(str(tmp_path), ([0, 1, 2], [3, 4])), nprocs=2)
        metric = InstanceMetrics()
        metric(*(list(maps) for maps in zip(*self.images(5), strict=True)))
        for rank in range(2):
            mean, rows = torch.load(tmp_path / f"{rank}.pt")
            assert mean == pytest.approx(metric.aggregate(), abs=1e-12)
            assert rows.tolist() == metric.per_image().tolist()

    def test_an_image_that_another_process_repeats_counts_once(self, tmp_path: Path) -> None:
        torch.multiprocessing.spawn(_aggregate_on_rank, args=(str(tmp_path), ([3, 4], [3]), 1), nprocs=2)
        metric = InstanceMetrics()
        metric(*(list(maps) for maps in zip(*self.images(5)[3:], strict=True)))
        for rank in range(2):
            assert torch.load(tmp_path / f"{rank}.pt")[0] == pytest.approx(metric.aggregate(), abs=1e-12)


def _aggregate_on_rank(rank: int, folder: str, shares: tuple[list[int], ...], repeats: int | None = None) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/init", rank=rank, world_size=2)
    images = TestInstanceMetrics.images(5)
    metric = InstanceMetrics(is_repetition=rank == repeats)
    for number in shares[rank]:
        prediction, truth = images[number]
        metric([prediction], [truth])
    torch.save((metric.aggregate(), metric.per_image()), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
