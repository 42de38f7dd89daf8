"""The foreground as a list of voxels that know their neighbours: what lies outside costs nothing.

Everything here runs on the device of the embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

PORTION = 2**16  # voxels to look at together: with more, what is computed on the way takes memory, fewer take time
DEVICE_PORTION = 2**22  # the same on a GPU, which has to be told every step for each
EVERY = slice(None)


class ForegroundVoxels:
    """N voxels in the order of the image, and after them one that stands for everything outside.

    Neighbours are looked up, a portion of the voxels at a time, when they are needed: kept, they would take as much
    memory as embeddings. Indices into this list take half the memory of torch's usual ones, as long as there are less
    than 2^31.

    Args:
        embeddings: (E, *spatial).
        foreground: (*spatial) bool, at least one voxel of it true.
    """

    def __init__(self, embeddings: Tensor, foreground: Tensor) -> None:
        self.foreground = foreground.to(embeddings.device).contiguous()
        self._portion = PORTION if embeddings.device.type == "cpu" else DEVICE_PORTION
        # A rim after the end of each axis, and one plane before everything, keep rows apart. What lies outside has a
        # place as well, the last one in the first row of the last plane, around which there is only rim, and one row.
        padded = pad(self.foreground, [0, 1] * self.foreground.ndim)
        self._steps, row = padded.stride(), padded.shape[-1]
        places = self._steps[0] + padded.numel() + row
        self.index_dtype = torch.int32 if places < 2**31 else torch.int64
        outside = torch.full((1,), places - self._steps[0] - 1, dtype=self.index_dtype, device=padded.device)
        self._place = torch.cat([self._indices_of(padded).add_(self._steps[0]), outside])  # (N + 1,) in `_number`
        self.count = len(self._place) - 1
        self._number = self._place.new_full((places,), self.count)
        for portion in self.portions():
            numbers = torch.arange(portion.start, portion.stop, dtype=self.index_dtype, device=padded.device)
            self._number.index_copy_(0, self._place[portion].long(), numbers)
        inside = self._indices_of(self.foreground)
        self.vectors = embeddings.new_zeros(self.count + 1, len(embeddings))  # (N + 1, E)
        for column, channel in zip(self.vectors.T, embeddings, strict=True):
            values = channel.ravel()
            for portion in self.portions():
                column[portion] = values.index_select(0, inside[portion])

    def portions(self) -> Iterator[slice]:
        """All N voxels, some at a time."""
        starts = range(0, self.count, self._portion)
        return (slice(start, min(start + self._portion, self.count)) for start in starts)

    def before(self, axis: int, which: slice | Tensor = EVERY) -> Tensor:
        """The voxel before each of `which`, indices 0..N, along an axis; N where that is not in the foreground."""
        return self._number.index_select(0, self._place[which] - self._steps[axis])

    def after(self, axis: int, which: slice | Tensor = EVERY) -> Tensor:
        """The voxel after each of `which`, as for `before`."""
        return self._number.index_select(0, self._place[which] + self._steps[axis])

    def image(self, values: Tensor) -> NDArray[Any]:
        """(N,) values in their places, 0 outside: (*spatial)."""
        result = values.new_zeros(self.foreground.shape, device=self.foreground.device)
        return result.masked_scatter_(self.foreground, values.to(result.device)).cpu().numpy()

    def _indices_of(self, mask: Tensor) -> Tensor:
        """Where the flat mask is true, a portion at a time: torch counts in int64."""
        flat = mask.ravel()
        result, found = torch.empty(int(flat.count_nonzero()), dtype=self.index_dtype, device=mask.device), 0
        for start in range(0, len(flat), self._portion):
            indices = flat[start : start + self._portion].nonzero()[:, 0]
            result[found : found + len(indices)] = indices.add_(start)
            found += len(indices)
        return result
