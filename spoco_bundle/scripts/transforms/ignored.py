"""What the metrics must not see: ignored voxels, and instances that lie mostly on them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from .label_convention import where_id


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
