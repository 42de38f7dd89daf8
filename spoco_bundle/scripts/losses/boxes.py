"""A batch of embeddings cut into small boxes of neighbouring voxels, whose embeddings are alike."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.distances import extended_columns


@dataclass(frozen=True)
class Boxes:
    """A batch of embeddings in boxes of neighbouring voxels, each relative to the box's middle; without gradient."""

    edges: list[int]  # voxels along each axis, w in all
    columns: Tensor  # (T, E + 2, w), see `distances.extended_columns`
    middles: Tensor  # (T, E): relative to it, distances far from the origin lose no digits
    radii: Tensor  # (T,) largest distance of an embedding from the middle
    extents: Tensor  # (T, E) largest distance in each dimension

    @classmethod
    def of(cls, embeddings: Tensor, edges: list[int]) -> Boxes:
        """(B, E, *spatial), and the edges of a box, see `pairwise.fitting_edges`."""
        boxes = to_boxes(embeddings.detach(), edges, padding="replicate")
        least, most = boxes.amin(2), boxes.amax(2)
        middles = (least + most) / 2
        columns = extended_columns(boxes, middles[:, :, None])
        return cls(edges, columns, middles, columns[:, -1].amax(1).sqrt(), most - middles)


def box_edges(shape: Sequence[int], voxels: int) -> list[int]:
    """Edges of a box of about this many voxels in an image of this shape, as cubic as its shape allows."""
    edges = [1] * len(shape)
    for position, axis in enumerate(sorted(range(len(shape)), key=shape.__getitem__)):  # a short axis leaves more
        edge = max(1, min(shape[axis], round(voxels ** (1 / (len(shape) - position)))))
        edges[axis] = -(-shape[axis] // -(-shape[axis] // edge))  # as many boxes, but with as little padding as can be
        voxels = max(1, voxels // edges[axis])
    return edges


def to_boxes(images: Tensor, edges: Sequence[int], padding: str = "constant") -> Tensor:
    """Cut images into boxes with these edges: (B, channels, *spatial) -> (T, channels, w).

    Incomplete boxes at the border are padded by `torch.nn.functional.pad`'s mode `padding`.
    """
    missing = [-size % edge for size, edge in zip(images.shape[2:], edges, strict=True)]
    if any(missing):
        images = torch.nn.functional.pad(images, [n for size in reversed(missing) for n in (0, size)], padding)
    split = [n for size, edge in zip(images.shape[2:], edges, strict=True) for n in (size // edge, edge)]
    axes = range(2, 2 + len(split))
    # Channels last, as a network leaves them: a row of a box is copied at once
    parts = images.reshape(*images.shape[:2], *split).permute(0, *axes[::2], *axes[1::2], 1)
    return parts.reshape(-1, math.prod(edges), images.shape[1]).mT.contiguous()


def from_boxes(boxes: Tensor, shape: Sequence[int], edges: Sequence[int]) -> Tensor:
    """The inverse of `to_boxes`, without the padding: (T, channels, w) -> (B, channels, *shape)."""
    dims = len(shape)
    numbers = [-(-size // edge) for size, edge in zip(shape, edges, strict=True)]
    parts = boxes.mT.contiguous().view(-1, *numbers, *edges, boxes.shape[1])
    order = itertools.chain.from_iterable((1 + axis, 1 + dims + axis) for axis in range(dims))
    padded = [number * edge for number, edge in zip(numbers, edges, strict=True)]
    images = parts.permute(0, *order, -1).reshape(-1, *padded, boxes.shape[1]).movedim(-1, 1)
    return images[(slice(None), slice(None), *(slice(size) for size in shape))]
