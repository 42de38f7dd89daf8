"""Objects of several classes in one label map, with the ids of Cityscapes: id = 1000 * class + number.

    24, 25, 26, ...        a region of that class which nobody parted into objects
    26000, 26001, ...      the objects of class 26

https://github.com/mcordts/cityscapesScripts, "Dataset Structure". Without classes (None) ids are just ids.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import MetaKeys
from numpy.typing import NDArray

from ..arrays import Mask
from ..files.image_files import file_of
from ..files.readers import read_volume
from ..files.tables import SCORES_POSTFIX
from ..refusals import InputError
from .checks import check_ids, check_one_channel
from .label_convention import where_id
from .sampling import kept_count

IDS_OF_A_CLASS = 1000

logger = logging.getLogger(__name__)


def checked_classes(classes: Sequence[int]) -> list[int]:
    """The classes as a list; raises ValueError where they are no list of positive integers."""
    if isinstance(classes, int | str) or not all(isinstance(class_, int) and class_ > 0 for class_ in classes):
        raise InputError(f"classes must be a list of positive integers such as [24, 26], got {classes!r}")
    return list(classes)


class SelectClassesd(MapTransform):
    """Keep the objects of some classes; everything else becomes unlabelled, or ignored.

    Regions of these classes that are not parted into objects, such as a crowd, can be neither right nor wrong
    and are ignored.

    Args:
        keys: label maps, (1, *spatial).
        classes: those to keep; None leaves the maps as they are.
        background_label: id painted on known background, which stays.
        ignore_label: id for what is to be ignored, which stays where it is painted; None makes crowds unlabelled.
        drawn: path of a label map -> ids of its annotated objects (see `draw_objects`); None keeps all objects.
        keep_crowds: where there is an `ignore_label`, let crowds keep their ids, which tell whose they are:
            `ignored.ForgetIgnoredd` ignores them for the instances of their own class alone.
        allow_missing_keys: do not raise when a key is missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        classes: Sequence[int] | None,
        background_label: int | None = None,
        ignore_label: int | None = None,
        drawn: Mapping[str, Collection[int]] | None = None,
        keep_crowds: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.classes, self.drawn = None if classes is None else checked_classes(classes), drawn
        self.background_label, self.ignore_label = background_label, ignore_label
        self.keep_crowds = keep_crowds and ignore_label is not None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        if self.classes is None:
            return result
        for key in self.key_iterator(result):
            labels, path = result[key], file_of(result[key], key)
            check_ids(path, labels)
            classes = torch.as_tensor(self.classes)
            kept = torch.isin(labels // IDS_OF_A_CLASS, classes)
            if self.drawn is not None:
                kept &= torch.isin(labels, torch.as_tensor([*self.drawn.get(path, ())], dtype=labels.dtype))
            kept |= where_id(labels, self.background_label) | where_id(labels, self.ignore_label)
            crowd, ignored = torch.isin(labels, classes), self.ignore_label or 0
            if self.keep_crowds:
                result[key] = labels.masked_fill(~(kept | crowd), 0)
                continue
            if ignored > torch.iinfo(labels.dtype).max:  # the map itself holds no ignored voxel
                labels = labels.long()
            result[key] = labels.masked_fill(~kept, 0).masked_fill(crowd, ignored)
        return result


def draw_objects(
    labels: Sequence[PathLike], classes: Sequence[int], fraction: float, seed: int = 0
) -> dict[str, list[int]]:
    """Draw a share of the objects of each class, over all label maps together, and at least one.

    Args:
        labels: paths of the label maps, each of which is read.
        classes: those to draw from.
        fraction: share of the objects of each class to draw, in (0, 1].
        seed: another seed, another choice.

    Returns:
        Path -> ids of the objects drawn; maps without one are left out.

    Raises:
        ValueError: no list of classes, a share outside of (0, 1], or no object of any of the classes.
    """
    classes = checked_classes(classes)
    kept_count(1, fraction)  # refuses a wrong share before any file is read
    ids = {str(Path(path)): _ids_in(path) for path in labels}
    drawn: dict[str, list[int]] = {}
    for class_ in classes:
        objects = [(path, id_) for path in ids for id_ in ids[path] if id_ // IDS_OF_A_CLASS == class_]
        order = np.random.default_rng([seed, class_]).permutation(len(objects))
        for index in order[: kept_count(len(objects), fraction)]:
            path, id_ = objects[index]
            drawn.setdefault(path, []).append(id_)
    if not drawn:
        raise InputError(f"Found no object of the classes {classes} in {len(ids)} label maps, expected some.")
    logger.info("%d of %d label maps hold an object that was drawn", len(drawn), len(ids))
    return drawn


def _ids_in(path: PathLike) -> list[int]:
    """All ids of a label map; raises ValueError where it holds colours, or no integers."""
    array, meta = read_volume(path)
    check_one_channel(str(path), 1 if array.ndim == len(meta[MetaKeys.SPATIAL_SHAPE]) else len(array))
    check_ids(str(path), torch.as_tensor(array))
    return np.unique(array).tolist()


def regions_of_classes(mask: NDArray[np.integer], classes: Sequence[int] | None) -> Iterator[Mask]:
    """Where each class is in a map of classes, (*spatial) each; None takes all that is not 0 for one class."""
    return iter([mask != 0]) if classes is None else (mask == class_ for class_ in classes)


def largest_of_a_class(sizes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Indices, ascending, of the largest of some sizes, as many as a class has ids; not of those that are 0."""
    count = np.count_nonzero(sizes)
    if count > IDS_OF_A_CLASS:
        message = "found %d instances of a class, which has %d ids; the smallest ones are left out"
        logger.warning(message, count, IDS_OF_A_CLASS)
    return np.sort(np.argsort(-sizes, kind="stable")[: min(IDS_OF_A_CLASS, count)])


class NumberByClassd(MapTransform):
    """Give the instances of each class the ids 1000 * class, 1000 * class + 1, ..., in the order they have.

    Of more than 1000 instances of a class, which has no more ids, the largest are kept.

    Args:
        keys: instances 1..K, (1, *spatial), each inside one class. Their scores follow: under ``pred_scores`` the
            first one is that of id 1, and ids that no instance has get none (not a number).
        classes: None leaves the ids as they are.
        has_masks: whether the data hold a ``mask``, (1, *spatial), with the class of each voxel. One class needs none:
            all instances are of it.
    """

    def __init__(self, keys: KeysCollection, classes: Sequence[int] | None, has_masks: bool) -> None:
        super().__init__(keys)
        self.classes, self.has_masks = None if classes is None else checked_classes(classes), has_masks
        if self.classes is not None and len(self.classes) > 1 and not has_masks:
            raise InputError(f"Found no masks, expected some that tell the classes {self.classes} apart.")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        if self.classes is None:
            return result
        for key in self.key_iterator(result):
            instances = torch.as_tensor(result[key]).long()
            class_of = torch.full((int(instances.max()) + 1,), 0 if self.has_masks else self.classes[0])
            if self.has_masks:
                mask = torch.as_tensor(result["mask"]).to(instances.device)
                class_of[instances.flatten()] = mask.flatten().long()
            class_of[0] = 0
            sizes = instances.flatten().bincount(minlength=len(class_of)).cpu()
            new_id = torch.zeros_like(class_of, dtype=torch.int32)
            for class_ in self.classes:
                # one more each, so that an id without a voxel keeps its place
                members = torch.from_numpy(largest_of_a_class(torch.where(class_of == class_, sizes + 1, 0).numpy()))
                new_id[members] = class_ * IDS_OF_A_CLASS + torch.arange(len(members), dtype=torch.int32)
            pred, numbered = result[key], new_id[instances]
            result[key] = MetaTensor(numbered, meta=pred.meta) if isinstance(pred, MetaTensor) else numbered
            scores_key = f"{key}_{SCORES_POSTFIX}"
            if scores_key in result:
                scores = torch.full((int(new_id.max()) + 1,), torch.nan, dtype=torch.float64)
                scores[new_id[1:].long()] = result[scores_key]
                result[scores_key] = scores[1:]
        return result


def objects_of_class(labels: torch.Tensor, class_: int) -> torch.Tensor:
    """The same map with the objects of one class alone."""
    return labels.masked_fill(labels // IDS_OF_A_CLASS != class_, 0)
