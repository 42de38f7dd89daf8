"""The foreground as a list of voxels that know their neighbours: what lies outside costs nothing.

Everything here runs on the device of the embeddings.
"""

from __future__ import annotations

from typing import Any

import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor


def plain_tensor(tensor: Tensor) -> Tensor:
    """Without gradient and metadata, and not on MPS, which lacks the float64 that clustering needs."""
    plain = tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
    return plain.detach().cpu() if plain.device.type == "mps" else plain.detach()


class ForegroundVoxels:
    """N voxels in the order of the image, and after them one that stands for everything outside.

    Indices into this list take half the memory of torch's usual ones, as long as there are less than 2^31.

    Args:
        embeddings: (E, *spatial).
        foreground: (*spatial) bool, at least one voxel of it true.
    """

    def __init__(self, embeddings: Tensor, foreground: Tensor) -> None:
        self.foreground = foreground.to(embeddings.device).contiguous()
        self.place = self.foreground.ravel().nonzero()[:, 0]  # (N,) in the flat image
        self.count = len(self.place)
        self.vectors = embeddings.new_zeros(self.count + 1, len(embeddings))  # (N + 1, E)
        for column, channel in zip(self.vectors.T, embeddings, strict=True):
            column[:-1] = channel.ravel()[self.place]
        self.before, self.after = self._neighbors()  # (ndim, N + 1) each: indices into this list

    def coordinates(self, axis: int) -> Tensor:
        """Of the voxels along `axis`: (N,)."""
        return self.place // self.foreground.stride(axis) % self.foreground.shape[axis]

    def faces(self, axis: int) -> tuple[Tensor, Tensor]:
        """Pairs of direct neighbours along `axis`: (F,) indices of the first and of the second voxel."""
        has_next = (self.after[axis, :-1] < self.count).nonzero()[:, 0]
        return has_next.to(self.after.dtype), self.after[axis].index_select(0, has_next)

    def image(self, values: Tensor) -> NDArray[Any]:
        """(N,) values in their places, 0 outside: (*spatial)."""
        result = values.new_zeros(self.foreground.numel()).index_copy_(0, self.place, values)
        return result.reshape(self.foreground.shape).cpu().numpy()

    def _neighbors(self) -> tuple[Tensor, Tensor]:
        """The voxel before and after each one along each axis, N where that is not in the foreground."""
        dtype = torch.int32 if self.foreground.numel() < 2**31 else torch.int64
        own = torch.arange(self.count, dtype=dtype, device=self.place.device)
        index = own.new_full((self.foreground.numel(),), self.count).index_copy_(0, self.place, own)
        after = own.new_full((self.foreground.ndim, self.count + 1), self.count)
        before = after.clone()
        for axis, size in enumerate(self.foreground.shape):
            has_next = (self.coordinates(axis) < size - 1).nonzero()[:, 0]
            following = index[self.place[has_next] + self.foreground.stride(axis)]
            after[axis, has_next] = following
            before[axis, following] = has_next.to(dtype)
        before[:, -1] = self.count
        return before, after
