"""Sums over all pairs of voxels and centres, without keeping a voxels x centres tensor.

Every term of the SPOCO loss that compares each voxel with each object (or anchor) is a sum of a function f of
the squared distance between an embedding and a centre. Its gradient needs only f' at the same pairs, so value
and gradient are computed together, one slab of pairs after another, and only tensors of the embeddings' own
size survive for the backward pass. Sums are kept per slice of the first spatial axis, because the consistency
term needs them so. Shapes: E embedding dimensions, S slices, W voxels a slice, C centres.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Takes squared distances (C, s, W) and which centres and slices they belong to; returns f and its derivative.
PairFunction = Callable[[Tensor, slice, slice], tuple[Tensor, Tensor]]

PAIRS_AT_ONCE = 2**18  # 1 MiB in float32: a slab's few temporaries stay in the cache of one core
LEAST_EXPONENT = -60.0  # exp(-60) = 9e-27 is nothing, but smaller values make subnormal products, slow on CPUs


def squared_distances(centers: Tensor, embeddings: Tensor) -> Tensor:
    """|center - embedding|^2 of every pair: (C, E), (E, *rest) -> (C, *rest)."""
    origin = centers.mean(0)  # |e|^2 - 2 e c + |c|^2 loses digits far from the origin, so move it to the centres
    centers, columns = centers - origin, embeddings.flatten(1) - origin[:, None]
    squared = torch.addmm(columns.square().sum(0)[None, :], centers, columns, alpha=-2)
    squared += centers.square().sum(1)[:, None]
    return squared.clamp_min_(0).unflatten(1, embeddings.shape[1:])


def hinge(margin: float) -> PairFunction:
    """max(0, margin - distance)^2."""

    def function(squared: Tensor, centers: slice, slices: slice) -> tuple[Tensor, Tensor]:
        # The gradient points away from the centre; where voxel and centre coincide it has no direction, is 0.
        distance = squared.sqrt().clamp_min_(1e-6)
        gap = (margin - distance).clamp_min_(0)
        return gap.square(), gap.div_(distance).neg_()

    return function


def squared_kernel(two_sigma: float) -> PairFunction:
    """The square of the Gaussian soft mask exp(-distance^2 / two_sigma)."""

    def function(squared: Tensor, centers: slice, slices: slice) -> tuple[Tensor, Tensor]:
        value = (squared * (-2 / two_sigma)).clamp_min_(LEAST_EXPONENT).exp_()
        return value, value * (-2 / two_sigma)

    return function


def kernel_product(two_sigma: float, other_centers: Tensor, other_embeddings: Tensor) -> PairFunction:
    """The Gaussian soft mask times the soft mask of the same voxel and centre in another embedding space."""

    def function(squared: Tensor, centers: slice, slices: slice) -> tuple[Tensor, Tensor]:
        other = squared_distances(other_centers[centers], other_embeddings[:, slices])
        value = (squared + other).mul_(-1 / two_sigma).clamp_min_(LEAST_EXPONENT).exp_()
        return value, value * (-1 / two_sigma)

    return function


def pairwise_sum(embeddings: Tensor, centers: Tensor, weights: Tensor, function: PairFunction) -> Tensor:
    """Sum of weight(voxel) * f(|embedding - center|^2) over all pairs of each slice.

    Args:
        embeddings: (E, S, W). centers: (C, E). weights: (S, W), 0 leaves a voxel out.
        function: f, a `PairFunction`.

    Returns:
        (S,) sums, differentiable once in embeddings and centers.
    """
    return _PairwiseSum.apply(embeddings, centers, weights, function)


def _slabs(slices: int, width: int, centers: int) -> Iterator[tuple[slice, slice]]:
    """Cut all pairs into slabs of about `PAIRS_AT_ONCE`: which centres, which slices."""
    centers_at_once = max(1, min(centers, PAIRS_AT_ONCE // width))
    slices_at_once = max(1, PAIRS_AT_ONCE // (width * centers_at_once))
    for first_slice in range(0, slices, slices_at_once):
        for first_center in range(0, centers, centers_at_once):
            yield (
                slice(first_center, first_center + centers_at_once),
                slice(first_slice, first_slice + slices_at_once),
            )


class _PairwiseSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, embeddings, centers, weights, function):  # noqa: ANN001, ANN205 (autograd's own signature)
        _, slices, width = embeddings.shape
        sums = embeddings.new_zeros(slices)
        to_embeddings = torch.zeros_like(embeddings)
        to_centers = centers.new_zeros(slices, *centers.shape)
        for some, where in _slabs(slices, width, len(centers)):
            slab, center = embeddings[:, where], centers[some]  # (E, s, W), (c, E)
            value, derivative = function(squared_distances(center, slab), some, where)  # (c, s, W)
            sums[where] += (value.sum(0) * weights[where]).sum(1)
            derivative *= weights[where]
            # d|e - c|^2 / de = 2 (e - c); `backward` applies the factor 2
            to_embeddings[:, where] += derivative.sum(0) * slab
            to_embeddings[:, where] -= (center.T @ derivative.flatten(1)).unflatten(1, slab.shape[1:])
            by_slice = derivative.transpose(0, 1)  # (s, c, W)
            to_centers[where, some] = by_slice.sum(2)[..., None] * center - by_slice @ slab.permute(1, 2, 0)
        ctx.save_for_backward(to_embeddings, to_centers)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):  # noqa: ANN001, ANN205
        to_embeddings, to_centers = ctx.saved_tensors
        return (
            to_embeddings * (2 * upstream)[:, None],
            torch.einsum("s,sce->ce", 2 * upstream, to_centers),
            None,
            None,
        )
