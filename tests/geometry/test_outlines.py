"""Instances on another grid keep their ids, their places, and get smooth outlines."""

from __future__ import annotations

import math
import time
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import measure

from scripts.geometry.outlines import axis_weights, largest_shares, resample_instances
from scripts.transforms.resampling import resample_nearest


def disc(side: int, radius: float) -> np.ndarray:
    grid = np.mgrid[:side, :side] - (side - 1) / 2
    return (np.hypot(*grid) <= radius).astype(np.int32)


def linear_weights(old: int, new: int, voxel: int) -> dict[int, Fraction]:
    """What the old voxels of an axis contribute to a new one between the centres of two."""
    position = min(max(Fraction(2 * voxel + 1, 2) * old / new - Fraction(1, 2), 0), old - 1)
    return {neighbor: max(1 - abs(position - neighbor), Fraction(0)) for neighbor in range(old)}


def covered_parts(old: int, new: int, voxel: int) -> dict[int, Fraction]:
    """How much of a new voxel, which is the larger one, the old ones cover."""
    start, stop = Fraction(voxel * old, new), Fraction((voxel + 1) * old, new)
    return {other: max(min(stop, other + 1) - max(start, other), Fraction(0)) for other in range(old)}


def shares(instances: np.ndarray, shape: tuple[int, ...], voxel: tuple[int, ...]) -> dict[int, Fraction]:
    """How much each id, 0 included, fills of one voxel of the result: the definition, with fractions."""
    sides = zip(instances.shape, shape, voxel, strict=True)
    weights = [(linear_weights if new > old else covered_parts)(old, new, index) for old, new, index in sides]
    filled = dict.fromkeys(range(int(instances.max()) + 1), Fraction(0))
    for place, id_ in np.ndenumerate(instances):
        filled[int(id_)] += math.prod(weight[index] for weight, index in zip(weights, place, strict=True))
    return filled


