"""How much evidence makes a border: the threshold of `agglomeration`, chosen by the annotated objects.

How sharp borders are in embedding space depends on the images, on the objects' shape and on how long the network was
trained. Each annotated object tells: at a low threshold it is in pieces, at a high one it has swallowed its neighbours.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.transforms import Transform
from numpy.typing import NDArray

from .agglomeration import MERGE_THRESHOLD, Hierarchy, build_hierarchy
from .foreground import is_foreground
from .resampling import resample_nearest

THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.4, 2.8, 3.4)
TOLERANCE = 0.01  # so much better must the best threshold be than one nearer to `MERGE_THRESHOLD`


class MergeCalibration(Transform):
    """Chooses the threshold at which the annotated objects of the validation images overlap best with instances.

    A transform, which looks at the embeddings and the annotation of each image and returns them unchanged, and a
    handler, which forgets the images of the last validation when a new one starts. ``float()`` of it is the threshold
    for all images so far.

    Args:
        embedding_dim: the embeddings are the first so many channels of ``data[pred_key]``, on the working grid.
        delta_var, foreground, position_scale: as for `postprocessing.ClusterEmbeddingsd`.
        background_label, ignore_label: ids in ``data[label_key]`` that are no objects.
        fixed: a threshold that is used as it is; None: choose one.
        mask_key: where there is such a map, objects are where it is not 0.
    """

    def __init__(
        self,
        embedding_dim: int,
        delta_var: float = 0.5,
        foreground: str = "estimated",
        position_scale: float = 0.0,
        background_label: int | None = None,
        ignore_label: int | None = None,
        fixed: float | None = None,
        pred_key: str = "pred",
        label_key: str = "label",
        mask_key: str = "mask",
    ) -> None:
        if fixed is not None and not fixed > 0:
            raise ValueError(f"merge_threshold must be positive, or null to choose one, got {fixed!r}")
        self.embedding_dim, self.delta_var, self.foreground = embedding_dim, delta_var, foreground
        self.position_scale, self.fixed = position_scale, fixed
        self.special = (background_label, ignore_label)
        self.pred_key, self.label_key, self.mask_key = pred_key, label_key, mask_key
        self._forget()

    def attach(self, engine: Engine) -> None:
        """Register with a validator, before what writes the threshold."""
        engine.add_event_handler(Events.STARTED, self._forget)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._share)

    def __call__(self, data: Mapping[Hashable, Any]) -> Mapping[Hashable, Any]:
        if self.fixed is None:
            overlaps = self._overlaps(data)
            self.sums += overlaps.sum(1)
            self.objects += overlaps.shape[1]
        return data

    def __float__(self) -> float:
        if self.fixed is not None:
            return float(self.fixed)
        return choose_threshold(self.sums / max(1, self.objects))

    def _overlaps(self, data: Mapping[Hashable, Any]) -> NDArray[np.float64]:
        embeddings = torch.as_tensor(data[self.pred_key]).detach().float().cpu()[: self.embedding_dim]
        grid = embeddings.shape[1:]
        labels = resample_nearest(torch.as_tensor(data[self.label_key]).cpu(), grid)[0].numpy()
        labels = np.where(np.isin(labels, [label for label in self.special if label is not None]), 0, labels)
        if self.mask_key in data:
            foreground = torch.as_tensor(data[self.mask_key]).cpu().numpy()[0] > 0
        elif self.foreground == "estimated":
            foreground = is_foreground(embeddings).numpy()
        else:
            foreground = np.ones(grid, bool)
        if not foreground.any() or not labels.any():
            return np.zeros((len(THRESHOLDS), np.count_nonzero(np.unique(labels))))
        hierarchy = build_hierarchy(embeddings.numpy(), foreground, self.delta_var, self.position_scale, THRESHOLDS[-1])
        return best_overlaps(hierarchy, labels)

    def _forget(self) -> None:
        self.sums, self.objects = np.zeros(len(THRESHOLDS)), 0

    def _share(self) -> None:
        """Every process of a distributed training comes to the same threshold."""
        if idist.get_world_size() > 1:
            total = idist.all_reduce(torch.tensor([*self.sums, self.objects], dtype=torch.float64))
            self.sums, self.objects = total[:-1].cpu().numpy(), int(total[-1])


def best_overlaps(hierarchy: Hierarchy, labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Best IoU of each of K objects with an instance, for each of `THRESHOLDS`: (T, K); labels are (*spatial)."""
    objects, owner = np.unique(labels, return_inverse=True)
    regions = hierarchy.regions.ravel()
    region_sizes = np.bincount(regions)
    pairs, voxels = np.unique(owner.ravel().astype(np.int64) * len(region_sizes) + regions, return_counts=True)
    member, region = np.divmod(pairs, len(region_sizes))
    counted = (objects[member] > 0) & (region > 0)
    member, region, voxels = member[counted], region[counted], voxels[counted]
    object_sizes = np.bincount(owner.ravel())
    overlaps = np.zeros((len(THRESHOLDS), len(objects)))
    for row, threshold in zip(overlaps, THRESHOLDS, strict=True):
        instance_of = hierarchy.cut(threshold)
        sizes = np.bincount(instance_of, weights=region_sizes)
        keys, pair_of = np.unique(member * len(sizes) + instance_of[region], return_inverse=True)
        shared = np.bincount(pair_of, weights=voxels, minlength=len(keys))
        own, instance = np.divmod(keys, len(sizes))
        np.maximum.at(row, own, shared / (object_sizes[own] + sizes[instance] - shared))
    return overlaps[:, objects > 0]


def choose_threshold(overlaps: NDArray[np.float64]) -> float:
    """The one nearest to `MERGE_THRESHOLD` whose overlap, (T,), is at most `TOLERANCE` below the best."""
    good = np.flatnonzero(overlaps >= overlaps.max() - TOLERANCE)
    factors = np.abs(np.log(np.array(THRESHOLDS)[good] / MERGE_THRESHOLD))
    return THRESHOLDS[good[factors.argmin()]]
