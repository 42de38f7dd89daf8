"""The walk of `anchors.draw_anchors` on a GPU: one kernel in the place of ten for each anchor."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_blocks import columns_of


def walk_on_gpu(
    embeddings: Tensor, walk: Tensor, uncovered: Tensor, delta_var: float, count: int
) -> tuple[Tensor, Tensor]:
    """As `anchors.walk_through`."""
    images, dims, voxels = embeddings.shape
    chosen = torch.empty((images, count), dtype=torch.long, device=walk.device)
    left = torch.empty_like(chosen)
    tensors = embeddings.contiguous(), walk.contiguous(), uncovered.contiguous().view(torch.uint8)
    settings = {"RADIUS": delta_var, "DIMS": dims, "ROWS": triton.next_power_of_2(dims)}
    length = walk.shape[1]
    with torch.cuda.device_of(embeddings):  # Triton launches on the current one
        _walk_kernel[(images,)](
            chosen,
            left,
            *tensors,
            voxels,
            length,
            count,
            LENGTH=triton.next_power_of_2(length),
            num_warps=8,
            **settings,
        )
    return chosen, left


@triton.jit(do_not_specialize=["length", "count"])
def _walk_kernel(
    chosen,
    left,
    embeddings,
    walk,
    uncovered,
    voxels,
    length,
    count,
    RADIUS: tl.constexpr,
    DIMS: tl.constexpr,
    ROWS: tl.constexpr,
    LENGTH: tl.constexpr,
):
    """One program an image, with the embeddings of its whole walk, (ROWS, LENGTH)."""
    image = tl.program_id(0).to(tl.int64)
    walk += image * length
    row, place = tl.arange(0, ROWS), tl.arange(0, LENGTH)
    inside = place < length
    voxel = tl.load(walk + place, mask=inside, other=0)
    walked = columns_of(embeddings, image, voxel, voxels, inside, DIMS, ROWS)
    space = embeddings + (image * DIMS + row) * voxels
    pool = tl.load(uncovered + image * length + place, mask=inside, other=0).to(tl.int32)
    for step in range(count):
        first = tl.min(tl.where(pool > 0, place, LENGTH), axis=0)
        anchor = tl.load(walk + tl.where(first < LENGTH, first, 0))
        tl.store(chosen + image * count + step, anchor)
        tl.store(left + image * count + step, tl.sum(pool, axis=0))
        difference = walked - tl.load(space + anchor, mask=row < DIMS, other=0.0)[:, None]
        distance = tl.sqrt(tl.sum(difference * difference, axis=0))
        pool = tl.where(distance > RADIUS, pool, 0)
