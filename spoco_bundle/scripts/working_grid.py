"""Choose the working voxel size of a training from its annotated objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai.transforms import Transform

from .resampling import standard_spacing
from .sampling import median_extents


def working_spacing(
    data: Sequence[Mapping[str, Any]],
    load: Transform,
    spacing: str | Sequence[float] = "objects",
    background_label: int | None = None,
    ignore_label: int | None = None,
    label_key: str = "label",
    image_key: str = "image",
) -> list[float]:
    """The voxel size, per axis in the unit of the files, that all images are resampled to before the network.

    Args:
        data: the training files.
        load: transform that reads one entry of `data`, as the training does.
        spacing: ``objects`` gives the annotated objects one standard size (`resampling.standard_spacing`),
            ``image`` keeps the images' own voxel size (the median, where they differ), a list is used as it is.
        background_label, ignore_label: ids that are no objects.

    Raises:
        ValueError: neither of the two words nor positive numbers.
    """
    if not isinstance(spacing, str):
        if min(spacing) <= 0:
            raise ValueError(f"spacing must hold positive numbers, got {list(spacing)}")
        return [float(edge) for edge in spacing]
    if spacing not in ("objects", "image"):
        raise ValueError(f"spacing must be 'objects', 'image' or a list of numbers, got {spacing!r}")
    voxel_sizes, labels = [], []
    for entry in data:
        loaded = load(dict(entry))
        voxel_sizes.append(loaded[image_key].pixdim.tolist())
        label = loaded[label_key].as_tensor()[0]
        for special in (background_label, ignore_label):
            label = label if special is None else label.masked_fill(label == special, 0)
        labels.append(label)
    voxel_size = np.median(voxel_sizes, axis=0).tolist()
    return voxel_size if spacing == "image" else standard_spacing(voxel_size, median_extents(labels))
