"""`pairwise.pairwise_sums` on a GPU: one kernel forward and one backward, for every voxel against every centre.

Each program holds the embeddings of some voxels in registers and goes through the centres, so that no pair ever
reaches the memory, and distances are sums of squared differences, without the cancellation of a matrix product. Centres
out of reach of all its voxels it skips. Sums are taken in a fixed order: equal inputs give equal results, bit for bit.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..geometry.distances import SMALLEST_SQUARE
from .pairwise import HingeAndKernel, PairFunctions
from .triton_blocks import BLOCK_VOXELS, columns_of, store_columns

MOST_PROGRAMS = 1024  # for an image's gradients, as each has a sum of its own for every centre
TINY = tl.constexpr(SMALLEST_SQUARE)


def pairwise_sums_on_gpu(
    embeddings: Tensor,
    centers: Tensor,
    exist: Tensor,
    weights: Tensor,
    functions: PairFunctions,
    other: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """As `pairwise.pairwise_sums`, from the embeddings themselves, of which boxes would be made there.

    Args:
        other: the other space's embeddings, (B, E', *spatial), and the same centres there, (B, C, E').
    """
    return _PairwiseSums.apply(embeddings, centers, exist, weights, functions, other)


class _PairwiseSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, embeddings, centers, exist, weights, functions, other):  # noqa: ANN205 (autograd's)
        spaces = [_contiguous(embeddings, centers), _contiguous(*(other or (embeddings, centers)))]
        weights = weights.reshape(*weights.shape[:2], -1)
        if weights.stride(2) != 1:
            weights = weights.contiguous()  # maps may be one for all functions, but of each the voxels lie side by side
        exist = exist.contiguous()
        voxel_sums = torch.empty_like(weights, memory_format=torch.contiguous_format)
        with torch.cuda.device_of(embeddings):  # Triton launches on the current one
            _sum_kernel[_grid(weights)](voxel_sums, *_arguments(spaces, exist, weights), **_settings(spaces, functions))
        ctx.functions, ctx.slices, ctx.shape = functions, embeddings.shape[2], embeddings.shape
        ctx.save_for_backward(*spaces[0], *spaces[1], exist, weights)
        return voxel_sums.view(*weights.shape[:2], ctx.slices, -1).sum(3)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):  # noqa: ANN205
        *tensors, exist, weights = ctx.saved_tensors
        spaces = [tuple(tensors[:2]), tuple(tensors[2:])]
        embeddings, centers = spaces[0]
        to_embeddings = torch.empty_like(embeddings)
        blocks, images = _grid(weights)
        each = triton.cdiv(blocks, MOST_PROGRAMS)
        grid = triton.cdiv(blocks, each), images
        to_centers = centers.new_zeros(images, grid[0], *centers.shape[1:])  # of each program
        results = to_embeddings, to_centers, upstream.contiguous(), ctx.slices, each
        with torch.cuda.device_of(embeddings):
            _gradient_kernel[grid](*results, *_arguments(spaces, exist, weights), **_settings(spaces, ctx.functions))
        return to_embeddings.view(ctx.shape), to_centers.sum(1), None, None, None, None


def _contiguous(embeddings: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings (B, E, N) and centres without gradient, as the kernels read them."""
    return embeddings.detach().flatten(2).contiguous(), centers.detach().contiguous()


def _grid(weights: Tensor) -> tuple[int, int]:
    images, _, voxels = weights.shape
    return triton.cdiv(voxels, BLOCK_VOXELS), images


def _arguments(spaces: list[tuple[Tensor, Tensor]], exist: Tensor, weights: Tensor) -> tuple[Any, ...]:
    (embeddings, centers), (others, other_centers) = spaces
    tensors = embeddings, centers, others, other_centers, exist.view(torch.uint8), weights
    return (*tensors, weights.shape[2], exist.shape[1], *weights.stride()[:2])


def _settings(spaces: list[tuple[Tensor, Tensor]], functions: PairFunctions) -> dict[str, Any]:
    dims, other_dims = (embeddings.shape[1] for embeddings, _ in spaces)
    two_spaces, margin = (False, functions.margin) if isinstance(functions, HingeAndKernel) else (True, 0.0)
    return {
        "TWO_SPACES": two_spaces,
        "FACTOR": functions.factor,
        "MARGIN": margin,
        "REACH": functions.reach,
        "DIMS": dims,
        "OTHER_DIMS": other_dims,
        "ROWS": triton.next_power_of_2(dims),
        "OTHER_ROWS": triton.next_power_of_2(other_dims),
        "BLOCK": BLOCK_VOXELS,
    }


@triton.jit
def _columns_and_bounds(space, image, voxel, voxels, inside, DIMS: tl.constexpr, ROWS: tl.constexpr):
    """Embeddings as from `columns_of`, and the least and the largest of each dimension, (ROWS,) each."""
    columns = columns_of(space, image, voxel, voxels, inside, DIMS, ROWS)
    least = tl.min(tl.where(inside[None, :], columns, float("inf")), axis=1)
    return columns, (least, tl.max(tl.where(inside[None, :], columns, float("-inf")), axis=1))


@triton.jit
def _meet(centers, number, bounds, REACH: tl.constexpr, DIMS: tl.constexpr, ROWS: tl.constexpr):
    """One of the centres, (ROWS,), and whether it may be within reach of an embedding between these bounds."""
    row = tl.arange(0, ROWS)
    center = tl.load(centers + number * DIMS + row, mask=row < DIMS, other=0.0)
    gap = tl.maximum(tl.maximum(bounds[0] - center, center - bounds[1]), 0.0)
    return center, tl.sum(gap * gap, axis=0) <= REACH * REACH


@triton.jit(do_not_specialize=["count"])
def _sum_kernel(
    sums,
    embeddings,
    centers,
    others,
    other_centers,
    exist,
    weights,
    voxels,
    count,
    weights_of_image,
    weights_of_function,
    TWO_SPACES: tl.constexpr,
    FACTOR: tl.constexpr,
    MARGIN: tl.constexpr,
    REACH: tl.constexpr,
    DIMS: tl.constexpr,
    OTHER_DIMS: tl.constexpr,
    ROWS: tl.constexpr,
    OTHER_ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Weighted sums over the centres, for each function and voxel: (B, F, N)."""
    image = tl.program_id(1).to(tl.int64)
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    columns, bounds = _columns_and_bounds(embeddings, image, voxel, voxels, inside, DIMS, ROWS)
    if TWO_SPACES:
        other_columns, other_bounds = _columns_and_bounds(others, image, voxel, voxels, inside, OTHER_DIMS, OTHER_ROWS)
    first = tl.zeros((BLOCK,), columns.dtype)
    second = tl.zeros((BLOCK,), columns.dtype)
    third = tl.zeros((BLOCK,), columns.dtype)
    for number in range(count):
        place = image * count + number
        center, near = _meet(centers, place, bounds, REACH, DIMS, ROWS)
        if TWO_SPACES:
            other_center, other_near = _meet(other_centers, place, other_bounds, REACH, OTHER_DIMS, OTHER_ROWS)
            near = near | other_near
        if near & (tl.load(exist + place) != 0):
            difference = columns - center[:, None]
            squared = tl.sum(difference * difference, axis=0)
            if TWO_SPACES:
                difference = other_columns - other_center[:, None]
                own = tl.exp(squared * FACTOR)
                other = tl.exp(tl.sum(difference * difference, axis=0) * FACTOR)
                first += own * other
                second += own * own
                third += other * other
            else:
                gap = tl.maximum(MARGIN - tl.sqrt(squared), 0.0)
                first += gap * gap
                second += tl.exp(squared * FACTOR)
    weights += image * weights_of_image + voxel
    functions: tl.constexpr = 3 if TWO_SPACES else 2
    sums += image * functions * voxels + voxel
    tl.store(sums, first * tl.load(weights, mask=inside, other=0.0), mask=inside)
    tl.store(sums + voxels, second * tl.load(weights + weights_of_function, mask=inside, other=0.0), mask=inside)
    if TWO_SPACES:
        weight = tl.load(weights + 2 * weights_of_function, mask=inside, other=0.0)
        tl.store(sums + 2 * voxels, third * weight, mask=inside)


@triton.jit(do_not_specialize=["count", "slices", "blocks"])
def _gradient_kernel(
    to_embeddings,
    to_centers,
    upstream,
    slices,
    blocks,
    embeddings,
    centers,
    others,
    other_centers,
    exist,
    weights,
    voxels,
    count,
    weights_of_image,
    weights_of_function,
    TWO_SPACES: tl.constexpr,
    FACTOR: tl.constexpr,
    MARGIN: tl.constexpr,
    REACH: tl.constexpr,
    DIMS: tl.constexpr,
    OTHER_DIMS: tl.constexpr,
    ROWS: tl.constexpr,
    OTHER_ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients by the embeddings, (B, E, N), and each program's by the centres, (B, programs, C, E)."""
    image = tl.program_id(1).to(tl.int64)
    functions: tl.constexpr = 3 if TWO_SPACES else 2
    weights += image * weights_of_image
    upstream += image * functions * slices
    row = tl.arange(0, ROWS)
    to_centers += (image * tl.num_programs(0) + tl.program_id(0)) * count * DIMS + row
    for block in range(blocks):
        voxel = (tl.program_id(0) * blocks + block) * BLOCK + tl.arange(0, BLOCK)
        inside = voxel < voxels
        columns, bounds = _columns_and_bounds(embeddings, image, voxel, voxels, inside, DIMS, ROWS)
        if TWO_SPACES:
            other_columns, other_bounds = _columns_and_bounds(
                others, image, voxel, voxels, inside, OTHER_DIMS, OTHER_ROWS
            )
        layer = voxel // (voxels // slices)
        weight = tl.load(weights + voxel, mask=inside, other=0.0)
        first = weight * tl.load(upstream + layer, mask=inside, other=0.0)
        weight = tl.load(weights + weights_of_function + voxel, mask=inside, other=0.0)
        second = weight * tl.load(upstream + slices + layer, mask=inside, other=0.0)
        gradient = tl.zeros((ROWS, BLOCK), columns.dtype)
        for number in range(count):
            place = image * count + number
            center, near = _meet(centers, place, bounds, REACH, DIMS, ROWS)
            if TWO_SPACES:
                other_center, other_near = _meet(other_centers, place, other_bounds, REACH, OTHER_DIMS, OTHER_ROWS)
                near = near | other_near
            if near & (tl.load(exist + place) != 0):
                difference = columns - center[:, None]
                squared = tl.sum(difference * difference, axis=0)
                if TWO_SPACES:
                    other_difference = other_columns - other_center[:, None]
                    own = tl.exp(squared * FACTOR)
                    other = tl.exp(tl.sum(other_difference * other_difference, axis=0) * FACTOR)
                    slope = FACTOR * own * (other * first + 2 * own * second)
                else:
                    distance = tl.sqrt(tl.maximum(squared, TINY))  # 0 has no inverse
                    slope = FACTOR * tl.exp(squared * FACTOR) * second - tl.maximum(MARGIN / distance - 1, 0.0) * first
                pull = 2 * slope[None, :] * difference
                gradient += pull
                sums = to_centers + number * DIMS
                total = tl.load(sums, mask=row < DIMS, other=0.0) - tl.sum(pull, axis=1)
                tl.store(sums, total, mask=row < DIMS)
        store_columns(to_embeddings, gradient, image, voxel, voxels, inside, DIMS, ROWS)
        tl.debug_barrier()  # the next voxels add to what these have written
