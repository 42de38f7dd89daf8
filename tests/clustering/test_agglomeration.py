"""Agglomeration: the evidence of a border by hand, the order of merges, and whole drifting and touching objects."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from scripts.clustering.agglomeration import (
    HIGHEST_THRESHOLD,
    LOWEST_THRESHOLD,
    PRIOR_FACES,
    PRIOR_JUMP,
    STEP_FACTOR,
    Hierarchy,
    RegionGraph,
    agglomerate,
    build_hierarchy,
    estimated_threshold,
    merge_regions,
)
from scripts.clustering.interfaces import DISTANCE, measure_interfaces
from scripts.geometry.voxels import ForegroundVoxels
from scripts.metrics import instance_metrics

DELTA_VAR = 0.5


def strip(*values: float, height: int = 1) -> Tensor:
    """Embeddings (1, height, N) that change along x only."""
    return torch.tensor(values, dtype=torch.float32).repeat(1, height, 1)


def everywhere(embeddings: Tensor) -> Tensor:
    return torch.ones(embeddings.shape[1:], dtype=torch.bool)


def noise(shape: tuple[int, ...], deviation: float = 1.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0, deviation, shape).astype(np.float32))


def graph_of(embeddings: Tensor, ids: list[list[int]], delta_var: float = DELTA_VAR) -> RegionGraph:
    image = torch.tensor(ids)
    regions = torch.cat([image[image > 0], torch.zeros(1, dtype=torch.long)])  # the last stands for what lies outside
    return RegionGraph(measure_interfaces(ForegroundVoxels(embeddings, image > 0), regions), delta_var)


def row_graph(values: list[float], ids: list[int], delta_var: float = DELTA_VAR) -> RegionGraph:
    return graph_of(strip(*values), [ids], delta_var)


class TestEvidence:
    def test_mean_jump_in_delta_var(self) -> None:
        # one face with a jump of 3, that is 6 delta_var, and the faces that are added, in a geometric mean
        evidence = row_graph([0, 0, 0, 3, 3, 3], [1, 1, 1, 2, 2, 2]).evidence(1, 2)
        assert evidence == pytest.approx((6 * PRIOR_JUMP**PRIOR_FACES) ** (1 / (1 + PRIOR_FACES)))

    def test_without_a_jump_one_face_is_enough(self) -> None:
        assert row_graph([1, 1, 1, 1], [1, 1, 2, 2]).evidence(1, 2) == 0

    def test_many_faces_outweigh_those_that_are_added(self) -> None:
        embeddings = strip(0, 0, 0, 3, 3, 3, height=500)
        assert graph_of(embeddings, [[1, 1, 1, 2, 2, 2]] * 500).evidence(1, 2) == pytest.approx(6, rel=0.01)

    def test_it_is_the_same_both_ways(self) -> None:
        graph = row_graph([0, 1, 0, 4, 5, 4], [1, 1, 1, 2, 2, 2])
        assert graph.evidence(1, 2) == graph.evidence(2, 1)

    def test_it_has_no_unit(self) -> None:
        values, ids = [0, 0.5, 0, 4, 4, 5], [1, 1, 1, 2, 2, 2]
        large = row_graph([3 * value for value in values], ids, 3 * DELTA_VAR)
        assert large.evidence(1, 2) == pytest.approx(row_graph(values, ids).evidence(1, 2))


class TestMerging:
    def test_the_least_evidence_merges_first(self) -> None:
        graph = row_graph([0, 0, 1, 1, 5, 5], [1, 1, 2, 2, 3, 3])
        merges, evidence = merge_regions(graph)
        assert [set(pair) for pair in merges.tolist()] == [{1, 2}, {merges[0][0], 3}]
        assert evidence[0] < evidence[1]

    def test_neighbours_are_inherited(self) -> None:
        graph = row_graph([0, 1, 2], [1, 2, 3])
        assert graph.merge(1, 2) == [3]
        assert graph.neighbors[1].keys() == {3}
        assert graph.neighbors[3].keys() == {1}

    def test_interfaces_with_both_are_joined(self) -> None:
        # region 3 lies below 1 and 2: one face with each
        graph = graph_of(torch.zeros(1, 2, 2), [[1, 2], [3, 3]])
        graph.merge(1, 2)
        assert graph.neighbors[1][3] == (0, 2, 2)

    def test_the_mean_of_a_joined_interface_counts(self) -> None:
        # 1 and 2 are alike; 3, below both, is a little away from 1 and far from 2
        graph = graph_of(torch.tensor([[[0.0, 0], [1, 9]]]), [[1, 2], [3, 3]])
        merges, evidence = merge_regions(graph)
        assert set(merges[0].tolist()) == {1, 2}
        # two faces, with jumps of 1 and 9, beside those that are added
        expected = ((10 / 2 / DELTA_VAR) ** 2 * PRIOR_JUMP**PRIOR_FACES) ** (1 / (2 + PRIOR_FACES))
        assert evidence[1] == pytest.approx(expected)

    def test_regions_that_do_not_touch_merge_only_by_way_of_others(self) -> None:
        # 1 and 3 are alike, and 2 lies between them, as wide as distant pairs allow
        graph = row_graph([0, 0, *[1] * (DISTANCE - 1), 0, 0], [1, 1, *[2] * (DISTANCE - 1), 3, 3])
        assert graph.evidence(1, 3) == math.inf
        merges, evidence = merge_regions(graph)
        assert 2 in merges[0]
        assert np.isfinite(evidence).tolist() == [True, True]

    def test_distant_pairs_count_once_what_lies_between_has_merged(self) -> None:
        # 2 goes over from 1 to 3 in two steps of 2; that these are 4 apart only their distant pair shows
        graph = row_graph([0, 0, *[2] * (DISTANCE - 1), 4, 4], [1, 1, *[2] * (DISTANCE - 1), 3, 3])
        before = graph.evidence(2, 3)
        graph.merge(2, 1)
        assert graph.evidence(2, 3) > before

    def test_the_limit_itself_does_not_merge(self) -> None:
        limit = row_graph([0, 0, 1, 1], [1, 1, 2, 2]).evidence(1, 2)
        assert len(merge_regions(row_graph([0, 0, 1, 1], [1, 1, 2, 2]), limit)[0]) == 0
        assert len(merge_regions(row_graph([0, 0, 1, 1], [1, 1, 2, 2]), math.nextafter(limit, 9))[0]) == 1

    def test_nothing_touches(self) -> None:
        merges, evidence = merge_regions(row_graph([0, 0, 0], [1, 0, 2]))
        assert merges.shape == (0, 2)
        assert evidence.shape == (0,)


class TestEstimatedThreshold:
    def threshold(self, embeddings: Tensor, delta_var: float = DELTA_VAR) -> float:
        return estimated_threshold(ForegroundVoxels(embeddings, everywhere(embeddings)), delta_var)

    def test_it_grows_with_the_steps_inside_objects(self) -> None:
        assert self.threshold(strip(*np.arange(40) * 0.125)) == pytest.approx(STEP_FACTOR * 0.125 / DELTA_VAR)

    def test_it_grows_with_the_jumps_at_borders(self) -> None:
        # a tenth of all steps is a border, and 3 delta_var high
        assert self.threshold(strip(*np.arange(60) // 10 * 3 * DELTA_VAR)) == pytest.approx(3)

    @pytest.mark.parametrize("values", [[0] * 40, [0]])
    def test_calm_embeddings_have_the_lowest(self, values: list[float]) -> None:
        assert self.threshold(strip(*values)) == LOWEST_THRESHOLD

    def test_embeddings_that_scatter_have_the_highest(self) -> None:
        assert self.threshold(noise((4, 20, 20), DELTA_VAR)) == HIGHEST_THRESHOLD

    def test_it_has_no_unit(self) -> None:
        embeddings = strip(*np.arange(40) * 0.13)
        assert self.threshold(10 * embeddings, 10 * DELTA_VAR) == pytest.approx(self.threshold(embeddings))

    def test_it_is_used_where_none_is_given(self) -> None:
        embeddings = noise((2, 30, 30), 0.1) + strip(*[0] * 15, *[1.2] * 15, height=30)
        voxels = everywhere(embeddings)
        threshold = self.threshold(embeddings)
        assert LOWEST_THRESHOLD < threshold < HIGHEST_THRESHOLD
        assert np.array_equal(agglomerate(embeddings, voxels), agglomerate(embeddings, voxels, threshold=threshold))


class TestCut:
    HIERARCHY = Hierarchy(
        regions=np.array([[0, 1, 2, 3, 4]], np.int32),
        merges=np.array([[2, 1], [3, 4], [3, 2]]),
        evidence=np.array([0.5, 1.0, 2.0]),
    )

    @pytest.mark.parametrize(
        ("threshold", "expected"),
        [(0.5, [0, 1, 2, 3, 4]), (0.6, [0, 1, 1, 2, 3]), (1.5, [0, 1, 1, 2, 2]), (9, [0, 1, 1, 1, 1])],
    )
    def test_merges_below_the_threshold_are_made(self, threshold: float, expected: list[int]) -> None:
        assert self.HIERARCHY.cut(threshold).tolist() == expected

    @pytest.mark.parametrize("merged", [0.3, 0.5, 0.8])
    def test_a_cut_is_what_merging_up_to_there_gives(self, merged: float) -> None:
        embeddings = noise((3, 20, 20))
        whole = build_hierarchy(embeddings, everywhere(embeddings))
        threshold = float(np.quantile(whole.evidence, merged))
        part = build_hierarchy(embeddings, everywhere(embeddings), limit=threshold)
        assert 0 < len(part.merges) < len(whole.merges)
        assert np.array_equal(whole.cut(threshold), part.cut(math.inf))
        assert whole.cut(threshold).max() > whole.cut(math.inf).max() == 1


class TestAgglomerate:
    @pytest.mark.parametrize("drift", [2, 5])
    def test_a_drifting_object_stays_one_beside_its_neighbour(self, drift: float) -> None:
        # the left object drifts by more than objects are apart; the right one is 4 from its end
        embeddings = strip(*np.linspace(0, drift, 40), *[drift + 4] * 20, height=20)
        embeddings = embeddings + noise(tuple(embeddings.shape), 0.03)
        labels = agglomerate(embeddings, everywhere(embeddings))
        assert labels.max() == 2
        assert len(np.unique(labels[:, :39])) == len(np.unique(labels[:, 41:])) == 1

    def test_an_object_as_long_as_the_image_is_not_cut_by_its_positions(self) -> None:
        # the network removed the positions across the objects, but hardly along them
        along = torch.arange(60.0)[:, None].expand(60, 20) * 0.15
        embeddings = torch.stack([strip(*[0] * 10, *[4] * 10, height=60)[0], along])
        labels = agglomerate(embeddings, everywhere(embeddings))
        assert len(np.unique(labels[:, :10])) == len(np.unique(labels[:, 10:])) == 1
        assert labels.max() == 2

    def test_far_objects_may_share_an_embedding(self) -> None:
        embeddings = strip(*[0] * 8, *[4] * 8, *[0] * 8, height=6)
        labels = agglomerate(embeddings, everywhere(embeddings))
        assert [len(np.unique(labels[:, start : start + 8])) for start in (0, 8, 16)] == [1, 1, 1]
        assert labels.max() == 3

    def test_winding_rods_two_pixels_wide_are_one_each(self) -> None:
        # where a rod steps to the next row, its regions touch at one or two faces; noise as large as the loss allows
        truth = np.zeros((60, 80), np.int32)
        for rod in range(11):
            rows = 2 + 5 * rod + np.arange(78) // 4 % 3
            for x, (before, after) in enumerate(pairwise(rows), start=1):
                truth[min(before, after) : max(before, after) + 2, x] = rod + 1
        embeddings = torch.from_numpy(4.0 * truth[None]).float().repeat(4, 1, 1)
        embeddings = embeddings + noise((4, 60, 80), DELTA_VAR / 4**0.5)
        assert instance_metrics(agglomerate(embeddings, torch.from_numpy(truth > 0)), truth)["ap50"] == 1

    def test_a_larger_threshold_makes_fewer_instances(self) -> None:
        embeddings = noise((3, 30, 30))
        counts = [agglomerate(embeddings, everywhere(embeddings), threshold=t).max() for t in (2, 3, 4, 5, 50)]
        assert counts == sorted(counts, reverse=True)
        assert counts[0] > counts[-1] == 1

    def test_outside_the_foreground_is_zero(self) -> None:
        foreground = torch.ones(6, 12, dtype=torch.bool)
        foreground[:, 6] = False
        labels = agglomerate(strip(*[0] * 12, height=6), foreground)
        assert np.array_equal(labels > 0, foreground.numpy())

    def test_deterministic(self) -> None:
        embeddings = noise((3, 20, 20))
        first, second = (agglomerate(embeddings, everywhere(embeddings)) for _ in range(2))
        assert np.array_equal(first, second)
        assert first.dtype == np.int32