def winners(instances: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(*shape) the instance that fills more of a voxel than background does, if there is one."""
    claims = largest_shares(instances, shape)
    return np.where(claims.share > 0.5, claims.instance, 0)


def pieces(instances: np.ndarray, id_: int) -> int:
    return ndimage.label(instances == id_)[1]


def neurites(shape: tuple[int, ...], count: int, seed: int) -> np.ndarray:
    """Walks one voxel wide along the diagonal; where two meet, the later one ends."""
    random, instances = np.random.default_rng(seed), np.zeros(shape, np.int32)
    for id_ in range(1, count + 1):
        voxel = random.integers(0, shape)
        while (voxel < shape).all() and instances[tuple(voxel)] in (0, id_):
            instances[tuple(voxel)] = id_
            voxel[random.integers(len(shape))] += 1
    return instances


def test_weights_by_hand() -> None:
    sources, weights = axis_weights(2, 4)
    assert sources.tolist() == [[0, 1], [0, 1], [0, 1], [1, 1]]
    assert (weights / 8).tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [1, 0]]
    sources, weights = axis_weights(4, 2)
    assert sources.tolist() == [[0, 1], [2, 3]]
    assert weights.tolist() == [[200, 201], [200, 201]]  # a half each, and the second has the centre


@pytest.mark.parametrize(("old", "new"), [(7, 3), (3, 7), (5, 5), (1, 4), (4, 1)])
def test_weights_have_one_sum(old: int, new: int) -> None:
    assert len(set(axis_weights(old, new)[1].sum(1))) == 1


def test_by_hand() -> None:
    assert resample_instances(np.array([0, 7, 7, 9]), (8,)).tolist() == [0, 0, 7, 7, 7, 7, 9, 9]


def test_the_same_grid_changes_nothing() -> None:
    instances = np.random.default_rng(0).integers(0, 5, (6, 7))
    assert np.array_equal(resample_instances(instances, (6, 7)), instances)


def test_a_disc_is_rounder_than_by_picking_voxels() -> None:
    coarse, fine = disc(12, 4), disc(60, 20)
    smooth, stairs = resample_instances(coarse, (60, 60)), coarse.repeat(5, 0).repeat(5, 1)
    overlaps = [(found & fine).sum() / (found | fine).sum() for found in (smooth, stairs)]
    assert overlaps[0] > overlaps[1] + 0.02


def test_dense_instances_leave_no_gap() -> None:
    instances = np.random.default_rng(0).integers(1, 9, (4, 6, 5))
    assert resample_instances(instances, (9, 13, 11)).all()


def test_ids_survive_whatever_they_are() -> None:
    instances = np.array([[3, 3, 0], [70_000, 70_000, 2_000_000_000]], np.int64)
    result = resample_instances(instances, (8, 12))
    assert set(np.unique(result)) == {0, 3, 70_000, 2_000_000_000}
    assert result.dtype == np.int64


@pytest.mark.parametrize("seed", range(5))
def test_no_instance_is_lost_on_a_finer_grid(seed: int) -> None:
    instances = np.random.default_rng(seed).integers(0, 40, (6, 8, 7)).astype(np.int32)  # most have a few voxels
    result = resample_instances(instances, (13, 15, 16))
    assert set(np.unique(result)) >= set(np.unique(instances)) - {0}


def test_permuting_ids_permutes_the_result() -> None:
    instances = disc(10, 3) + 2 * (disc(10, 1.5))
    renamed = np.array([0, 9, 0, 4], np.int32)
    assert np.array_equal(
        renamed[resample_instances(instances, (21, 21))], resample_instances(renamed[instances], (21, 21))
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(5, 7, 9), (4, 6, 8), (9, 3, 4)])
def test_on_a_finer_grid_the_largest_share_wins_and_of_equals_the_lowest_id(shape: tuple[int, ...], seed: int) -> None:
    instances = np.random.default_rng(seed).integers(0, 5, (3, 3, 4)).astype(np.int32)
    for voxel, id_ in np.ndenumerate(winners(instances, shape)):
        filled = shares(instances, shape, voxel)
        best = max(filled[instance] for instance in filled if instance)
        lowest = min(instance for instance in filled if instance and filled[instance] == best)
        assert id_ == (lowest if best > filled[0] else 0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(3, 4), (7, 4), (4, 13)])
def test_on_a_coarser_grid_no_share_is_larger_than_the_one_that_wins(shape: tuple[int, ...], seed: int) -> None:
    instances = np.random.default_rng(seed).integers(0, 3, (7, 9)).astype(np.int32)
    for voxel, id_ in np.ndenumerate(winners(instances, shape)):
        filled = shares(instances, shape, voxel)
        assert filled[int(id_)] == max(filled.values()) or (id_ == 0 and 2 * filled[0] > sum(filled.values()))


class TestCoarserByHand:
    def test_most_of_a_voxel_wins(self) -> None:
        instances = np.array([[7, 7, 0, 0], [7, 0, 0, 9], [0, 0, 9, 9], [0, 0, 9, 9]])
        assert resample_instances(instances, (2, 2)).tolist() == [[7, 0], [0, 9]]

    def test_of_two_halves_the_one_at_the_centre_wins(self) -> None:
        """So an outline between voxels moves neither outwards nor inwards on average."""
        assert resample_instances(np.array([[5, 5, 5, 0, 0, 9, 9, 9]]), (1, 4)).tolist() == [[5, 0, 9, 9]]

    def test_a_straight_line_stays_as_wide_as_one_voxel(self) -> None:
        instances = np.zeros((8, 8, 8), np.int32)
        instances[:, 2, 5] = 3
        expected = np.zeros((4, 4, 4), np.int32)
        expected[:, 1, 2] = 3
        assert np.array_equal(resample_instances(instances, (4, 4, 4)), expected)

    def test_a_tail_half_a_voxel_thin_stays_if_it_is_most_of_the_instance(self) -> None:
        instances = np.zeros((4, 8), np.int32)
        instances[:2, :2] = instances[0] = 3  # one voxel of the result, and a half of each of three
        assert resample_instances(instances, (2, 4)).tolist() == [[3, 3, 3, 3], [0, 0, 0, 0]]

    def test_a_stair_stays_one_piece(self) -> None:
        instances = np.zeros((8, 8), np.int32)
        instances[range(8), range(8)] = instances[range(1, 8), range(7)] = 3
        result = resample_instances(instances, (4, 4))
        assert pieces(result, 3) == 1
        assert (result.diagonal() == 3).all()

    def test_the_smaller_piece_goes_to_what_it_touches(self) -> None:
        """The bridge of 1 between its two ends is thinner than a voxel, and dense tissue leaves no other way."""
        instances = np.full((4, 12), 2, np.int32)
        instances[:, :6] = instances[:, 10:] = instances[1, :] = 1
        instances[2:, 6:10], instances[0, 6:10] = 2, 2
        assert pieces(instances, 1) == 1
        result = resample_instances(instances, (2, 6))
        assert pieces(result, 1) == pieces(result, 2) == 1
        assert result.all()

    def test_what_is_smaller_than_its_voxel_is_not_lost(self) -> None:
        instances = np.full((8, 8), 1, np.int32)
        instances[3, 3] = 2
        result = resample_instances(instances, (4, 4))
        assert np.argwhere(result == 2).tolist() == [[1, 1]]
        assert pieces(result, 1) == 1

    def test_two_of_one_voxel_get_one_each(self) -> None:
        instances = np.zeros((6, 6), np.int32)
        instances[2, 2], instances[3, 3] = 1, 2
        assert sorted(resample_instances(instances, (3, 3)).ravel())[-3:] == [0, 1, 2]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(10, 10, 10), (11, 15, 16), (10, 40, 40), (23, 24, 25), (40, 40, 40)])
def test_each_neurite_stays_one_piece_on_any_grid(shape: tuple[int, ...], seed: int) -> None:
    instances = neurites((20, 20, 20), 8, seed)
    result = resample_instances(instances, shape)
    assert {pieces(result, id_) for id_ in np.unique(instances) if id_} == {1}


def test_neurites_that_fill_the_volume_take_time_by_its_voxels() -> None:
    """Each of them spans the volume: looking at all of it for each would take 50 times as long."""
    instances = neurites((48, 48, 48), 200, 0)
    start = time.process_time()
    result = resample_instances(instances, (96, 96, 96))
    assert time.process_time() - start < 5
    assert len(np.unique(result)) == len(np.unique(instances))


class TestRegions:
    """Regions on the coarse grid, and the same on the fine one, where their borders are known better."""

    def test_instances_end_where_their_region_ends(self) -> None:
        classes = np.array([[24, 24, 26, 0]]), np.array([[24, 24, 24, 26, 26, 26, 26, 0]])
        result = resample_instances(np.array([[1, 1, 2, 0]]), (1, 8), classes)
        assert result.tolist() == [[1, 1, 1, 2, 2, 2, 2, 0]]

    def test_background_inside_a_region_stays(self) -> None:
        classes = np.array([[5, 5, 5, 0]]), np.array([[5, 5, 5, 5, 5, 5, 0, 0]])
        assert resample_instances(np.array([[0, 1, 1, 0]]), (1, 8), classes).tolist() == [[0, 0, 1, 1, 1, 1, 0, 0]]

    def test_the_larger_side_of_a_cut_stays(self) -> None:
        mask = np.array([[1, 1, 1, 1]]), np.array([[1, 1, 1, 1, 1, 0, 1, 1]])
        assert resample_instances(np.array([[4, 4, 4, 4]]), (1, 8), mask).tolist() == [[4, 4, 4, 4, 4, 0, 0, 0]]

    def test_nothing_lies_in_region_0(self) -> None:
        mask = np.array([[0, 0, 1, 1]]), np.array([[0, 0, 0, 0, 1, 1, 1, 1]])
        assert resample_instances(np.array([[6, 6, 8, 8]]), (1, 8), mask).tolist() == [[0, 0, 0, 0, 8, 8, 8, 8]]

    @pytest.mark.parametrize("shape", [(7, 8), (20, 30), (8, 30)])
    def test_any_map_on_any_grid(self, shape: tuple[int, ...]) -> None:
        fine = np.where(np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 11 < 6, 24, 26)
        coarse = resample_nearest(torch.from_numpy(fine)[None], (14, 15))[0].numpy()
        instances = measure.label(coarse, connectivity=1).astype(np.int32)
        class_of = dict(zip(instances.ravel(), coarse.ravel(), strict=True))
        result = resample_instances(instances, shape, (coarse, fine))
        assert all(id_ == 0 or class_of[id_] == fine[voxel] for voxel, id_ in np.ndenumerate(result))
        assert {pieces(result, id_) for id_ in np.unique(result) if id_} == {1}


def test_no_instance() -> None:
    assert not resample_instances(np.zeros((3, 3), np.int32), (7, 7)).any()


def test_a_flat_volume() -> None:
    assert resample_instances(disc(8, 3)[None], (1, 16, 16)).shape == (1, 16, 16)


def test_regions_hold_also_on_an_equal_grid() -> None:
    regions = np.array([1, 1, 1, 1]), np.array([1, 1, 1, 0])
    assert resample_instances(np.array([7, 7, 7, 7]), (4,), regions).tolist() == [7, 7, 7, 0]
