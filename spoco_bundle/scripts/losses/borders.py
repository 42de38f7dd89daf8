"""Objects and their borders, learned where they are: from pairs of voxels a few apart.

The terms of the paper compare a voxel with whole objects. A network that cannot draw a large object together, as it
sees only a part of it, learns little from them, and nothing holds the embeddings to change at an object's rim and not
beside it. Instances are put together from small regions, though (see `agglomeration`), for which it is enough that
embeddings hardly change inside an object and jump where it ends. So that is asked for directly, of each annotated
object against whatever lies around it, annotated or not.

Affinities between voxels, learned through their embeddings, are those of Huang et al., "Learning to Model
Pixel-Embedded Affinity for Homogeneous Instance Segmentation", AAAI 2022; here with the hinges of the other terms.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .triton_support import runs_triton

REACH = 3  # voxels from one end of a pair to the other, along an axis; as far as `interfaces.DEPTH` looks for a jump
SMALLEST = 1e-12  # distance that has a direction
PARTED = 1.5  # in delta_dist: so far apart the ends of a pair across a border may rest


def border_term(
    embeddings: Tensor, labels: Tensor, annotated: Tensor, known: Tensor, delta_var: float, delta_dist: float
) -> Tensor:
    """Mean of max(0, d - delta_var)^2 inside objects and of max(0, 1.5 delta_dist - d)^2 across their rims, added.

    d is the distance between the embeddings of two voxels `REACH` apart along an axis.

    Args:
        embeddings: (B, E, *spatial).
        labels: (B, *spatial), equal inside an object and different in different ones.
        annotated, known: (B, *spatial) bool: voxels of annotated objects, voxels not ignored.
        delta_var, delta_dist: as for `losses.spoco_terms`.

    Returns:
        (B,); pairs of which no end is annotated, or one is ignored, do not count, and without others it is 0.
    """
    if runs_triton(embeddings):
        from .triton_borders import border_term_on_gpu  # needs Triton, which not every computer has

        return border_term_on_gpu(embeddings, labels, annotated, known, REACH, delta_var, PARTED * delta_dist)
    inside, across = [], []
    for axis in _axes(embeddings):
        both_known = torch.logical_and(*_ends(known, axis))
        same = torch.eq(*_ends(labels, axis))
        inside.append(same & torch.logical_and(*_ends(annotated, axis)) & both_known)
        across.append(~same & torch.logical_or(*_ends(annotated, axis)) & both_known)
    return HingesOfPairs.apply(embeddings, inside, across, delta_var, PARTED * delta_dist)


class HingesOfPairs(torch.autograd.Function):
    """The term from the pairs along each axis, (B, *spatial) bool each and shorter along that axis: (B,).

    The gradient is written by hand, 16 times as fast as autograd, which keeps the differences of all pairs, as large
    as the embeddings, and fills a gradient of that size for each end of the pairs along each axis. Here one number a
    pair is kept.
    """

    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, inside: list[Tensor], across: list[Tensor], near: float, far: float
    ) -> Tensor:
        counts = [reduce(torch.add, (mask.flatten(1).sum(1) for mask in masks)) for masks in (inside, across)]
        pairs = torch.stack(counts).clamp_min(1)
        sums = embeddings.new_zeros(pairs.shape)
        slopes = []
        for axis, same, other in zip(_axes(embeddings), inside, across, strict=True):
            start, end = _ends(embeddings, axis)
            distance = (end - start).square_().sum(1).sqrt_()
            hinges = torch.stack([(distance - near).clamp_min_(0) * same, (far - distance).clamp_min_(0) * other])
            sums += hinges.square().flatten(2).sum(2)
            too_far, too_near = hinges / pairs.view(*pairs.shape, *[1] * same[0].dim())
            # equal embeddings have no direction to go: the factor need only stay finite
            slopes.append(2 * (too_far - too_near) / distance.clamp_min_(SMALLEST))
        ctx.save_for_backward(embeddings, *slopes)
        return (sums / pairs).sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        embeddings, *slopes = ctx.saved_tensors
        result = torch.zeros_like(embeddings)
        for axis, slope in zip(_axes(embeddings), slopes, strict=True):
            start, end = _ends(embeddings, axis)
            of_start, of_end = _ends(result, axis)
            pull = (end - start).mul_((slope * gradient.view(-1, *[1] * slope[0].dim())).unsqueeze(1))
            of_start.sub_(pull)
            of_end.add_(pull)
        return result, None, None, None, None


def _axes(embeddings: Tensor) -> range:
    """The spatial axes, counted from the last."""
    return range(2 - embeddings.dim(), 0)


def _ends(image: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Views of an image at the two ends of all pairs along an axis; empty where the image is too short for a pair."""
    length = max(0, image.shape[axis] - REACH)
    return image.narrow(axis, 0, length), image.narrow(axis, image.shape[axis] - length, length)
