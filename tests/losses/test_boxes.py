"""Boxes: neighbours together, everything there and back."""

from __future__ import annotations

import pytest
import torch

from scripts.losses.boxes import Boxes, box_edges, from_boxes, to_boxes


@pytest.mark.parametrize("shape", [(7, 10, 9), (8, 8, 8), (1, 100, 30), (17, 40), (5,), (1, 1, 1)])
def test_there_and_back(shape: tuple[int, ...]) -> None:
    images, edges = torch.rand(2, 3, *shape), box_edges(shape, 64)
    for padding in ("constant", "replicate"):
        boxes = to_boxes(images, edges, padding)
        assert boxes.shape[2] <= 64
        assert torch.equal(from_boxes(boxes, shape, edges), images)


def test_a_box_holds_neighbours_of_one_image() -> None:
    z, y, x = torch.meshgrid(*[torch.arange(8.0)] * 3, indexing="ij")
    boxes = to_boxes(torch.stack([torch.stack([z, y, x]), 100 + torch.stack([z, y, x])]), [4, 4, 4])
    assert boxes.shape == (16, 3, 64)
    assert (boxes.amax(2) - boxes.amin(2)).max() == 3
    assert (boxes[:8] < 100).all()


@pytest.mark.parametrize(
    ("shape", "edges"), [((48, 48, 48), [4, 4, 4]), ((128, 128), [8, 8]), ((1, 4096, 4096), [1, 8, 8])]
)
def test_as_cubic_as_the_shape_allows(shape: tuple[int, ...], edges: list[int]) -> None:
    assert box_edges(shape, 64) == edges


def test_equal_ones_spare_padding() -> None:
    assert box_edges((48, 48), 512) == [16, 24]  # not 23 x 22, which cover 69 x 66


def test_middles_and_extents_enclose_the_embeddings() -> None:
    images = 5 + torch.rand(2, 3, 8, 16)
    boxes, voxels = Boxes.of(images, [8, 8]), to_boxes(images, [8, 8])
    offsets = voxels - boxes.middles[:, :, None]
    torch.testing.assert_close(offsets.abs().amax(2), boxes.extents)
    torch.testing.assert_close(offsets.norm(dim=1).amax(1), boxes.radii)
