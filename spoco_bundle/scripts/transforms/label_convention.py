"""Which voxels of a label map are objects: not 0, unlabelled, nor painted background, nor ignored."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

from ..refusals import InputError


def check_special_label(name: str, label: object) -> None:
    """Refuse an id of painted background or ignored voxels that is neither an integer nor None, where there is none."""
    if label is not None and (not isinstance(label, Integral) or isinstance(label, bool)):
        raise InputError(f"{name} must be an integer or None, got {label!r}")


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
