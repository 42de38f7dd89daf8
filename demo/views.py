"""Planes of volumes as pictures of readable size and real proportions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (height, width, 3)

WIDTH = 640  # pixels of a picture on screens of today, half a report's column on sharp ones
LARGEST_PLANE = 400  # of a larger one only the centre is shown, or objects become too small to judge


@dataclass(frozen=True)
class Plane:
    """One plane of a volume.

    Args:
        axis: the axis it is perpendicular to; None for a 2D image.
        voxel_size: of the volume, per axis.
        index: its position along this axis; the middle if None.
    """

    axis: int | None
    voxel_size: Sequence[float]
    index: int | None = None

    def cut(self, volume: NDArray) -> NDArray:
        """The plane of a volume (*spatial), enlarged to real proportions by repeating voxels."""
        if self.axis is None:
            return self.frame(volume)
        index = volume.shape[self.axis] // 2 if self.index is None else self.index
        return self.frame(np.take(volume, index, axis=self.axis))

    def frame(self, plane: NDArray) -> NDArray:
        """The centre of a plane that is cut already, (height, width, ...), enlarged in the same way."""
        sizes = [size for axis, size in enumerate(self.voxel_size) if axis != self.axis]
        return enlarged(_centre(plane), sizes)


def enlarged(plane: NDArray, voxel_size: Sequence[float]) -> NDArray:
    """Repeat the voxels of (height, width, ...) so that the picture is `WIDTH` wide and true to scale."""
    scale = WIDTH / (plane.shape[1] * voxel_size[1])
    height = max(1, round(plane.shape[0] * voxel_size[0] * scale))
    rows = (np.arange(height) + 0.5) * plane.shape[0] / height
    columns = (np.arange(WIDTH) + 0.5) * plane.shape[1] / WIDTH
    return plane[rows.astype(int)][:, columns.astype(int)]


def fullest(labels: NDArray[np.integer], axis: int | None) -> int | None:
    """Index of the plane across `axis` with the most labelled voxels: the middle may show none of a few objects."""
    if axis is None:
        return None
    others = tuple(other for other in range(labels.ndim) if other != axis)
    return int(np.count_nonzero(labels, axis=others).argmax())


def filled(labels: NDArray[np.integer], colors: Picture) -> Picture:
    """Colour each id of a plane by its row in `colors`, with a black line around it; 0 is black."""
    return outlined(colors[labels], labels, np.zeros_like(colors), thickness=1)


def outlined(gray: Picture, labels: NDArray[np.integer], colors: Picture, thickness: int = 3) -> Picture:
    """Draw the outline of each id, inside of it, over a picture of the same size."""
    edge = np.zeros(labels.shape, bool)
    for shift in range(1, thickness + 1):
        for axis in (0, 1):
            for step in (-shift, shift):
                neighbour = np.roll(labels, step, axis)
                # what has come around from the other side is no neighbour
                border = [slice(None)] * 2
                border[axis] = slice(0, step) if step > 0 else slice(step, None)
                neighbour[tuple(border)] = labels[tuple(border)]
                edge |= neighbour != labels
    picture = gray.copy()
    drawn = edge & (labels > 0)
    picture[drawn] = colors[labels[drawn]]
    return picture


def tinted(gray: Picture, labels: NDArray[np.integer], colors: Picture, opacity: float = 0.45) -> Picture:
    """Lay the colours of the ids over a picture like glass, with their outlines."""
    mixed = (gray * (1 - opacity) + colors[labels] * opacity).astype(np.uint8)
    return outlined(np.where(labels[..., None] > 0, mixed, gray), labels, colors)


def _centre(plane: NDArray) -> NDArray:
    starts = [max(0, (size - LARGEST_PLANE) // 2) for size in plane.shape[:2]]
    return plane[tuple(slice(start, start + LARGEST_PLANE) for start in starts)]
