"""Sheets between objects: voxels whose embeddings go over from those of one object to those of the next one.

Networks need some voxels to go over. Where the two objects lie far apart in embedding space, each layer of such voxels
is as far from both as objects are from one another, so that it becomes an instance. Its embeddings tell: they lie on
the straight line between those of the two objects, and this change begins before the first face of the sheet and goes
on behind its second one. The embeddings of a thin object jump at its two faces, and hardly change elsewhere. A place of
three voxels is an object in any case, and so is what lies between objects that are thin themselves. (Right instances in
real images have at most a tenth of their voxels on such lines.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..arrays import Labels, Mask
from ..geometry.pieces import give_to_neighbors
from .regions import PAIRS

Indices = NDArray[np.int64]

THICKEST = 2  # voxels from one face of a sheet to the other; the objects on both sides are thicker
SIDE = 3  # voxels from a face to where the embedding of the object on that side is taken
OFF_LINE = 0.2  # of the distance between both sides: as far from their line a voxel may be
AT_FACES = 0.9  # of the change from one side to the other: what jumps at both faces for more is an object
SHARE = 0.5  # of an instance's voxels, if it is to be a sheet


class Crossings(NamedTuple):
    """R straight lines along one axis, each out of one object through a thin place into another object.

    Flat indices; from one voxel to the next one along the axis they grow by `stride`.
    """

    stride: int
    first: Indices  # (R,) voxel in the thin place
    lengths: Indices  # (R,) voxels of the thin place


def give_sheets_to_neighbors(instances: Labels, embeddings: Tensor) -> Labels:
    """Let the instances on both sides of each sheet grow into it.

    Args:
        instances: (*spatial), 0 = background.
        embeddings: (E, *spatial), on any device.
    """
    crumbs = find_sheets(instances, embeddings)[instances]
    if not crumbs.any():
        return instances
    grown = give_to_neighbors(np.where(crumbs, 0, instances), crumbs, instances > 0)
    return np.where(grown > 0, grown, instances)  # sheets around which there are only sheets stay


def find_sheets(instances: Labels, embeddings: Tensor) -> Mask:
    """Which instances are sheets: (K + 1,); the arguments are those of `give_sheets_to_neighbors`."""
    vectors, owner = embeddings.flatten(1), instances.ravel()
    on_line = np.zeros(owner.size, bool)
    counts, at_faces = np.zeros((2, int(instances.max()) + 1))
    for axis in range(instances.ndim):
        for crossings in thin_crossings(instances, axis):
            for voxels, jumps in voxels_on_line(crossings, vectors):
                on_line[voxels] = True
                np.add.at(counts, owner[voxels], 1)
                np.add.at(at_faces, owner[voxels], jumps)
    share = np.bincount(owner, on_line) / np.maximum(np.bincount(owner), 1)
    return (share >= SHARE) & (at_faces <= AT_FACES * counts)


def thin_crossings(instances: Labels, axis: int) -> Iterator[Crossings]:
    """All places up to `THICKEST` thick between two instances that are thicker there, along `axis`.

    `PAIRS` at a time. A place may hold several instances, one behind the other.
    """
    # a voxel of background at the end of each line parts it from the next one
    lines = np.pad(np.moveaxis(instances, axis, -1), [(0, 0)] * (instances.ndim - 1) + [(0, 1)])
    flat = lines.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])  # of runs of voxels of one instance
    lengths, ids = np.diff(starts, append=flat.size), flat[starts]
    thick = np.flatnonzero((lengths > THICKEST) | (ids == 0))
    one, other = thick[:-1], thick[1:]
    firsts = starts[one] + lengths[one]
    thickness = starts[other] - firsts
    chosen = (thickness > 0) & (thickness <= THICKEST)
    chosen &= (ids[one] > 0) & (ids[other] > 0) & (ids[one] != ids[other])
    firsts, thickness = firsts[chosen], thickness[chosen]
    stride = int(np.prod(instances.shape[axis + 1 :]))
    for start in range(0, len(firsts), PAIRS):
        portion = slice(start, start + PAIRS)
        *place, along = np.unravel_index(firsts[portion], lines.shape)
        place.insert(axis, along)
        yield Crossings(stride, np.ravel_multi_index(tuple(place), instances.shape), thickness[portion])


def voxels_on_line(crossings: Crossings, vectors: Tensor) -> Iterator[tuple[Indices, NDArray[np.float64]]]:
    """The voxels of the thin places whose embeddings lie on the line between those of both sides.

    Args:
        vectors: (E, N), the embeddings of all voxels.

    Yields:
        Their flat indices, and for each how much of the change from one side to the other is at the two faces.
    """
    stride, first, lengths = crossings

    def at(voxels: Indices) -> Tensor:
        return vectors.index_select(1, torch.from_numpy(voxels).to(vectors.device)).double()

    last = first + (lengths - 1) * stride
    one = at(first - SIDE * stride)
    whole = at(last + SIDE * stride) - one
    squared = (whole * whole).sum(0)
    jumps = at(first) - at(first - stride) + at(last + stride) - at(last)
    at_faces = ((jumps * whole).sum(0) / squared).cpu().numpy()
    for step in range(THICKEST):
        here = np.flatnonzero(lengths > step)
        voxels, which = first[here] + step * stride, torch.from_numpy(here).to(vectors.device)
        way, line, length = at(voxels) - one[:, which], whole[:, which], squared[which]
        along = (way * line).sum(0)  # times the length of the line, as is what follows
        off_line = (way * way).sum(0) * length - along**2
        between = (along > 0) & (along < length) & (off_line < (OFF_LINE * length) ** 2)
        chosen = between.cpu().numpy()
        yield voxels[chosen], at_faces[here][chosen]
