"""Instances of one class at a time: two objects of different classes are two, however alike their embeddings are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..arrays import Labels, Mask
from ..transforms.classes import regions_of_classes


def cluster_each_class(cluster: Callable[[Mask], Labels], mask: Labels, classes: Sequence[int] | None) -> Labels:
    """Cluster separately inside the region of each class.

    Args:
        cluster: takes the foreground (*spatial) to instances, ids 1..K there and 0 elsewhere.
        mask: class of each voxel, (*spatial).
        classes: those to look at, one after the other; None takes all that is not 0 for one class.

    Returns:
        (*spatial) instances 1..K.
    """
    if classes is None:
        return cluster(mask != 0)
    result, count = np.zeros(mask.shape, np.int32), 0
    for region in regions_of_classes(mask, classes):
        instances = cluster(region)
        result += np.where(instances > 0, instances + count, 0)
        count += int(instances.max())
    return result
