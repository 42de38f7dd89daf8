"""Where objects are: the first embedding dimension doubles as the foreground axis.

Objects are drawn to its positive side, everything else to its negative side (see `losses.foreground_terms`).
"""

from __future__ import annotations

from torch import Tensor

FOREGROUND_AXIS = 0
SHARPNESS = 4.0  # the probability rises from 0.02 to 0.98 between -1 and 1, the scale of the other dimensions
THRESHOLD = 0.65  # where no annotation tells a better one; above 1/2, see `losses.foreground_terms`


def foreground_logit(embeddings: Tensor, axis: int = 0) -> Tensor:
    """Logit of the probability to belong to an object, from embeddings whose dimension `axis` has length E."""
    return embeddings.select(axis, FOREGROUND_AXIS) * SHARPNESS


def is_foreground(embeddings: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """Where objects are: (E, *spatial) -> (*spatial) bool."""
    return foreground_logit(embeddings).sigmoid() > threshold
