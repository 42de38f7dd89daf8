"""The term of `borders` on a GPU: one kernel forward and one backward.

Each voxel looks at the two ends of the pairs that start at it, and backward also of those that end there, so that
nothing is added up by two programs at once: equal inputs give equal results, bit for bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from .triton_blocks import BLOCK_VOXELS, columns_of, store_columns


def border_term_on_gpu(
    embeddings: Tensor, labels: Tensor, annotated: Tensor, known: Tensor, reach: int, near: float, far: float
) -> Tensor:
    """As `borders.border_term`, with its reach and the limits of its hinges; (B,)."""
    return _BorderTerm.apply(embeddings, labels, annotated, known, reach, near, far)


class _BorderTerm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, embeddings, labels, annotated, known, reach, near, far):  # noqa: ANN205 (autograd's)
        space = embeddings.detach().contiguous()
        maps = labels.contiguous(), *(mask.contiguous().view(torch.uint8) for mask in (annotated, known))
        images, dims, *shape = space.shape
        programs = triton.cdiv(labels[0].numel(), BLOCK_VOXELS)
        sums = space.new_empty(images, programs, 2)
        pairs = torch.empty(sums.shape, dtype=torch.int32, device=sums.device)
        sizes = [1] * (3 - len(shape)) + shape
        settings = {"REACH": reach, "NEAR": near, "FAR": far, "DIMS": dims, "ROWS": triton.next_power_of_2(dims)}
        ctx.sizes, ctx.settings, ctx.grid = sizes, {**settings, "BLOCK": BLOCK_VOXELS}, (programs, images)
        with torch.cuda.device_of(space):  # Triton launches on the current one
            _border_kernel[ctx.grid](sums, pairs, space, *maps, *sizes, **ctx.settings)
        counts = pairs.sum(1).clamp_min(1)  # (B, 2): inside objects, across their rims
        ctx.save_for_backward(space, *maps, counts)
        return (sums.sum(1) / counts).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):  # noqa: ANN205
        space, *maps, counts = ctx.saved_tensors
        gradient = torch.empty_like(space)
        factors = 2 * upstream[:, None] / counts
        with torch.cuda.device_of(space):
            _border_gradient_kernel[ctx.grid](gradient, factors, space, *maps, *ctx.sizes, **ctx.settings)
        return gradient, None, None, None, None, None, None


@triton.jit
def _hinges(difference, labels, annotated, known, voxel, other, exists, NEAR: tl.constexpr, FAR: tl.constexpr):
    """Of pairs of voxels, (BLOCK,) each: how much too far apart, how much too near, the distance, which pairs count."""
    both_known = (tl.load(known + voxel, mask=exists, other=0) & tl.load(known + other, mask=exists, other=0)) != 0
    one = tl.load(annotated + voxel, mask=exists, other=0) != 0
    two = tl.load(annotated + other, mask=exists, other=0) != 0
    same = tl.load(labels + voxel, mask=exists, other=0) == tl.load(labels + other, mask=exists, other=0)
    inside = same & one & two & both_known
    across = (same == 0) & (one | two) & both_known
    distance = tl.sqrt(tl.sum(difference * difference, axis=0))
    too_far = tl.where(inside, tl.maximum(distance - NEAR, 0.0), 0.0)
    too_near = tl.where(across, tl.maximum(FAR - distance, 0.0), 0.0)
    return too_far, too_near, distance, inside, across


@triton.jit(do_not_specialize=["depth", "height", "width"])
def _border_kernel(
    sums,
    pairs,
    space,
    labels,
    annotated,
    known,
    depth,
    height,
    width,
    REACH: tl.constexpr,
    NEAR: tl.constexpr,
    FAR: tl.constexpr,
    DIMS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums of squares and numbers of pairs, inside objects and across rims: (B, programs, 2) each."""
    image = tl.program_id(1).to(tl.int64)
    voxels = depth * height * width
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = voxel < voxels
    labels += image * voxels
    annotated += image * voxels
    known += image * voxels
    columns = columns_of(space, image, voxel, voxels, valid, DIMS, ROWS)
    inside_sum = tl.zeros((BLOCK,), columns.dtype)
    across_sum = tl.zeros((BLOCK,), columns.dtype)
    inside_pairs = tl.zeros((BLOCK,), tl.int32)
    across_pairs = tl.zeros((BLOCK,), tl.int32)
    step = voxels  # of the axis, in voxels
    for axis in tl.static_range(3):
        size = depth if axis == 0 else (height if axis == 1 else width)
        step = step // size
        other = voxel + REACH * step
        exists = valid & (voxel // step % size + REACH < size)
        difference = columns - columns_of(space, image, other, voxels, exists, DIMS, ROWS)
        hinges = _hinges(difference, labels, annotated, known, voxel, other, exists, NEAR, FAR)
        inside_sum += hinges[0] * hinges[0]
        across_sum += hinges[1] * hinges[1]
        inside_pairs += hinges[3].to(tl.int32)
        across_pairs += hinges[4].to(tl.int32)
    place = (image * tl.num_programs(0) + tl.program_id(0)) * 2
    tl.store(sums + place, tl.sum(inside_sum, axis=0))
    tl.store(sums + place + 1, tl.sum(across_sum, axis=0))
    tl.store(pairs + place, tl.sum(inside_pairs, axis=0))
    tl.store(pairs + place + 1, tl.sum(across_pairs, axis=0))


@triton.jit(do_not_specialize=["depth", "height", "width"])
def _border_gradient_kernel(
    gradient,
    factors,
    space,
    labels,
    annotated,
    known,
    depth,
    height,
    width,
    REACH: tl.constexpr,
    NEAR: tl.constexpr,
    FAR: tl.constexpr,
    DIMS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradient by the embeddings; factors: (B, 2), of the pairs inside objects and across rims."""
    image = tl.program_id(1).to(tl.int64)
    voxels = depth * height * width
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = voxel < voxels
    labels += image * voxels
    annotated += image * voxels
    known += image * voxels
    columns = columns_of(space, image, voxel, voxels, valid, DIMS, ROWS)
    pulling = tl.load(factors + image * 2)
    pushing = tl.load(factors + image * 2 + 1)
    result = tl.zeros((ROWS, BLOCK), columns.dtype)
    step = voxels
    for axis in tl.static_range(3):
        size = depth if axis == 0 else (height if axis == 1 else width)
        step = step // size
        place = voxel // step % size
        for side in tl.static_range(2):  # pairs that start here, pairs that end here
            distance_to_other = REACH if side == 0 else -REACH
            other = voxel + distance_to_other * step
            exists = valid & (place + distance_to_other >= 0) & (place + distance_to_other < size)
            difference = columns - columns_of(space, image, other, voxels, exists, DIMS, ROWS)
            hinges = _hinges(difference, labels, annotated, known, voxel, other, exists, NEAR, FAR)
            # equal embeddings have no direction to go: the factor need only stay finite
            slope = (hinges[0] * pulling - hinges[1] * pushing) / tl.maximum(hinges[2], 1e-12)
            result += slope[None, :] * difference
    store_columns(gradient, result, image, voxel, voxels, valid, DIMS, ROWS)
