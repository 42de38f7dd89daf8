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

from ..files.image_files import file_of
from ..refusals import InputError
from .label_convention import annotated_ids


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
