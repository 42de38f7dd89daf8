"""Points and the clusters that they join."""

from __future__ import annotations

import torch

from scripts.clustering.points import SAMPLE, nearest, sample_of


def test_nearest() -> None:
    points, centers = torch.tensor([[0.0], [2.0], [9.0]]), torch.tensor([[8.0], [1.0]])
    assert nearest(points, centers).tolist() == [1, 1, 0]


def test_a_sample_is_the_same_at_every_call() -> None:
    points = torch.rand(SAMPLE + 1, 2)
    assert torch.equal(sample_of(points), sample_of(points))
    assert len(sample_of(points)) == SAMPLE
    assert torch.equal(sample_of(points[:9]), points[:9])
