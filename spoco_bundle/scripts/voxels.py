"""The foreground as a list of voxels that know their neighbours: what lies outside costs nothing.

Everything here runs on the device of the embeddings.
"""

from __future__ import annotations

from typing import Any

import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad


def plain_tensor(tensor: Tensor) -> Tensor:
    """Without gradient and metadata, and not on MPS, which lacks the float64 that clustering needs."""
    plain = tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
    return plain.detach().cpu() if plain.device.type == "mps" else plain.detach()


class ForegroundVoxels:
    """N voxels in the order of the image, and after them one that stands for everything outside.

    Neighbours are looked up, axis by axis, when they are needed: kept, they would take as much memory as embeddings.
    Indices into this list take half the memory of torch's usual ones, as long as there are less than 2^31.

    Args:
        embeddings: (E, *spatial).
        foreground: (*spatial) bool, at least one voxel of it true.
    """

    def __init__(self, embeddings: Tensor, foreground: Tensor) -> None:
        self.foreground = foreground.to(embeddings.device).contiguous()
        # A rim after the end of each axis, and one plane before everything, keep rows apart.
        padded = pad(self.foreground, [0, 1] * self.foreground.ndim)
        self._steps = padded.stride()
        self.index_dtype = torch.int32 if padded.numel() + self._steps[0] < 2**31 else torch.int64
        self._place = self._indices_of(padded).add_(self._steps[0])  # (N,) in `_number`
        self.count = len(self._place)
        self._number = self._place.new_full((padded.numel() + self._steps[0],), self.count)
        self._number[self._place] = torch.arange(self.count, dtype=self.index_dtype, device=padded.device)
        inside = self._indices_of(self.foreground)
        self.vectors = embeddings.new_zeros(self.count + 1, len(embeddings))  # (N + 1, E)
        for column, channel in zip(self.vectors.T, embeddings, strict=True):
            column[:-1] = channel.ravel().index_select(0, inside)

    def neighbors(self, axis: int) -> tuple[Tensor, Tensor]:
        """The voxels before and after each one along an axis, N where that is not in the foreground: (N + 1,) each."""
        return self._beside(-self._steps[axis]), self._beside(self._steps[axis])

    def faces(self, axis: int) -> tuple[Tensor, Tensor]:
        """Pairs of direct neighbours along `axis`: (F,) indices of the first and of the second voxel."""
        after = self._beside(self._steps[axis])
        has_next = (after < self.count).nonzero()[:, 0]
        return has_next.to(self.index_dtype), after.index_select(0, has_next)

    def image(self, values: Tensor) -> NDArray[Any]:
        """(N,) values in their places, 0 outside: (*spatial)."""
        result = values.new_zeros(self.foreground.shape, device=self.foreground.device)
        return result.masked_scatter_(self.foreground, values.to(result.device)).cpu().numpy()

    def _beside(self, step: int) -> Tensor:
        """What is `step` places further in the flat image, (N + 1,); outside lies beside what is outside."""
        result = self._place.new_full((self.count + 1,), self.count)
        torch.index_select(self._number, 0, self._place + step, out=result[:-1])
        return result

    def _indices_of(self, mask: Tensor) -> Tensor:
        """Where the flat mask is true."""
        return mask.ravel().nonzero()[:, 0].to(self.index_dtype)
