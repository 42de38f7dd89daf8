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
        squared = torch.matmul(self.centers * -2, self.columns)  # |e|^2 - 2 e c + |c|^2
        squared += self.columns.square().sum(1, keepdim=True)
        squared += self.centers.square().sum(1)[:, None]
        return squared.clamp_min_(0)


class PairFunction(Protocol):
    """A function f of the squared distance."""

    reach: float  # beyond this distance f counts as 0

    def __call__(self, squared: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """f and its derivative by the squared distance, both (s, c, w) and new."""


class Hinge:
    """max(0, margin - distance)^2."""

    def __init__(self, margin: float) -> None:
        self.reach = margin

    def __call__(self, squared: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        # The gradient points away from the centre; where voxel and centre coincide it has no direction, is 0.
        distance = squared.sqrt().clamp_min_(1e-6)
        gap = (self.reach - distance).clamp_min_(0)
        return gap.square(), gap.div_(distance).neg_()


class SquaredKernel:
    """The square of the Gaussian soft mask exp(-distance^2 / two_sigma)."""

    def __init__(self, two_sigma: float) -> None:
        self.factor = -2 / two_sigma
        self.reach = math.sqrt(NEGLIGIBLE_EXPONENT / -self.factor)

    def __call__(self, squared: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        value = _exp(squared * self.factor)
        return value, value * self.factor


class KernelProduct:
    """The Gaussian soft mask times that of the same voxel and centre in another embedding space.

    Args:
        other_centers: (C, other E). other_embeddings: (other E, *spatial).
    """

    def __init__(self, two_sigma: float, other_centers: Tensor, other_embeddings: Tensor) -> None:
        self.factor = -1 / two_sigma
        self.reach = math.sqrt(NEGLIGIBLE_EXPONENT / -self.factor)
        self.other_centers, self.other_embeddings = other_centers, other_embeddings

    def __call__(self, squared: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        columns = _columns(self.other_embeddings, pairs.block)
        middle = columns.mean((0, 2))
        other = Pairs(pairs.block, pairs.some, columns - middle[:, None], self.other_centers[pairs.some] - middle)
        value = _exp(other.squared_distances().add_(squared).mul_(self.factor))
        return value, value * self.factor


def pairwise_sums(embeddings: Tensor, centers: Tensor, weights: Tensor, functions: Sequence[PairFunction]) -> Tensor:
    """For each function and slice: the sum of weight(voxel) * f(|embedding - center|^2) over all pairs.

    Args:
        embeddings: (E, *spatial). centers: (C, E).
        weights: (F, *spatial), one map for each function; 0 leaves a voxel out.
        functions: F of them.

    Returns:
        (F, S) sums, differentiable once in embeddings and centers.
    """
    return _PairwiseSums.apply(embeddings, centers, weights, tuple(functions))


def squared_distances(centers: Tensor, columns: Tensor) -> Tensor:
    """|center - column|^2 of every pair: (C, E), (E, N) -> (C, N)."""
    origin = centers.mean(0)  # keeps digits, as in `Pairs`
    centers, columns = centers - origin, columns - origin[:, None]
    squared = torch.addmm(columns.square().sum(0)[None, :], centers, columns, alpha=-2)
    squared += centers.square().sum(1)[:, None]
    return squared.clamp_min_(0)


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


def _columns(embeddings: Tensor, block: tuple[slice, ...]) -> Tensor:
    """(E, *spatial) -> (s, E, w), contiguous."""
    return embeddings[(slice(None), *block)].transpose(0, 1).flatten(2).contiguous()


def _exp(exponent: Tensor) -> Tensor:
    """exp, in place; exponents of nothing are clamped, because subnormal numbers are slow on CPUs."""
    return exponent.clamp_min_(-2 * NEGLIGIBLE_EXPONENT).exp_()


class _PairwiseSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, embeddings, centers, weights, functions):  # noqa: ANN001, ANN205 (autograd's own signature)
        slices = embeddings.shape[1]
        sums = embeddings.new_zeros(len(functions), slices)
        with_gradient = any(ctx.needs_input_grad)
        if with_gradient:
            to_embeddings = embeddings.new_zeros(len(functions), *embeddings.shape)
            to_centers = centers.new_zeros(len(functions), slices, *centers.shape)
        for pairs in pairs_in_reach(embeddings, centers, max(function.reach for function in functions)):
            squared, where = pairs.squared_distances(), pairs.block[0]
            if with_gradient:
                with_one = torch.nn.functional.pad(pairs.columns, (0, 0, 0, 1), value=1).transpose(1, 2)  # (s, w, E+1)
                center_with_one = torch.nn.functional.pad(pairs.centers, (0, 1), value=1).T  # (E+1, c)
            for i, function in enumerate(functions):
                shape = weights[i][pairs.block].shape
                weight = weights[i][pairs.block].reshape(shape[0], 1, -1)  # (s, 1, w)
                value, derivative = function(squared, pairs)
                sums[i, where] += torch.matmul(value, weight.transpose(1, 2)).sum((1, 2))
                if not with_gradient:
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
        return (
            torch.einsum("fs,fes...->es...", 2 * upstream, to_embeddings),
            torch.einsum("fs,fsce->ce", 2 * upstream, to_centers),
            None,
            None,
        )
