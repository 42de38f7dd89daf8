"""Modes of the density of points, by hand."""

from __future__ import annotations

import torch

from scripts.clustering.mean_shift import MERGE_DISTANCE, mean_shift_modes
from scripts.clustering.points import SAMPLE


def test_modes_of_two_heaps_on_a_line() -> None:
    points = torch.tensor([[0.0], [0.2], [0.4], [3.0], [3.2]])
    modes = mean_shift_modes(points, radius=0.5)
    torch.testing.assert_close(modes, torch.tensor([[0.2], [3.1]]))  # the denser first


def test_a_mode_that_the_sample_has_missed() -> None:
    points = torch.cat([torch.zeros(3 * SAMPLE, 2), torch.full((1, 2), 9.0), torch.zeros(3 * SAMPLE, 2)])
    assert mean_shift_modes(points, radius=0.5).tolist() == [[0, 0], [9, 9]]


def test_modes_of_points_without_any_order_are_few_and_apart() -> None:
    points = 4 * torch.rand(3000, 4, generator=torch.Generator().manual_seed(0))
    modes = mean_shift_modes(points, radius=0.5)
    assert len(modes) > 10
    assert torch.pdist(modes).min() > MERGE_DISTANCE * 0.5
