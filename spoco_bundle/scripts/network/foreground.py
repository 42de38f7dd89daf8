"""Foreground from a few annotated objects, without a background label.

The first embedding dimension doubles as the foreground axis: objects are drawn to its positive side, everything
else to its negative side. It is learned from positive (annotated) and unlabelled voxels by variational
positive-unlabelled learning, which needs no class prior: Chen et al., "A Variational Approach for Learning from
Positive and Unlabeled Data", NeurIPS 2020, Eq. 6. The probability that minimises it is the density of annotated
voxels over the density of all voxels, scaled to a maximum of 1: high on every object that looks like the
annotated ones, low on what is never annotated, and high everywhere in a tissue that holds nothing but objects.

That loss fixes ratios of probabilities, and a network that starts with a high probability everywhere gets no gradient
from it. A weak cross-entropy, annotated against all voxels, leads off that plateau and fixes the scale. It also pulls
up the voxels at the objects' rims, half of whose look-alikes are objects, from 1/2 to about 3/4: hence a threshold
above 1/2. Where the annotator painted background, none of this is needed: objects against background is an ordinary
cross-entropy.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

FOREGROUND_AXIS = 0
SHARPNESS = 4.0  # the probability rises from 0.02 to 0.98 between -1 and 1, the scale of the other dimensions
SCALE_WEIGHT = 0.2  # of the cross-entropy: enough to leave the plateau, too little to bend the ratios
UNLABELED_WEIGHT = 0.125  # all voxels against annotated ones: in dense tissue the probability settles at 1 / 1.125
THRESHOLD = 0.65  # where no annotation tells a better one (`calibration`); well below what dense tissue settles at


def foreground_logit(embeddings: Tensor, axis: int = 0) -> Tensor:
    """Logit of the probability to belong to an object, from embeddings whose dimension `axis` has length E."""
    return embeddings.select(axis, FOREGROUND_AXIS) * SHARPNESS


def is_foreground(embeddings: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """Where objects are: (E, *spatial) -> (*spatial) bool."""
    return foreground_logit(embeddings).sigmoid() > threshold


def foreground_term(logit: Tensor, annotated: Tensor, known: Tensor, background: Tensor) -> Tensor:
    """Variational positive-unlabelled loss, or cross-entropy where background is painted.

    Painted voxels count as many as they are, so that blurred rims go to the more frequent side, but together at least
    as much as the annotated ones: a few strokes of background stand for much more of it.

    Args:
        logit: (..., N). annotated, known, background: (..., N) bool: voxels of annotated objects, voxels not ignored,
            voxels painted as background.

    Returns:
        (...); 0 without an annotated voxel and without painted background.
    """
    positive, negative, everything = annotated.sum(-1), background.sum(-1), known.sum(-1)
    log_probability, log_opposite = logsigmoid(logit), logsigmoid(-logit)
    attraction = -(log_probability * annotated).sum(-1) / positive.clamp_min(1)
    repulsion = -(log_opposite * background).sum(-1) / negative.clamp_min(1)
    mean_probability = (logit.sigmoid() * known).sum(-1) / everything.clamp_min(1)
    scale = attraction - UNLABELED_WEIGHT * (log_opposite * known).sum(-1) / everything.clamp_min(1)
    variational = (mean_probability.clamp_min(1e-6).log() + SCALE_WEIGHT * scale) * (positive > 0)
    share = positive / (positive + negative.maximum(positive)).clamp_min(1)
    supervised = share * attraction + (1 - share) * repulsion
    return torch.where(negative > 0, 2 * supervised, attraction + variational)
