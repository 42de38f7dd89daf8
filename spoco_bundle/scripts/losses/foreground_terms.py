"""Two terms, not the paper's, for the foreground: learned from annotated objects, and kept from the weights at first.

Learned without a background label: by variational positive-unlabelled learning from annotated and unlabelled voxels,
which needs no class prior: Chen et al., "A Variational Approach for Learning from Positive and Unlabeled Data", NeurIPS
2020, Eq. 6. The probability that minimises it is the density of annotated voxels over the density of all voxels, scaled
to a maximum of 1: high on every object that looks like the annotated ones, low on what is never annotated, and high
everywhere in a tissue that holds nothing but objects.

That loss fixes ratios of probabilities, and a network that starts with a high probability everywhere gets no gradient
from it. A weak cross-entropy, annotated against all voxels, leads off that plateau and fixes the scale. It also pulls
up the voxels at the objects' rims, half of whose look-alikes are objects, from 1/2 to about 3/4: hence a threshold
above 1/2. Where the annotator painted background, none of this is needed: objects against background is an ordinary
cross-entropy.

Kept, as few annotated objects say little about what an object is, and positive-unlabelled learning assumes that they
are a fair sample. If one image has all its objects annotated and another one of sixty, it is content with the first
kind; and with few images it learns the annotated objects by heart and takes all others for background. So a training
that starts from weights with a foreground of their own keeps near to it, voxel by voxel, where nothing is annotated, as
learning without forgetting does with whole classes (Li and Hoiem, ECCV 2016). A few strokes of painted background say
as little about the rest: it is kept then, too.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

SCALE_WEIGHT = 0.2  # of the cross-entropy: enough to leave the plateau, too little to bend the ratios
UNLABELED_WEIGHT = 0.125  # all voxels against annotated ones: in dense tissue the probability settles at 1 / 1.125


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


def keeping_term(logit: Tensor, first: Tensor, unlabeled: Tensor) -> Tensor:
    """Mean cross-entropy of the foreground to the first one where nothing is annotated.

    Args:
        logit, first, unlabeled: (..., N) logit now, probability at first, voxels that count (bool).

    Returns:
        (...); 0 without such a voxel.
    """
    entropy = binary_cross_entropy_with_logits(logit, first, reduction="none")
    return (entropy * unlabeled).sum(-1) / unlabeled.sum(-1).clamp_min(1)
