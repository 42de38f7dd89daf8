"""Two thresholds, chosen by the annotated objects: of the foreground, and of the evidence for a border.

How sharp borders are in embedding space depends on the images, on the objects' shape and on how long the network was
trained. Each annotated object tells: at a low threshold of `agglomeration` it is in pieces, at a high one its
neighbours swallow it. Of the foreground's probability a low threshold makes it too fat, a high one too thin.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.transforms import Transform
from numpy.typing import NDArray

from ..arrays import Mask
from ..clustering.agglomeration import Hierarchy, build_hierarchy
from ..clustering.postprocessing import CHOSEN_KEY
from ..network.device_memory import on_host_if_too_large
from ..network.foreground import THRESHOLD, foreground_logit
from ..tensors import plain_tensor
from ..transforms.classes import regions_of_classes
from ..transforms.label_convention import where_id, without_special
from ..transforms.resampling import resample_nearest
from ..transforms.working_grid import smallest_in_working_voxels, standard_volume

THRESHOLDS = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.4, 2.8, 3.2, 3.6, 4.0, 4.4, 5.0)  # in delta_var
PREFERRED = {"estimated": 2.0, "everywhere": 2.8}  # by foreground: in dense tissue a term of the loss asks for jumps
FOREGROUND_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
NO_OVERLAP = np.stack([np.zeros(len(THRESHOLDS)), np.ones(len(THRESHOLDS))])  # as of `mutual_overlaps`
WORSE = 0.04  # an overlap lower by as much counts 1/e in the mean of the foreground thresholds
TOLERANCE = 0.015  # so much better must the best threshold be than one nearer to the preferred one: objects are few


class ThresholdCalibration(Transform):
    """Chooses the thresholds at which annotated objects and instances of the validation images overlap best.

    A transform, which looks at the embeddings and the annotation of each image and adds, under `CHOSEN_KEY`, the
    ``merge_threshold`` and the ``foreground_threshold`` that are best for all images so far; and a handler, which
    forgets the images of the last validation when a new one starts. Each annotated image counts the same, as in the
    metrics: by its objects, one that is full of small ones would decide for all others. Only one in which less than an
    object of the standard size is annotated, as a chip at the border, counts less.

    Where the data hold a ``mask``, objects are sought inside it alone, as `postprocessing.ClusterEmbeddingsd` does.

    Args:
        embedding_dim: this many first channels of ``data["pred"]``, on the working grid, are embeddings.
        delta_var, foreground: as for `postprocessing.ClusterEmbeddingsd`.
        background_label, ignore_label: ids in ``data["label"]`` that are no objects.
        min_size, smallest_instance: smaller instances do not count, see `working_grid.smallest_in_working_voxels`.
        merge_threshold, foreground_threshold: thresholds that are used as they are; None: choose one.
        is_repetition: whether this process only repeats images of others, as where there are fewer than processes.
        classes: values of the mask in which objects are sought, each by itself; None: where it is not 0.
    """

    def __init__(
        self,
        embedding_dim: int,
        delta_var: float = 0.5,
        foreground: str = "estimated",
        background_label: int | None = None,
        ignore_label: int | None = None,
        min_size: int = 50,
        smallest_instance: float = 1,
        merge_threshold: float | None = None,
        foreground_threshold: float | None = None,
        classes: Sequence[int] | None = None,
        is_repetition: bool = False,
    ) -> None:
        self.embedding_dim, self.delta_var, self.foreground = embedding_dim, delta_var, foreground
        self.min_size, self.smallest_instance, self.merge_threshold = min_size, smallest_instance, merge_threshold
        usual = THRESHOLD if foreground_threshold is None else float(foreground_threshold)
        may_choose = foreground_threshold is None and foreground == "estimated"
        self.foreground_thresholds = FOREGROUND_THRESHOLDS if may_choose else (usual,)
        self.special, self.classes = (background_label, ignore_label), classes
        self.is_repetition = is_repetition
        self._forget()

    def attach(self, engine: Engine) -> None:
        """Register with a validator, before what writes the threshold."""
        engine.add_event_handler(Events.STARTED, self._forget)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._share)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        if self.merge_threshold is None or len(self.foreground_thresholds) > 1:
            labels, seen = self._annotation(data)
            object_sizes = np.unique(labels[labels != 0], return_counts=True)[1]
            if len(object_sizes):
                weight = image_weight(object_sizes, labels.ndim)
                self.total_overlap += weight * self._overlaps(data, labels, seen)
                self.total_weight += weight
        return {**data, CHOSEN_KEY: self.chosen()}

    def chosen(self) -> dict[str, float]:
        """Both thresholds, for the images so far; those that were given are as they were given.

        The overlap hardly changes over a range of foreground thresholds: the best of them would be chance. So it is
        the mean of all, in which those with the greater best overlap count more.
        """
        overlaps = self.total_overlap / (self.total_weight or 1.0)  # (F, T), the mean over the annotated images
        best = overlaps.max(1)
        weights = np.exp((best - best.max()) / WORSE)
        weights /= weights.sum()
        if len(best) == 1:
            foreground_threshold = self.foreground_thresholds[0]
        elif best.min() == best.max():  # nothing is annotated, or masks tell the foreground
            foreground_threshold = THRESHOLD
        else:
            foreground_threshold = round(float(weights @ self.foreground_thresholds), 3)
        merge_threshold = self.merge_threshold
        if merge_threshold is None:
            merge_threshold = choose_threshold(weights @ overlaps, PREFERRED[self.foreground])
        return {"merge_threshold": merge_threshold, "foreground_threshold": foreground_threshold}

    def _annotation(self, data: Mapping[Hashable, Any]) -> tuple[NDArray[np.integer], Mask]:
        """The annotated objects on the grid of the embeddings, (*spatial), 0 elsewhere, and what is not ignored."""
        labels = resample_nearest(torch.as_tensor(data["label"]).cpu(), data["pred"].shape[1:])[0]
        _, ignore_label = self.special
        return without_special(labels, *self.special).numpy(), ~where_id(labels, ignore_label).numpy()

    def _overlaps(self, data: Mapping[Hashable, Any], labels: NDArray[np.integer], seen: Mask) -> NDArray[np.float64]:
        """(F, T) for each pair of thresholds."""
        embeddings = plain_tensor(data["pred"]).float()[: self.embedding_dim]
        smallest = smallest_in_working_voxels(self.min_size, self.smallest_instance, data["pred"])

        def overlaps_in(foreground: torch.Tensor, objects: NDArray[np.integer] = labels) -> NDArray[np.float64]:
            """`mutual_overlaps` of the instances in one foreground (*spatial)."""
            if not foreground.any():
                return NO_OVERLAP
            hierarchy = on_host_if_too_large(build_hierarchy, embeddings, foreground, self.delta_var, THRESHOLDS[-1])
            return mutual_overlaps(hierarchy, objects, THRESHOLDS, smallest, seen)

        if "mask" in data:
            totals = np.zeros((2, len(THRESHOLDS)))
            mask = torch.as_tensor(data["mask"]).cpu().numpy()[0]
            for region in regions_of_classes(mask, self.classes):  # each by itself, as instances are sought there
                if labels[region].any():
                    totals += overlaps_in(torch.from_numpy(region), np.where(region, labels, 0))
            overlaps = (totals if totals.any() else NO_OVERLAP)[None]
        elif self.foreground == "everywhere":
            overlaps = overlaps_in(torch.ones(labels.shape, dtype=torch.bool))[None]
        else:
            probability = foreground_logit(embeddings).sigmoid()
            overlaps = np.stack([overlaps_in(probability > threshold) for threshold in self.foreground_thresholds])
        sums, weights = np.broadcast_to(overlaps, (len(self.foreground_thresholds), *overlaps.shape[1:])).swapaxes(0, 1)
        return sums / weights

    def _forget(self) -> None:
        self.total_overlap = np.zeros((len(self.foreground_thresholds), len(THRESHOLDS)))  # summed over the images
        self.total_weight = 0.0

    def _share(self) -> None:
        """Every process of a distributed training comes to the same threshold."""
        if self.is_repetition:
            self._forget()
        if idist.get_world_size() > 1:
            self.total_overlap = torch.as_tensor(idist.all_reduce(torch.from_numpy(self.total_overlap))).cpu().numpy()
            self.total_weight = float(idist.all_reduce(self.total_weight))


def image_weight(object_sizes: NDArray[np.integer], dims: int) -> float:
    """1 for an image in which an object of the standard size is annotated, or as much, and less for less.

    >>> image_weight(np.array([16]), dims=2) == image_weight(np.array([4, 4]), dims=2)  # all count by their roots
    True
    """
    return min(1.0, float(np.sqrt(object_sizes).sum()) / standard_volume(dims) ** 0.5)


def mutual_overlaps(
    hierarchy: Hierarchy,
    labels: NDArray[np.integer],
    thresholds: Sequence[float],
    smallest: int = 1,
    seen: Mask | None = None,
) -> NDArray[np.float64]:
    """Best IoU of each annotated object with an instance and of each instance with an object: their weighted sum.

    An object in pieces is one object, but as many instances. Instances count if more than half of them is annotated,
    the others can be neither right nor wrong, and if they have `smallest` voxels. All count by the root of their size:
    as ones they would let the crumbs of a long neurite decide, by their voxels the largest object would.

    Args:
        hierarchy: of the image.
        labels: (*spatial), ids are objects, 0 is not.
        thresholds: T places to cut the hierarchy at.
        smallest: size of an instance that counts.
        seen: (*spatial), the voxels to look at; None: all.

    Returns:
        (2, T): the sums of weight times IoU, and of the weights.
    """
    where = ... if seen is None else seen
    looked_at = labels[where].ravel()
    regions, count = hierarchy.regions[where].ravel(), int(hierarchy.regions.max()) + 1
    region_sizes = np.bincount(regions, minlength=count)
    ids, annotated_voxels = np.unique(looked_at), np.flatnonzero(looked_at)  # few, where annotation is sparse
    owner = ids.searchsorted(looked_at[annotated_voxels])
    object_sizes = np.bincount(owner, minlength=len(ids))  # none of the id 0
    object_weights = np.sqrt(object_sizes)
    pairs, shared = np.unique(owner * count + regions[annotated_voxels], return_counts=True)
    member, region = np.divmod(pairs, count)
    inside = region > 0
    member, region, shared = member[inside], region[inside], shared[inside]
    totals = []
    for threshold in thresholds:
        instance_of = hierarchy.cut(threshold)
        sizes = np.bincount(instance_of, weights=region_sizes)
        pairs, pair_of = np.unique(member * len(sizes) + instance_of[region], return_inverse=True)
        voxels = np.bincount(pair_of, weights=shared, minlength=len(pairs))
        own, instance = np.divmod(pairs, len(sizes))
        overlap = voxels / (object_sizes[own] + sizes[instance] - voxels)
        of_objects, of_instances = np.zeros(len(ids)), np.zeros(len(sizes))
        np.maximum.at(of_objects, own, overlap)
        np.maximum.at(of_instances, instance, overlap)
        annotated = np.bincount(instance, weights=voxels, minlength=len(sizes))
        counted = (annotated > sizes / 2) & (sizes >= smallest)
        instance_weights = np.sqrt(np.where(counted, sizes, 0))
        weighted = of_objects @ object_weights + of_instances @ instance_weights
        totals.append((weighted, object_weights.sum() + instance_weights.sum()))
    return np.array(totals, np.float64).T


def choose_threshold(overlaps: NDArray[np.float64], preferred: float) -> float:
    """The one nearest to `preferred` whose overlap, (T,), is at most `TOLERANCE` below the best."""
    good = np.flatnonzero(overlaps >= overlaps.max() - TOLERANCE)
    factors = np.abs(np.log(np.array(THRESHOLDS)[good] / preferred))
    return THRESHOLDS[good[factors.argmin()]]
