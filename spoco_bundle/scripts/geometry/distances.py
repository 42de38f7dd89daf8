"""Squared distances between columns and centres by one matrix product, to the last digit also where they are small."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Of a centre's squared distance to the middle of its box: what lies closer to the centre than this share is the small
# difference of large numbers, and is computed again. float32 leaves three digits of the squared distance at the limit.
CLOSE = 2.0**-12
SMALLEST_SQUARE = 1e-30  # in the place of a squared distance of 0, so that its root has an inverse


def squared_distances(centers: Tensor, columns: Tensor) -> Tensor:
    """|center - column|^2 of every pair: (C, E), (E, N) -> (C, N)."""
    origin = centers.median(0).values  # a centre far away shall not take the digits of all others
    columns, centers = extended_columns(columns, origin[:, None]), extended_centers(centers - origin)
    return squared_from_extended(columns[None], centers[None])[0]


def extended_columns(columns: Tensor, origin: Tensor) -> Tensor:
    """e = column - origin -> (e, 1, |e|^2): (..., E, n) and (..., E, 1) -> (..., E + 2, n)."""
    *first, dim, count = columns.shape
    extended = columns.new_empty(*first, dim + 2, count)
    relative, one, square = extended.split([dim, 1, 1], -2)  # written in place: large ones are not copied again
    torch.sub(columns, origin, out=relative)
    one.fill_(1)
    torch.sum(relative.square(), -2, keepdim=True, out=square)
    return extended


def extended_centers(centers: Tensor) -> Tensor:
    """c -> (-2c, |c|^2, 1), whose product with (e, 1, |e|^2) is |e - c|^2: (..., c, E) -> (..., c, E + 2)."""
    square = centers.square().sum(-1, keepdim=True)
    return torch.cat([centers * -2, square, torch.ones_like(square)], -1)


def squared_from_extended(columns: Tensor, centers: Tensor, largest: float = math.inf) -> Tensor:
    """Extended (t, E + 2, w) and (t, c, E + 2) -> squared distances (t, c, w), none of them above `largest`."""
    return squared_and_close(columns, centers, largest)[0]


def squared_and_close(columns: Tensor, centers: Tensor, largest: float) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """The same, and the pairs that are close (`CLOSE`): box, centre and voxel of each, (K,), and e - c, (K, E)."""
    squared = torch.matmul(centers, columns).clamp_(SMALLEST_SQUARE, largest)
    limit = (CLOSE * centers[..., -2]).clamp_max_(largest)  # (t, c): what is cut off at `largest` is not close
    box, center = torch.nonzero(squared.amin(2) < limit, as_tuple=True)  # few: all pairs at once would take longer
    pair, voxel = torch.nonzero(squared[box, center] < limit[box, center, None], as_tuple=True)
    close = box[pair], center[pair], voxel
    difference = columns[close[0], :-2, voxel] + centers[close[0], close[1], :-2] / 2
    squared[close] = difference.square().sum(1).clamp_min_(SMALLEST_SQUARE)
    return squared, close, difference
