"""What the metrics must not see: ignored voxels, and the instances that lie mostly there."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from .classes import IDS_OF_A_CLASS
from .label_convention import where_id, without_special


class ForgetIgnoredd(MapTransform):
    """Turn ignored voxels into 0 in labels and in instances, ``pred``, for metrics that know no such voxels.

    An instance with more than half of its voxels there can be neither right nor wrong and is forgotten, unless what is
    seen of it is an object, for the most part (Kirillov et al., CVPR 2019, section 4.2).

    A crowd (see `classes.SelectClassesd`) is ignored in the same way for the instances of its own class. For those of
    others it is no object: a car among a group of persons is wrong.

    Args:
        keys: label maps.
        ignore_label: the id to forget; None where there is none.
        background_label: an id that is no object.
        classes: whose crowds the label maps may hold; None where ids are of no classes.
    """

    def __init__(
        self,
        keys: KeysCollection,
        ignore_label: int | None = None,
        background_label: int | None = None,
        classes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(keys)
        self.ignore_label, self.background_label = ignore_label, background_label
        self.classes = list(classes or [])

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        if self.ignore_label is None:
            return result
        for key in self.key_iterator(result):
            labels, instances = torch.as_tensor(result[key]), torch.as_tensor(result["pred"])
            ignored = where_id(labels, self.ignore_label)
            crowds = torch.isin(labels, torch.tensor(self.classes, dtype=labels.dtype, device=labels.device))
            own_crowds = crowds & (labels == (instances // IDS_OF_A_CLASS).to(labels.device))
            objects = without_special(labels, self.background_label, self.ignore_label).masked_fill(crowds, 0) != 0
            result["pred"] = _where_seen(result["pred"], ignored | own_crowds, objects)
            result[key] = result[key].masked_fill(ignored | crowds, 0)
        return result


def _where_seen(instances: Tensor, ignored: Tensor, objects: Tensor) -> Tensor:
    """Instances (1, *spatial) outside ignored voxels, without those that are neither right nor wrong."""
    ids, of_voxel = torch.unique(torch.as_tensor(instances), return_inverse=True)
    ignored, objects = ignored.to(of_voxel.device), objects.to(of_voxel.device)
    hidden, on_objects = (torch.bincount(of_voxel[where], minlength=len(ids)) for where in (ignored, objects))
    seen = torch.bincount(of_voxel[~ignored], minlength=len(ids))
    forgotten = (hidden > seen) & (2 * on_objects <= seen)
    return instances.masked_fill(forgotten[of_voxel] | ignored, 0)
