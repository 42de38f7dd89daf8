"""Squared distances: by hand, never negative, and none that is lost among large numbers."""

from __future__ import annotations

import pytest
import torch

from scripts.geometry.distances import squared_distances


def test_by_hand() -> None:
    centers, columns = torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([[3.0, 0.0], [4.0, 1.0]])
    assert squared_distances(centers, columns).tolist() == [[25.0, 1.0], [16.0, 10.0]]


def test_never_negative() -> None:
    columns = 1e3 + torch.rand(3, 24)
    assert (squared_distances(columns.T, columns) >= 0).all()


def test_a_centre_far_away_takes_no_digit_of_the_others() -> None:
    centers = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1e10, 1e10]])
    columns = torch.tensor([[0.5, 0.0], [1.0, 0.25]]).T
    assert squared_distances(centers, columns)[:2].tolist() == [[0.25, 1.0625], [0.25, 0.0625]]


def test_exact_also_far_from_the_origin() -> None:
    centers, columns = torch.tensor([[10_001.0], [10_401.0]]), torch.tensor([[10_201.0, 10_202.0]])
    assert squared_distances(centers, columns).tolist() == [[200**2, 201**2], [200**2, 199**2]]


@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-5])
def test_small_ones_beside_large_ones(gap: float) -> None:
    centers = torch.tensor([[0.0, 0.0], [1.0, 0.0], [100.0, 0.0]])
    columns = (centers + torch.tensor([0.0, gap])).T.contiguous()
    torch.testing.assert_close(squared_distances(centers, columns).diagonal(), torch.full((3,), gap**2))
