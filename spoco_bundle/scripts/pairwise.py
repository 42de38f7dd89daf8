"""Sums over all pairs of voxels and centres, without keeping a voxels x centres tensor.

Every term of the SPOCO loss that compares each voxel with each object (or anchor) is a sum of a function f of the
squared distance between an embedding and a centre, and f is nothing beyond some reach. So the image is walked through
in blocks of neighbouring voxels, whose embeddings are alike, and each block meets only the centres within reach: the
work grows with the voxels, less with the objects. The gradient needs only f' at the same pairs, so value and gradient
are computed together, and only tensors of the embeddings' own size survive for the backward pass. Sums are kept per
slice of the first spatial axis, because the consistency term needs them so. Shapes: E embedding dimensions, S slices,
C centres, F functions; of a block: s slices, w voxels a slice, c centres within reach.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NEGLIGIBLE_EXPONENT = 30.0  # exp(-30) = 1e-13: a million such voxels are less than float32 resolves in the sum of one
LEAST_EXPONENT = -40.0  # the square of exp(-40) is still a normal float32


@dataclass(frozen=True)
class Portion:
    """How much is computed at once."""

    pairs: int
    voxels: int  # of a block, at least: small blocks leave many centres out of reach, but every block costs time


# On a CPU a MiB of pairs stays in the cache of one core. A GPU wants few large kernels, and is asked once a block which
# centres are in reach.
PORTIONS = {"cpu": Portion(pairs=2**18, voxels=2**11)}
PORTION_ELSEWHERE = Portion(pairs=2**24, voxels=2**18)


@dataclass(frozen=True)
class Pairs:
    """Some voxels, and some of the centres within their reach."""

    block: tuple[slice, ...]  # of the spatial axes
    some: Tensor  # (c,) which centres
    columns: Tensor  # (s, E, w) embeddings, relative to their mean: distances far from the origin lose no digits
    centers: Tensor  # (c, E) centres, relative to the same mean

    def squared_distances(self) -> Tensor:
        """(s, c, w)."""
        return _expanded_square(self.centers, self.columns)


class PairFunctions(Protocol):
    """Functions of the squared distance, computed together."""

    count: int  # F
    learned: int  # so many, the first ones, have a gradient
    reach: float  # beyond this distance all of them count as 0

    def __call__(self, squared: Tensor, pairs: Pairs) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Each function's values and, if it is learned, its derivative by the squared distance: (s, c, w), new."""


class HingeAndKernel:
    """max(0, margin - distance)^2, and the square of the Gaussian soft mask exp(-distance^2 / two_sigma)."""

    count = learned = 2

    def __init__(self, margin: float, two_sigma: float) -> None:
        self.margin, self.factor = margin, -2 / two_sigma
        self.reach = max(margin, math.sqrt(NEGLIGIBLE_EXPONENT / -self.factor))

    def __call__(self, squared: Tensor, pairs: Pairs) -> Iterator[tuple[Tensor, Tensor]]:
        # The gradient points away from the centre; where voxel and centre coincide it has no direction, is 0.
        distance = squared.sqrt().clamp_min_(1e-6)
        gap = (self.margin - distance).clamp_min_(0)
        yield gap.square(), gap.div_(distance).neg_()
        kernel = _exp(squared * self.factor)
        yield kernel, kernel * self.factor


class KernelsOfTwo:
    """Product and squares of a voxel's soft masks in two embedding spaces: own * other, own^2, other^2.

    No gradient flows into the other space.

    Args:
        other_centers: (C, other E). other_embeddings: (other E, *spatial).
    """

    count, learned = 3, 2
    reach = math.inf  # the other space has near pairs that are far here

    def __init__(self, two_sigma: float, other_centers: Tensor, other_embeddings: Tensor) -> None:
        self.factor = -1 / two_sigma
        self.other_centers, self.other_embeddings = other_centers, other_embeddings

    def __call__(self, squared: Tensor, pairs: Pairs) -> Iterator[tuple[Tensor, Tensor | None]]:
        columns = _columns(self.other_embeddings, pairs.block)
        middle = columns.mean((0, 2))
        other = Pairs(pairs.block, pairs.some, columns - middle[:, None], self.other_centers[pairs.some] - middle)
        own_kernel = _exp(squared * self.factor)
        other_kernel = _exp(other.squared_distances().mul_(self.factor))
        product = own_kernel * other_kernel
        yield product, product * self.factor
        own = own_kernel.square_()
        yield own, own * (2 * self.factor)
        yield other_kernel.square_(), None


def pairwise_sums(embeddings: Tensor, centers: Tensor, weights: Tensor, functions: PairFunctions) -> Tensor:
    """For each function and slice: the sum of weight(voxel) * f(|embedding - center|^2) over all pairs.

    Args:
        embeddings: (E, *spatial). centers: (C, E).
        weights: (F, *spatial), one map for each function; 0 leaves a voxel out.
        functions: F of them.

    Returns:
        (F, S) sums, differentiable once in embeddings and centers.
    """
    return _PairwiseSums.apply(embeddings, centers, weights, functions)


