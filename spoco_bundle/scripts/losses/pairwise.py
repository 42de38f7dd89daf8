"""Sums over all pairs of voxels and centres, without keeping a voxels x centres tensor.

Every term of the SPOCO loss that compares each voxel with each object (or anchor) is a sum of a function f of the
squared distance between an embedding and a centre, and f is nothing beyond some reach. So the image is cut into
small boxes of neighbouring voxels, whose embeddings are alike, and each box meets only the centres within reach:
where embeddings hold positions, the work grows with the voxels, hardly with the objects. Boxes with about as many
centres in reach are computed together, in portions that fit into a cache; nothing of a portion is kept, and the
backward pass computes it again. Sums are kept per slice of the first spatial axis, because the consistency term
needs them so. Shapes: B images of E embedding dimensions, S slices, C centres (the most that an image has) and T
boxes of w voxels in all; F functions; of a portion: t boxes, each with its c nearest centres.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..geometry.distances import extended_centers, squared_and_close, squared_from_extended
from .boxes import Boxes, box_edges, from_boxes, to_boxes

NEGLIGIBLE_EXPONENT = 30.0  # exp(-30) = 1e-13: a million such voxels are less than float32 resolves in the sum of one
LEAST_EXPONENT = -60.0  # the square of 2^-60 is still a normal float32: subnormal ones are slow on CPUs
BASE_2 = 1 / math.log(2)  # exp(x) = 2^(x BASE_2), and a CPU raises 2 to a power in a third of the time of exp
BOX_VOXELS = 64  # 4 x 4 x 4 or 8 x 8: larger ones meet more centres, smaller ones keep the processor less busy
LARGE_BOX_VOXELS = 512  # where most centres are in reach of each voxel, there is nothing that small boxes could spare
SAMPLED_VOXELS = 512  # of an image, that tell whether it is so
# Pairs computed at once: four MiB of them stay in a cache and keep two cores busy, a GPU wants few large kernels.
PORTIONS = {"cpu": 2**20}
PORTION_ELSEWHERE = 2**25
ONE_THREAD = 2**14  # numbers; torch begins to share the work at twice as many
FEW_CENTERS = 32  # no more than these are not worth a closer look
FAR_AWAY = 1e4  # at least so far from a box's middle a centre is put that an image does not have
FARTHEST = 1e15  # at most: its square is no infinite float32


class HingeAndKernel:
    """max(0, margin - distance)^2, and the square of the Gaussian soft mask exp(-distance^2 / two_sigma)."""

    count = 2

    def __init__(self, margin: float, two_sigma: float) -> None:
        self.margin, self.factor = margin, -2 / two_sigma
        self.reach = max(margin, math.sqrt(NEGLIGIBLE_EXPONENT / -self.factor))
        self.largest = max(margin**2, LEAST_EXPONENT / (self.factor * BASE_2))

    def values(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        """(hinge, kernel)."""
        kernel = (squared * (self.factor * BASE_2)).exp2_()
        return squared.sqrt_().clamp_max_(self.margin).sub_(self.margin).square_(), kernel

    def derivative(self, factors: Sequence[Tensor], squared: Tensor) -> Tensor:
        """Where voxel and centre coincide the hinge has no direction: the caller's zero difference makes it 0."""
        kernel = (squared * (self.factor * BASE_2)).exp2_().mul_(factors[1] * self.factor)
        gap = squared.rsqrt_().sub_(1 / self.margin).clamp_min_(0)  # (margin - distance) / (margin distance)
        return kernel.addcmul_(gap, factors[0], value=-self.margin)


