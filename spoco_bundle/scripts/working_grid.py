"""What the annotated objects tell: the voxel size to work at, and which instances are too small to be objects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.transforms import Transform

from .resampling import standard_spacing
from .sampling import median_extents

SMALLEST_SHARE = 1 / 16  # of the typical object: an instance below it is a fragment


@dataclass(frozen=True)
class Survey:
    """What the training files have in common."""

    voxel_size: list[float]  # per axis in the unit of the files, the median where they differ
    object_extents: list[float]  # median extent of the annotated objects per axis, in voxels


def survey_objects(
    data: Sequence[Mapping[str, Any]],
    load: Transform,
    background_label: int | None = None,
    ignore_label: int | None = None,
    label_key: str = "label",
    image_key: str = "image",
) -> Survey:
    """Read all training files once.

    Args:
        data: the training files.
        load: transform that reads one entry of `data`, as the training does.
        background_label, ignore_label: ids that are no objects.
    """
    voxel_sizes, labels = [], []
    for entry in data:
        loaded = load(dict(entry))
        voxel_sizes.append(loaded[image_key].pixdim.tolist())
        label = loaded[label_key].as_tensor()[0]
        for special in (background_label, ignore_label):
            label = label if special is None else label.masked_fill(label == special, 0)
        labels.append(label)
    return Survey(np.median(voxel_sizes, axis=0).tolist(), median_extents(labels))


def working_spacing(survey: Survey, spacing: str | Sequence[float] = "objects") -> list[float]:
    """The voxel size, per axis in the unit of the files, that all images are resampled to before the network.

    Args:
        survey: of the training files.
        spacing: ``objects`` gives the annotated objects one standard size (`resampling.standard_spacing`),
            ``image`` keeps the images' own voxel size, a list is used as it is.

    Raises:
        ValueError: neither of the two words nor positive numbers.
    """
    if not isinstance(spacing, str):
        if min(spacing) <= 0:
            raise ValueError(f"spacing must hold positive numbers, got {list(spacing)}")
        return [float(edge) for edge in spacing]
    if spacing not in ("objects", "image"):
        raise ValueError(f"spacing must be 'objects', 'image' or a list of numbers, got {spacing!r}")
    return survey.voxel_size if spacing == "image" else standard_spacing(survey.voxel_size, survey.object_extents)


def smallest_instance(survey: Survey) -> int:
    """The smallest volume, in voxels of the training files, at which an instance is taken for an object.

    Typical is an ellipsoid (in 2D an ellipse) of the annotated objects' median extents.
    """
    dims = len(survey.object_extents)
    unit_ball = math.pi ** (dims / 2) / math.gamma(dims / 2 + 1) / 2**dims  # of diameter 1
    return max(1, round(SMALLEST_SHARE * unit_ball * math.prod(survey.object_extents)))
