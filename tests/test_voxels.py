"""The list of foreground voxels and their neighbours, by hand on a few pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scripts.voxels import ForegroundVoxels


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
    above, below = voxels.neighbors(axis=0)
    assert above.tolist() == [5, 5, 0, 5, 1, 5]  # 5 is outside
    assert below.tolist() == [2, 4, 5, 5, 5, 5]
    left, right = voxels.neighbors(axis=1)
    assert left.tolist() == [5, 5, 5, 2, 3, 5]
    assert right.tolist() == [5, 5, 3, 4, 5, 5]


def test_the_end_of_a_row_is_no_neighbour_of_the_next_row() -> None:
    voxels = voxels_of([[0, 1], [1, 0]])
    assert [side.tolist() for axis in (0, 1) for side in voxels.neighbors(axis)] == [[2, 2, 2]] * 4


def test_faces_are_pairs_of_neighbours() -> None:
    first, second = voxels_of(CORNER).faces(axis=1)
    assert (first.tolist(), second.tolist()) == ([2, 3], [3, 4])


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
        first, second = voxels.faces(axis)
        steps = places[second] - places[first]
        assert torch.equal(steps, torch.eye(len(shape), dtype=torch.long)[axis].expand_as(steps))
        before, after = voxels.neighbors(axis)
        assert torch.equal(before[second], first)
        assert torch.equal(after[first], second)
        lowered, raised = foreground.narrow(axis, 0, shape[axis] - 1), foreground.narrow(axis, 1, shape[axis] - 1)
        assert len(first) == int((lowered & raised).sum())


def test_memory_order_does_not_matter() -> None:
    embeddings = torch.rand(2, 5, 6).transpose(1, 2)
    foreground = torch.rand(5, 6).T > 0.5
    straight = ForegroundVoxels(embeddings.contiguous(), foreground.contiguous())
    turned = ForegroundVoxels(embeddings, foreground)
    assert torch.equal(straight.vectors, turned.vectors)
    for axis in (0, 1):
        assert torch.equal(straight.neighbors(axis)[1], turned.neighbors(axis)[1])
