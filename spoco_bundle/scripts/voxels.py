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

    Args:
        embeddings: (E, *spatial).
        foreground: (*spatial) bool, at least one voxel of it true.
    """

    def __init__(self, embeddings: Tensor, foreground: Tensor) -> None:
        self.foreground = foreground.to(embeddings.device).contiguous()
        inside = self.foreground.ravel().nonzero()[:, 0]
        self.count = len(inside)
        outside = embeddings.new_zeros(1, len(embeddings))
        self.vectors = torch.cat([embeddings.flatten(1)[:, inside].T, outside])  # (N + 1, E)
        self.coordinates = torch.stack(torch.unravel_index(inside, foreground.shape))  # (ndim, N)
        self.before, self.after = self._neighbors(inside)  # (ndim, N + 1) each: indices into this list

    def _neighbors(self, inside: Tensor) -> tuple[Tensor, Tensor]:
        """The voxel before and after each one along each axis, N where that is not in the foreground."""
        index = self.foreground.new_full((self.foreground.numel(),), self.count, dtype=torch.int64)
        index[inside] = torch.arange(self.count, device=index.device)
        after = torch.full((self.foreground.ndim, self.count + 1), self.count, device=index.device)
        before = after.clone()
        for axis, size in enumerate(self.foreground.shape):
            has_next = (self.coordinates[axis] < size - 1).nonzero()[:, 0]
            following = index[inside[has_next] + self.foreground.stride(axis)]
            after[axis, has_next] = following
            before[axis, following] = has_next
        before[:, -1] = self.count
        return before, after

    def faces(self, axis: int) -> tuple[Tensor, Tensor]:
        """Pairs of direct neighbours along `axis`: (F,) indices of the first and of the second voxel."""
        first = (self.after[axis, :-1] < self.count).nonzero()[:, 0]
        return first, self.after[axis, first]

    def image(self, values: Tensor) -> NDArray[Any]:
        """(N,) values in their places, 0 outside: (*spatial)."""
        result = values.new_zeros(self.foreground.shape)
        result[self.foreground] = values
        return result.cpu().numpy()