class KernelsOfTwo:
    """Product and squares of a voxel's soft masks in two embedding spaces: own * other, own^2, other^2."""

    count = 3

    def __init__(self, two_sigma: float) -> None:
        self.factor = -1 / two_sigma
        self.reach = math.sqrt(NEGLIGIBLE_EXPONENT / 2 / -self.factor)  # products of two such are negligible
        self.largest = LEAST_EXPONENT / (self.factor * BASE_2)

    def values(self, own: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(own * other, own^2, other^2)."""
        own_kernel, other_kernel = self._kernels(own, other)
        return own_kernel * other_kernel, own_kernel.square_(), other_kernel.square_()

    def derivative(self, factors: Sequence[Tensor], own: Tensor, other: Tensor) -> Tensor:
        """No gradient flows into the other space."""
        own_kernel, other_kernel = self._kernels(own, other)
        by_own = other_kernel.mul_(self.factor * factors[0]).addcmul_(own_kernel, 2 * self.factor * factors[1])
        return by_own.mul_(own_kernel)

    def _kernels(self, *squared: Tensor) -> tuple[Tensor, ...]:
        return tuple(space.mul_(self.factor * BASE_2).exp2_() for space in squared)


# F functions of the squared distances (..., D) in D embedding spaces, computed together. They have in common:
#   count: F.
#   reach: beyond this distance in every space all of them count as 0.
#   largest: squared distance beyond which they are as there.
#   factor: of the squared distance in their kernel's exponent.
#   values(*squared): the functions' values, from one tensor of squared distances a space.
#   derivative(factors, *squared): by the squared distance of the first space, of their sum weighted by `factors`.
# The distances are positive, see `distances.SMALLEST_SQUARE`; both methods may overwrite them.
PairFunctions = HingeAndKernel | KernelsOfTwo


def pairwise_sums(
    embeddings: Tensor,
    centers: Tensor,
    exist: Tensor,
    weights: Tensor,
    functions: PairFunctions,
    boxes: Boxes,
    other: tuple[Boxes, Tensor] | None = None,
) -> Tensor:
    """For each image, function and slice: the sum of weight(voxel) * f(|embedding - center|^2) over all pairs.

    Args:
        embeddings: (B, E, *spatial), one to three spatial axes. centers: (B, C, E).
        exist: (B, C) bool, which of the centres an image has.
        weights: (B, F, *spatial), one map for each function; 0 leaves a voxel out.
        functions: F of them.
        boxes: of these embeddings.
        other: boxes of the other space's embeddings, and the same centres there, (B, C, E'), for functions of two
            spaces; no gradient flows into them.

    Returns:
        (B, F, S) sums, differentiable once in embeddings and centers.
    """
    return _PairwiseSums.apply(embeddings, centers, exist, weights, functions, boxes, other)


@dataclass(frozen=True)
class Space:
    """Boxes and centres in one embedding space."""

    boxes: Boxes
    centers: Tensor  # (B, C, E)
    exist: Tensor  # (B, C)

    def bounds(self) -> Tensor:
        """At least so far every voxel of a box is from each centre of its image: (T, C).

        The larger of two bounds: a ball around the embeddings, and a cuboid, which knows that neighbours are near in
        the dimensions that hold their positions, however they scatter in the others.
        """
        images, _, dim = self.centers.shape
        middles, extents = (tensor.view(images, -1, dim) for tensor in (self.boxes.middles, self.boxes.extents))
        to_ball = torch.cdist(middles, self.centers, compute_mode="donot_use_mm_for_euclid_dist")
        to_ball -= self.boxes.radii.view(images, -1, 1)
        to_cuboid = torch.zeros_like(to_ball)
        for middle, extent, center in zip(middles.unbind(2), extents.unbind(2), self.centers.mT.unbind(1), strict=True):
            gap = (middle[:, :, None] - center.contiguous()[:, None]).abs_().sub_(extent[:, :, None]).clamp_min_(0)
            to_cuboid.addcmul_(gap, gap)
        bounds = torch.maximum(to_ball, to_cuboid.sqrt_(), out=to_ball)
        return bounds.masked_fill_(~self.exist[:, None], math.inf).flatten(0, 1)

    @cached_property
    def numbers(self) -> tuple[Tensor, Tensor]:
        """The first centre of each box's image as an index into the batch's, (T, 1), and what to add for all, (C,)."""
        images, count = self.exist.shape
        first = torch.arange(images, device=self.exist.device)[:, None] * count
        return first.repeat_interleave(len(self.boxes.columns) // images, 0), torch.arange(count, device=first.device)

    def index(self, some: Tensor | slice, near: Tensor | None) -> Tensor:
        """For some boxes some centres of their images, without `near` all, as indices into the batch's: (t, c)."""
        first, all_centers = self.numbers
        return first[some] + (all_centers if near is None else near)

    def select(self, some: Tensor | slice, near: Tensor | None) -> tuple[Tensor, Tensor]:
        """Some boxes (t,) and centres as for `index`: extended (t, E + 2, w) and (t, c, E + 2)."""
        index = self.index(some, near)
        relative = self.centers.flatten(0, 1)[index] - self.boxes.middles[some, None]
        far = (2 * self.boxes.radii[some, None, None]).clamp_(FAR_AWAY, FARTHEST)
        relative = torch.where(self.exist.flatten()[index][..., None], relative, far)
        return self.boxes.columns[some], extended_centers(relative)

    def squared(self, some: Tensor | slice, near: Tensor | None, largest: float = math.inf) -> Tensor:
        """Squared distances of the same, (t, c, w), none of them above `largest`."""
        return squared_from_extended(*self.select(some, near), largest)


