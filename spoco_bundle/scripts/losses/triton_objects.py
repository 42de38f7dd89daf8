"""What `annotation` sums up over the voxels of each object, on a GPU: kernels for sums and for distances to means.

Each program of the sums goes through some voxels, of which a few neighbours at a time, object by object, and adds to
sums of its own: equal inputs give equal results, bit for bit, without the sorting that PyTorch does for that. It is one
warp, which need not wait for others before it reads what it wrote.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from .triton_blocks import BLOCK_VOXELS, columns_of, store_columns

NEIGHBOURS, PART = 128, 2048  # voxels that are looked at together, of few objects mostly, and by one program
HELD = 2048  # numbers of neighbouring voxels that one warp holds in registers, with as many more for its sums


def sums_of_objects(values: Tensor, numbers: Tensor, count: int) -> Tensor:
    """Sum over the voxels of each object.

    Args:
        values: (B, R, N).
        numbers: (B, N) int32, the object of each voxel; negative ones are no object's.
        count: C, number of objects.

    Returns:
        (B, C, R), differentiable once in the values.
    """
    return _SumsOfObjects.apply(values, numbers.contiguous(), count)


def distances_to_own(embeddings: Tensor, means: Tensor, numbers: Tensor) -> Tensor:
    """How far each voxel's embedding lies from its object's mean; 0 where there is no object.

    Args:
        embeddings: (B, E, N). means: (B, C, E). numbers: as for `sums_of_objects`.

    Returns:
        (B, N), differentiable once in embeddings and means.
    """
    return _DistancesToOwn.apply(embeddings, means, numbers.contiguous())


class _SumsOfObjects(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, numbers: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(numbers)
        return _sums(values.detach().contiguous(), numbers, count)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (numbers,) = ctx.saved_tensors
        index = numbers.clamp_min(0).long()[:, None].expand(-1, upstream.shape[2], -1)
        return upstream.mT.gather(2, index).mul_((numbers >= 0)[:, None]), None, None


class _DistancesToOwn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, means: Tensor, numbers: Tensor) -> Tensor:
        tensors = embeddings.detach().contiguous(), means.detach().contiguous(), numbers
        ctx.save_for_backward(*tensors)
        distances = torch.empty_like(numbers, dtype=embeddings.dtype)
        with torch.cuda.device_of(embeddings):  # Triton launches on the current one
            _distance_kernel[_grid(numbers)](distances, *tensors, *_sizes(*tensors))
        return distances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        embeddings, means, numbers = ctx.saved_tensors
        gradient = torch.empty_like(embeddings)
        with torch.cuda.device_of(embeddings):
            _distance_gradient_kernel[_grid(numbers)](
                gradient, upstream.contiguous(), embeddings, means, numbers, *_sizes(embeddings, means, numbers)
            )
        return gradient, -_sums(gradient, numbers, means.shape[1]), None


def _sums(values: Tensor, numbers: Tensor, count: int) -> Tensor:
    """(B, R, N), (B, N) -> (B, C, R)."""
    images, rows, voxels = values.shape
    parts = triton.cdiv(voxels, PART)
    sums = values.new_zeros(images, parts, count, rows)
    padded = triton.next_power_of_2(rows)
    neighbours = max(16, min(NEIGHBOURS, HELD // padded))
    sizes = voxels, count, rows, padded, neighbours, PART // neighbours
    with torch.cuda.device_of(values):
        _sum_kernel[(parts, images)](sums, values, numbers, *sizes, num_warps=1)
    return sums.sum(1, dtype=values.dtype)


def _grid(numbers: Tensor) -> tuple[int, int]:
    return triton.cdiv(numbers.shape[1], BLOCK_VOXELS), len(numbers)


def _sizes(embeddings: Tensor, means: Tensor, numbers: Tensor) -> tuple[int, ...]:
    dims = embeddings.shape[1]
    return numbers.shape[1], means.shape[1], dims, triton.next_power_of_2(dims), BLOCK_VOXELS


@triton.jit(do_not_specialize=["count"])
def _sum_kernel(
    sums,
    values,
    numbers,
    voxels,
    count,
    DIMS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Add up some voxels' values, (B, parts, C, DIMS): a program for each part of an image."""
    part, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row = tl.arange(0, ROWS)
    numbers += image * voxels
    sums += (image * tl.num_programs(0) + part) * count * DIMS + row
    for block in range(BLOCKS):
        voxel = (part * BLOCKS + block) * BLOCK + tl.arange(0, BLOCK)
        left = tl.load(numbers + voxel, mask=voxel < voxels, other=-1)
        columns = columns_of(values, image, voxel, voxels, left >= 0, DIMS, ROWS)
        number = tl.max(left, axis=0)
        while number >= 0:
            own = left == number
            place = sums + number * DIMS
            total = tl.load(place, mask=row < DIMS, other=0) + tl.sum(tl.where(own[None, :], columns, 0), axis=1)
            tl.store(place, total, mask=row < DIMS)
            tl.debug_barrier()
            left = tl.where(own, -1, left)
            number = tl.max(left, axis=0)


@triton.jit
def _to_own(embeddings, means, numbers, image, voxel, voxels, count, inside, DIMS: tl.constexpr, ROWS: tl.constexpr):
    """From the voxels' embeddings to their objects' means: difference (ROWS, BLOCK), distance; 0 without an object."""
    number = tl.load(numbers + image * voxels + voxel, mask=inside, other=-1)
    own = number >= 0
    row = tl.arange(0, ROWS)
    places = (image * count + number)[None, :] * DIMS + row[:, None]
    mean = tl.load(means + places, mask=(row < DIMS)[:, None] & own[None, :], other=0.0)
    difference = columns_of(embeddings, image, voxel, voxels, own, DIMS, ROWS) - mean
    return difference, tl.sqrt(tl.sum(difference * difference, axis=0))


@triton.jit(do_not_specialize=["count"])
def _distance_kernel(
    distances,
    embeddings,
    means,
    numbers,
    voxels,
    count,
    DIMS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Distance of each voxel to its object's mean, (B, N)."""
    image = tl.program_id(1).to(tl.int64)
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    _, distance = _to_own(embeddings, means, numbers, image, voxel, voxels, count, inside, DIMS, ROWS)
    tl.store(distances + image * voxels + voxel, distance, mask=inside)


@triton.jit(do_not_specialize=["count"])
def _distance_gradient_kernel(
    gradient,
    upstream,
    embeddings,
    means,
    numbers,
    voxels,
    count,
    DIMS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """By the embeddings, (B, DIMS, N); the sum over an object's voxels is the opposite of that by its mean."""
    image = tl.program_id(1).to(tl.int64)
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    difference, distance = _to_own(embeddings, means, numbers, image, voxel, voxels, count, inside, DIMS, ROWS)
    factor = tl.load(upstream + image * voxels + voxel, mask=inside, other=0.0)
    # at the mean there is no direction to go: the factor need only stay finite
    pull = difference * (factor / tl.maximum(distance, 1e-12))[None, :]
    store_columns(gradient, pull, image, voxel, voxels, inside, DIMS, ROWS)
