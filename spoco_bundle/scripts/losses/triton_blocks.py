"""What all kernels do: take the embeddings of some voxels from memory, and write such as lie so."""

from __future__ import annotations

import triton
import triton.language as tl

BLOCK_VOXELS = 256  # at once: with 16 dimensions their embeddings and gradients fit into registers


@triton.jit
def columns_of(space, image, voxel, voxels, inside, DIMS: tl.constexpr, ROWS: tl.constexpr):
    """Embeddings of an image's voxels, (ROWS, BLOCK), of which the first DIMS rows exist; 0 where not `inside`."""
    row = tl.arange(0, ROWS)
    places = (image * DIMS + row)[:, None] * voxels + voxel[None, :]
    return tl.load(space + places, mask=(row < DIMS)[:, None] & inside[None, :], other=0.0)


@triton.jit
def store_columns(space, columns, image, voxel, voxels, inside, DIMS: tl.constexpr, ROWS: tl.constexpr):
    """Write what `columns_of` would read."""
    row = tl.arange(0, ROWS)
    places = (image * DIMS + row)[:, None] * voxels + voxel[None, :]
    tl.store(space + places, columns, mask=(row < DIMS)[:, None] & inside[None, :])
