"""The list of foreground voxels and their neighbours, by hand on a few pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scripts.geometry import voxels as voxels_module
from scripts.geometry.voxels import ForegroundVoxels


def voxels_of(mask: list[list[int]]) -> ForegroundVoxels:
    """Embeddings are 10, 20, ... in the order of the image."""
    foreground = torch.tensor(mask, dtype=torch.bool)
    embeddings = 10 * torch.arange(1.0, foreground.numel() + 1).reshape(1, *foreground.shape)
    return ForegroundVoxels(embeddings, foreground)


#   0 . 1
#   2 3 4
CORNER = [[1, 0, 1], [1, 1, 1]]


def test_vectors_are_those_of_the_foreground_and_one_for_what_lies_outside() -> None:
    assert voxels_of(CORNER).vectors.tolist() == [[10], [30], [40], [50], [60], [0]]


def test_neighbours_along_each_axis() -> None:
    voxels = voxels_of(CORNER)
    above, below = voxels.before(axis=0), voxels.after(axis=0)
    assert above.tolist() == [5, 5, 0, 5, 1, 5]  # 5 is outside
    assert below.tolist() == [2, 4, 5, 5, 5, 5]
    left, right = voxels.before(axis=1), voxels.after(axis=1)
    assert left.tolist() == [5, 5, 5, 2, 3, 5]
    assert right.tolist() == [5, 5, 3, 4, 5, 5]


def test_the_end_of_a_row_is_no_neighbour_of_the_next_row() -> None:
    voxels = voxels_of([[0, 1], [1, 0]])
    for axis in (0, 1):
        assert voxels.before(axis).tolist() == voxels.after(axis).tolist() == [2, 2, 2]


def test_neighbours_of_some_voxels_and_of_what_lies_outside() -> None:
    voxels = voxels_of(CORNER)
    assert voxels.after(1, slice(1, 4)).tolist() == [5, 3, 4]
    assert voxels.before(1, torch.tensor([4, 5, 0, 3])).tolist() == [3, 5, 5, 2]


def test_portions_are_all_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voxels_module, "PORTION", 2)
    assert list(voxels_of(CORNER).portions()) == [slice(0, 2), slice(2, 4), slice(4, 5)]


def test_an_image_of_values() -> None:
    assert voxels_of(CORNER).image(torch.arange(1, 6)).tolist() == [[1, 0, 2], [3, 4, 5]]


@pytest.mark.parametrize("shape", [(7, 9), (4, 5, 6), (1, 5, 6), (1, 1)])
def test_neighbours_are_one_voxel_apart(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    foreground = torch.from_numpy(random.random(shape) < 0.6)
    foreground.view(-1)[0] = True
    voxels = ForegroundVoxels(torch.zeros(2, *shape), foreground)
    places = foreground.nonzero()
    for axis in range(len(shape)):
        before, after = voxels.before(axis), voxels.after(axis)
        first = (after < voxels.count).nonzero()[:, 0]
        second = after[first]
        steps = places[second] - places[first]
        assert torch.equal(steps, torch.eye(len(shape), dtype=torch.long)[axis].expand_as(steps))
        assert torch.equal(before[second].long(), first)
        assert int((before < voxels.count).sum()) == len(first)
        assert before[-1] == after[-1] == voxels.count
        lowered, raised = foreground.narrow(axis, 0, shape[axis] - 1), foreground.narrow(axis, 1, shape[axis] - 1)
        assert len(first) == int((lowered & raised).sum())


def test_memory_order_does_not_matter() -> None:
    embeddings = torch.rand(2, 5, 6).transpose(1, 2)
    foreground = torch.rand(5, 6).T > 0.5
    straight = ForegroundVoxels(embeddings.contiguous(), foreground.contiguous())
    turned = ForegroundVoxels(embeddings, foreground)
    assert torch.equal(straight.vectors, turned.vectors)
    for axis in (0, 1):
        assert torch.equal(straight.after(axis), turned.after(axis))
