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

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .interfaces import DEPTH

REACH = DEPTH  # voxels from one end of a pair to the other, along an axis; as far as `interfaces` looks for a jump
PARTED = 1.5  # in delta_dist: so far apart the ends of a pair across a border may rest


def border_term(
    embeddings: Tensor, labels: Tensor, annotated: Tensor, known: Tensor, delta_var: float, delta_dist: float
) -> Tensor:
    """Mean of max(0, d - delta_var)^2 inside objects and of max(0, 1.5 delta_dist - d)^2 across their rims, added.

    d is the distance between the embeddings of two voxels `REACH` apart along an axis.

    Args:
        embeddings: (B, E, *spatial).
        labels: (B, *spatial), which tell one object from another.
        annotated, known: (B, *spatial) bool: voxels of annotated objects, voxels not ignored.
        delta_var, delta_dist: as for `losses.spoco_terms`.

    Returns:
        (B,); pairs of which no end is annotated, or one is ignored, do not count, and without others it is 0.
    """
    sums = embeddings.new_zeros(2, len(embeddings))  # inside, across
    pairs = torch.zeros_like(sums)
    for axis in range(1, labels.dim()):
        length = labels.shape[axis] - REACH
        if length < 1:
            continue

        def ends(image: Tensor, axis: int = axis - labels.dim(), length: int = length) -> tuple[Tensor, Tensor]:
            return image.narrow(axis, 0, length), image.narrow(axis, REACH, length)

        both_known = torch.logical_and(*ends(known))
        same = torch.eq(*ends(labels))
        inside = same & torch.logical_and(*ends(annotated)) & both_known
        across = ~same & torch.logical_or(*ends(annotated)) & both_known
        # kept for the backward pass, the differences of all pairs would be as large as the embeddings, for each axis
        distance = checkpoint(_distances, *ends(embeddings), use_reentrant=False, preserve_rng_state=False)
        drawn_out = (distance - delta_var).clamp_min(0).square() * inside
        too_near = (PARTED * delta_dist - distance).clamp_min(0).square() * across
        sums = sums + torch.stack([drawn_out.flatten(1).sum(1), too_near.flatten(1).sum(1)])
        pairs += torch.stack([inside.flatten(1).sum(1), across.flatten(1).sum(1)])
    return (sums / pairs.clamp_min(1)).sum(0)


def _distances(embeddings: Tensor, others: Tensor) -> Tensor:
    """(B, E, *spatial) twice -> (B, *spatial)."""
    return torch.linalg.vector_norm(embeddings - others, dim=1)
