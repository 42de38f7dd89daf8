"""Instances of one class at a time: two objects of different classes are two, however alike their embeddings are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..arrays import Labels, Mask
from ..transforms.classes import largest_of_a_class, regions_of_classes


def cluster_each_class(cluster: Callable[[Mask], Labels], mask: Labels, classes: Sequence[int] | None) -> Labels:
    """Cluster separately inside the region of each class.

    Args:
        cluster: takes the foreground (*spatial) to instances, ids 1..K there and 0 elsewhere.
        mask: class of each voxel, (*spatial).
        classes: those to look at, one after the other; None takes all that is not 0 for one class.

    Returns:
        (*spatial) instances 1..K. Of more than 1000 instances of a class, which has no more ids, the largest are kept.
    """
    if classes is None:
        return cluster(mask != 0)
    result, count = np.zeros(mask.shape, np.int32), 0
    for region in regions_of_classes(mask, classes):
        instances = cluster(region)
        sizes = np.bincount(instances.ravel())
        sizes[0] = 0
        largest = largest_of_a_class(sizes)
        new_id = np.zeros(len(sizes), np.int32)
        new_id[largest] = np.arange(count + 1, count + 1 + len(largest))
        result += new_id[instances]
        count += len(largest)
    return result
