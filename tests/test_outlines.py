"""Instances on another grid keep their ids, their places, and get smooth outlines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scripts.outlines import axis_weights, resample_instances
from scripts.resampling import resample_nearest


def disc(side: int, radius: float) -> np.ndarray:
    grid = np.mgrid[:side, :side] - (side - 1) / 2
    return (np.hypot(*grid) <= radius).astype(np.int32)


def test_weights_by_hand() -> None:
    assert axis_weights(2, 4).tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    assert axis_weights(4, 2).tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]
    assert axis_weights(2, 2).tolist() == [[1, 0], [0, 1]]
    assert axis_weights(1, 3).tolist() == [[1], [1], [1]]


@pytest.mark.parametrize(("old", "new"), [(7, 3), (3, 7), (5, 5), (1, 4), (4, 1)])
def test_weights_sum_to_one(old: int, new: int) -> None:
    np.testing.assert_allclose(axis_weights(old, new).sum(1), 1, rtol=1e-6)


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


def test_on_a_coarser_grid_voxels_are_picked() -> None:
    instances = np.random.default_rng(0).integers(0, 9, (8, 9, 12)).astype(np.int32)
    picked = resample_nearest(torch.from_numpy(instances)[None], (4, 9, 5))[0].numpy()
    kept = np.isin(instances, picked) * instances  # what is picked nowhere is not looked for
    assert np.array_equal(resample_instances(kept, (4, 9, 5)), picked)


def test_no_instance() -> None:
    assert not resample_instances(np.zeros((3, 3), np.int32), (7, 7)).any()


def test_a_flat_volume() -> None:
    assert resample_instances(disc(8, 3)[None], (1, 16, 16)).shape == (1, 16, 16)