def squared_distances(centers: Tensor, columns: Tensor) -> Tensor:
    """|center - column|^2 of every pair: (C, E), (E, N) -> (C, N)."""
    origin = centers.mean(0)  # keeps digits, as in `Pairs`
    return _expanded_square(centers - origin, columns - origin[:, None])


def pairs_in_reach(embeddings: Tensor, centers: Tensor, reach: float) -> Iterator[Pairs]:
    """All pairs that may be closer than `reach`, in portions: (E, *spatial), (C, E)."""
    portion = PORTIONS.get(embeddings.device.type, PORTION_ELSEWHERE)
    for block in blocks(embeddings.shape[1:], max(portion.voxels, portion.pairs // max(1, len(centers)))):
        columns = _columns(embeddings, block)
        middle = columns.mean((0, 2))
        columns, relative = columns - middle[:, None], centers - middle
        radius = columns.square().sum(1).max().sqrt()
        near = (relative.norm(dim=1) <= radius + reach).nonzero()[:, 0]
        for some in near.split(max(1, portion.pairs * len(columns[0]) // columns.numel())):
            if len(some):
                yield Pairs(block, some, columns, relative[some])


def blocks(shape: Sequence[int], voxels: int) -> Iterator[tuple[slice, ...]]:
    """Cut an image into boxes of about so many voxels, as cubic as its shape allows."""
    edges = [0] * len(shape)
    for position, axis in enumerate(sorted(range(len(shape)), key=shape.__getitem__)):  # a short axis leaves more
        edges[axis] = max(1, min(shape[axis], round(voxels ** (1 / (len(shape) - position)))))
        voxels = max(1, voxels // edges[axis])
    starts = [range(0, size, edge) for size, edge in zip(shape, edges, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(slice(start, start + edge) for start, edge in zip(corner, edges, strict=True))


def _expanded_square(centers: Tensor, columns: Tensor) -> Tensor:
    """|e|^2 - 2 e c + |c|^2, at least 0: (c, E), (..., E, n) -> (..., c, n). Loses digits far from the origin."""
    squared = torch.matmul(centers * -2, columns)
    squared += columns.square().sum(-2, keepdim=True)
    squared += centers.square().sum(1)[:, None]
    return squared.clamp_min_(0)


def _columns(embeddings: Tensor, block: tuple[slice, ...]) -> Tensor:
    """(E, *spatial) -> (s, E, w), contiguous."""
    return embeddings[(slice(None), *block)].transpose(0, 1).flatten(2).contiguous()


def _exp(exponent: Tensor) -> Tensor:
    """exp, in place; exponents of nothing are clamped, because subnormal numbers are slow on CPUs."""
    return exponent.clamp_min_(LEAST_EXPONENT).exp_()


class _PairwiseSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, embeddings, centers, weights, functions):  # noqa: ANN001, ANN205 (autograd's own signature)
        slices = embeddings.shape[1]
        sums = embeddings.new_zeros(functions.count, slices)
        with_gradient = any(ctx.needs_input_grad)
        if with_gradient:
            to_embeddings = embeddings.new_zeros(functions.learned, *embeddings.shape)
            to_centers = centers.new_zeros(functions.learned, slices, *centers.shape)
        for pairs in pairs_in_reach(embeddings, centers, functions.reach):
            squared, where = pairs.squared_distances(), pairs.block[0]
            if with_gradient:
                with_one = torch.nn.functional.pad(pairs.columns, (0, 0, 0, 1), value=1).transpose(1, 2)  # (s, w, E+1)
                center_with_one = torch.nn.functional.pad(pairs.centers, (0, 1), value=1).T  # (E+1, c)
            for i, (value, derivative) in enumerate(functions(squared, pairs)):
                shape = weights[i][pairs.block].shape
                weight = weights[i][pairs.block].reshape(shape[0], 1, -1)  # (s, 1, w)
                sums[i, where] += torch.matmul(value, weight.transpose(1, 2)).sum((1, 2))
                if i >= functions.learned or not with_gradient:
                    continue
                derivative *= weight
                # d|e - c|^2 / de = 2 (e - c), and the opposite by c; `backward` applies the factor 2
                total = torch.matmul(center_with_one, derivative)  # (s, E+1, w): the last row sums the derivatives
                moved = total[:, -1:] * pairs.columns - total[:, :-1]
                to_embeddings[(i, slice(None), *pairs.block)] += moved.transpose(0, 1).reshape(-1, *shape)
                along = torch.matmul(derivative, with_one)  # (s, c, E+1)
                to_centers[i, where, pairs.some] += along[..., -1:] * pairs.centers - along[..., :-1]
        if with_gradient:
            ctx.save_for_backward(to_embeddings, to_centers)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):  # noqa: ANN001, ANN205
        to_embeddings, to_centers = ctx.saved_tensors
        factors = 2 * upstream[: len(to_embeddings)]
        return (
            torch.einsum("fs,fes...->es...", factors, to_embeddings),
            torch.einsum("fs,fsce->ce", factors, to_centers),
            None,
            None,
        )