def portions_in_reach(spaces: Sequence[Space], reach: float) -> list[tuple[Tensor | slice, Tensor | None]]:
    """All boxes and the centres that may be closer than `reach` to one of their voxels in one of the spaces.

    Returns:
        boxes (t,) and for each its nearest centres (t, c). A box with fewer than c centres in reach meets the next
        ones, too, which add what they truly add: nothing that counts. Large boxes meet all centres: None.
    """
    boxes, _, voxels = spaces[0].boxes.columns.shape
    centers = spaces[0].exist.shape[1]
    if voxels > BOX_VOXELS:
        step = max(1, _portion(spaces[0].exist.device) // (max(1, centers) * voxels))
        return [(slice(first, first + step), None) for first in range(0, boxes, step)]
    distances = reduce(torch.minimum, (space.bounds() for space in spaces))  # (T, C)
    if centers > FEW_CENTERS:  # most of them go when one looks closer
        exact = torch.full_like(distances, math.inf)
        for some, near in _rectangles(distances, reach, voxels):
            to_voxels = (space.squared(some, near).amin(2).sqrt_() for space in spaces)
            exact[some] = exact[some].scatter(1, near, reduce(torch.minimum, to_voxels))
        distances = exact
    return list(_rectangles(distances, reach, voxels))


def _rectangles(distances: Tensor, reach: float, voxels: int) -> Iterator[tuple[Tensor | slice, Tensor]]:
    """Rows of (T, C) with about as many distances within reach, (t,), and the columns of their smallest, (t, c)."""
    pairs = _portion(distances.device)
    in_reach, order = (distances <= reach).sum(1).sort(descending=True, stable=True)
    counts = in_reach.tolist()  # a GPU is waited for
    if counts[0] * len(counts) * voxels <= pairs:  # in one go, without rearranging
        yield slice(None), distances.topk(counts[0], largest=False).indices
        return
    start = 0
    while start < len(counts) and counts[start] > 0:
        stop = start + max(1, pairs // (counts[start] * voxels))
        some = order[start:stop]
        yield some, distances[some].topk(counts[start], largest=False).indices
        start = stop


def _portion(device: torch.device) -> int:
    return PORTIONS.get(device.type, PORTION_ELSEWHERE)


def fitting_edges(embeddings: Tensor, centers: Tensor, exist: Tensor, reach: float) -> list[int]:
    """Edges of small boxes, or of large ones where most centres are in reach of most voxels.

    Large ones take less time for the same pairs, small ones spare pairs. To a GPU few kernels matter more: there, one
    box is a whole image as long as all pairs fit into a portion.

    Args:
        embeddings: (B, E, *spatial). centers: (B, C, E). exist: (B, C). reach: see `pairwise_sums`.
    """
    images, most_centers = exist.shape
    pairs = images * max(most_centers, FEW_CENTERS) * math.prod(embeddings.shape[2:])
    if embeddings.device.type not in PORTIONS and pairs <= PORTION_ELSEWHERE:
        return list(embeddings.shape[2:])
    step = max(1, math.prod(embeddings.shape[2:]) // SAMPLED_VOXELS)
    sample = embeddings.detach().flatten(2)[:, :, ::step].mT
    distances = torch.cdist(sample, centers.detach(), compute_mode="donot_use_mm_for_euclid_dist")  # (B, n, C)
    in_reach = ((distances <= reach) & exist[:, None]).sum()
    most = bool(2 * in_reach > distances.numel())  # a GPU is waited for
    return box_edges(embeddings.shape[2:], LARGE_BOX_VOXELS if most else BOX_VOXELS)


class _PairwiseSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, embeddings, centers, exist, weights, functions, boxes, other):  # noqa: ANN001, ANN205 (autograd's)
        spaces = [Space(boxes, centers, exist)]
        if other is not None:
            other_boxes, other_centers = other
            spaces.append(Space(other_boxes, other_centers, exist))
        voxel_sums = embeddings.new_zeros(len(boxes.columns), functions.count, boxes.columns.shape[2])
        portions = portions_in_reach(spaces, functions.reach)
        for some, near in portions:
            values = functions.values(*(space.squared(some, near, functions.largest) for space in spaces))
            voxel_sums[some] = torch.stack([value.sum(1) for value in values], 1)
        ctx.functions, ctx.spaces, ctx.portions = functions, spaces, portions
        ctx.save_for_backward(weights)
        weighted = from_boxes(voxel_sums, embeddings.shape[2:], boxes.edges) * weights
        return weighted.contiguous().view(*weights.shape[:3], -1).sum(3)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):  # noqa: ANN001, ANN205
        with torch.autocast(upstream.device.type, enabled=False):  # as in the forward pass, wherever this one runs
            return (*_gradients(ctx, upstream), None, None, None, None, None)


def _gradients(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Of the sums by embeddings and centres."""
    (weights,) = ctx.saved_tensors
    own, *others = ctx.spaces
    images, centers, dim = own.centers.shape
    factors = upstream.view(*upstream.shape, *[1] * (weights.dim() - 3)) * weights
    factors = to_boxes(factors, own.boxes.edges)  # (T, F, w)
    to_embeddings = upstream.new_zeros(len(factors), factors.shape[2], dim).mT  # (T, E, w), as `from_boxes` likes it
    to_centers = upstream.new_zeros(dim, images * centers)  # sums along rows take a quarter of the time
    for some, near in ctx.portions:
        columns, nearest = own.select(some, near)
        own_squared, (box, center, voxel), difference = squared_and_close(columns, nearest, ctx.functions.largest)
        squared = [own_squared, *(other.squared(some, near, ctx.functions.largest) for other in others)]
        derivative = ctx.functions.derivative(factors[some][:, :, None].unbind(1), *squared)  # (t, c, w)
        # d|e - c|^2 / de = 2 (e - c), and the opposite by c; close pairs, whose derivative may be huge, one by one
        pull = 2 * difference * derivative[box, center, voxel, None]  # (K, E)
        derivative[box, center, voxel] = 0
        by_centers = torch.bmm(nearest.mT, derivative)  # (t, E + 2, w): sum of -2 c f', ..., sum of f'
        by_voxels = torch.bmm(columns, derivative.mT).mT  # (t, c, E + 2): sum of e f', sum of f', ...
        moved = by_centers[:, :dim].addcmul_(by_centers[:, -1:], columns[:, :dim], value=2)
        drawn = (by_voxels[..., :dim] * -2).addcmul_(by_voxels[..., dim : dim + 1], nearest[..., :dim], value=-1)
        to_embeddings[some] = add_rows(moved.mT, (box, voxel), pull).mT
        add_rows(drawn, (box, center), -pull)
        to_centers.index_add_(1, own.index(some, near).flatten(), drawn.flatten(0, 1).mT.contiguous())
    return from_boxes(to_embeddings, weights.shape[2:], own.boxes.edges), to_centers.mT.reshape(own.centers.shape)


def add_rows(target: Tensor, places: tuple[Tensor, Tensor], rows: Tensor) -> Tensor:
    """Add (K, E) rows to (A, B, E) at K places, of which several may be the same; returns the target.

    On a CPU as few at a time as torch adds in one thread: of several the one that comes first changes the last bits.
    """
    count = max(1, ONE_THREAD // rows.shape[1]) if target.device.type == "cpu" else max(1, len(rows))
    for *some, part in zip(*(column.split(count) for column in (*places, rows)), strict=True):
        target.index_put_(tuple(some), part, accumulate=True)
    return target
