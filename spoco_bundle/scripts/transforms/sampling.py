"""Which objects are annotated: simulate sparse annotation."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from ..files.image_files import file_of
from ..refusals import InputError


def where_id(labels: Tensor, id_: int | None) -> Tensor:
    """Voxels of an id, bool; none without one, or of one that the type of the labels cannot hold."""
    limits = None if labels.dtype == torch.bool else torch.iinfo(labels.dtype)
    least, largest = (limits.min, limits.max) if limits else (0, 1)
    if id_ is None or not least <= id_ <= largest:  # in fewer bits it could be another one
        return torch.zeros_like(labels, dtype=torch.bool)
    return labels == id_


def without_special(labels: Tensor, background_label: int | None, ignore_label: int | None) -> Tensor:
    """The label map with 0 in the place of painted background and ignored voxels."""
    for special in (background_label, ignore_label):
        labels = labels if special is None else labels.masked_fill(where_id(labels, special), 0)
    return labels


def annotated_ids(labels: Tensor, background_label: int | None, ignore_label: int | None) -> Tensor:
    """Ids of the annotated objects, ascending: neither unlabelled nor painted background nor ignored."""
    ids = without_special(torch.unique(labels), background_label, ignore_label)
    return ids[ids != 0]


def number_objects(labels: Tensor, background_label: int | None, ignore_label: int | None) -> tuple[Tensor, Tensor]:
    """Ids of the annotated objects, (K,), and the label map with 1..K in their place, 0 elsewhere."""
    ids = annotated_ids(labels, background_label, ignore_label)
    if len(ids) == 0:
        return ids, torch.zeros_like(labels)
    position = torch.searchsorted(ids, labels.contiguous()).clamp_max(len(ids) - 1)
    return ids, torch.where(ids[position] == labels, position + 1, 0)


def kept_count(objects: int, fraction: float) -> int:
    """How many of the objects to keep: the share, rounded, and at least one.

    Raises:
        ValueError: a share outside of (0, 1].
    """
    if not 0 < fraction <= 1:
        raise InputError(f"fraction must lie in (0, 1], got {fraction}")
    return max(1, round(fraction * objects))


class KeepObjectFractiond(MapTransform):
    """Keep a share of the annotated objects and make the others unlabelled.

    The choice depends on the seed and the file's name only, so it is the same in every process and on every
    machine. Of n objects, round(fraction * n) are kept, and at least one.

    Args:
        keys: label maps (1, *spatial).
        fraction: share of the objects to keep, in (0, 1].
        seed: another seed, another choice.
        background_label, ignore_label: ids that are no objects and stay.
    """

    def __init__(
        self,
        keys: KeysCollection,
        fraction: float,
        seed: int = 0,
        background_label: int | None = None,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__(keys)
        kept_count(1, fraction)  # refuses a wrong share before any file is read
        self.fraction, self.seed = fraction, seed
        self.background_label, self.ignore_label = background_label, ignore_label

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        if self.fraction == 1:
            return result
        for key in self.key_iterator(result):
            labels = result[key]
            name = Path(file_of(labels)).name
            random = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
            ids = annotated_ids(torch.as_tensor(labels), self.background_label, self.ignore_label)
            kept = kept_count(len(ids), self.fraction)
            dropped = ids[torch.from_numpy(random.permutation(len(ids))[kept:])]
            result[key] = labels.masked_fill(torch.isin(labels, dropped), 0)
        return result


class ForgetIgnoredd(MapTransform):
    """Turn ignored voxels into 0, for metrics that know no such voxels.

    Args:
        keys: label maps.
        ignore_label: the id to forget; None where there is none.
        prediction_key: instances, of which those that lie on ignored voxels with more than half of theirs are
            forgotten, too: they can be neither right nor wrong.
    """

    def __init__(
        self, keys: KeysCollection, ignore_label: int | None = None, prediction_key: str | None = None
    ) -> None:
        super().__init__(keys)
        self.ignore_label, self.prediction_key = ignore_label, prediction_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            ignored = where_id(torch.as_tensor(result[key]), self.ignore_label)
            if self.ignore_label is not None and self.prediction_key is not None:
                result[self.prediction_key] = _without_mostly(result[self.prediction_key], ignored)
            result[key] = result[key].masked_fill(ignored, 0)
        return result


def _without_mostly(instances: Tensor, ignored: Tensor) -> Tensor:
    """Drop the instances that lie on ignored voxels with more than half of theirs; both (1, *spatial)."""
    ids, of_voxel = torch.unique(torch.as_tensor(instances), return_inverse=True)
    on_ignored = torch.bincount(of_voxel[ignored.to(of_voxel.device)], minlength=len(ids))
    dropped = 2 * on_ignored > torch.bincount(of_voxel.flatten(), minlength=len(ids))
    return instances.masked_fill(dropped[of_voxel], 0)
