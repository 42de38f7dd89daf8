"""What the training files have in common: voxel sizes, and how large the annotated objects are."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from monai.transforms import Transform

from ..files.grids import counts_pixels, stated_axes
from ..files.image_files import file_of
from ..geometry.balls import ball_volume
from ..notices import counted_aloud
from ..refusals import InputError
from .label_convention import where_id, without_special
from .object_sizes import extent_errors, measure_objects, typical_extents, typical_volume
from .slips import FILES, find_slips, warn_of_slips
from .voxel_sizes import assumed_voxel_sizes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Survey:
    """What the training files have in common."""

    object_count: int  # of annotated objects in all files
    voxel_size: list[float]  # per axis in the unit of the files, the median where they differ
    object_extents: list[float]  # of a typical annotated object per axis, in such voxels, see `typical_extents`
    extent_errors: list[float]  # of their logarithms, see `extent_errors`; 0 where the user told them
    object_volume: float  # of a typical annotated object, in such voxels, see `typical_volume`
    smallest_sides: list[float]  # of the images per axis, in the unit of the files
    stated_axes: list[bool]  # along which files say how long a voxel is, see `grids.stated_axes`
    in_pixels: bool = False  # they say so in pixels, all that say anything, see `grids.counts_pixels`
    object_volumes: tuple[float, ...] = ()  # of each annotated object, in such voxels


def survey_objects(
    data: Sequence[Mapping[str, Any]],
    load: Transform,
    background_label: int | None = None,
    ignore_label: int | None = None,
    object_size: Sequence[float] | None = None,
) -> Survey:
    """Read all training files once.

    Args:
        data: the training files.
        load: transform that reads one entry of `data`, as the training does.
        background_label, ignore_label: ids that are no objects.
        object_size: how large the objects are as a rule, per axis in the unit of the files, if the user says so; the
            annotated ones need not be typical then.

    Raises:
        ValueError: there is no image, or no object.
    """
    if not data:
        raise InputError("train#dataset#data: found no image, expected at least one that is annotated.")
    voxel_sizes, stated, in_pixels, shapes, objects = [], [], [], [], []
    slips: dict[str, dict[str, list[int]]] = {}  # by the label map
    absent = {"background_label": background_label, "ignore_label": ignore_label}
    for entry in counted_aloud(data, logger, "looking at the annotated images: %d of %d are done"):
        loaded = load(dict(entry))
        image, label = loaded["image"], loaded["label"]
        voxel_sizes.append(image.pixdim.tolist())
        stated.append(stated_axes(image))
        in_pixels.append(counts_pixels(image))
        labels = label.as_tensor()[0]
        absent = {name: id_ for name, id_ in absent.items() if id_ is not None and not where_id(labels, id_).any()}
        ignored = where_id(labels, ignore_label)
        labels = without_special(labels, background_label, ignore_label)
        shapes.append(labels.shape)
        # not the label maps, which may not fit into memory together
        objects.append(measure_objects(labels, ignored if ignored.any() else None))
        if len(shapes) <= FILES:
            slips[file_of(label, "label")] = find_slips(labels, ignored)
    warn_of_slips(slips)
    for name, id_ in absent.items():
        logger.warning("%s: found no voxel of the id %d in any label map", name, id_)
    pixels_alone = not any(any(axes) and not pixels for axes, pixels in zip(stated, in_pixels, strict=True))
    if not pixels_alone:  # beside lengths, numbers of pixels say nothing
        for file in np.flatnonzero(in_pixels):
            voxel_sizes[file], stated[file] = [math.nan] * len(stated[file]), [False] * len(stated[file])
    assumed = assumed_voxel_sizes(voxel_sizes, stated)
    voxel_size = np.median(assumed, axis=0)
    objects = [sizes.in_voxels(edges / voxel_size) for sizes, edges in zip(objects, assumed, strict=True)]
    survey = Survey(
        object_count=sum(len(sizes.volumes) for sizes in objects),
        voxel_size=voxel_size.tolist(),
        stated_axes=np.any(stated, axis=0).tolist(),
        in_pixels=any(in_pixels) and pixels_alone,
        object_volumes=tuple(float(volume) for sizes in objects for volume in sizes.volumes),
        object_extents=typical_extents(objects),
        extent_errors=extent_errors(objects),
        object_volume=typical_volume(objects),
        smallest_sides=np.min(np.multiply(shapes, assumed), axis=0).tolist(),
    )
    return survey if object_size is None else _with_object_size(survey, object_size)


def _with_object_size(survey: Survey, object_size: Sequence[float]) -> Survey:
    """The survey with objects of a size that is known, per axis in the unit of the files."""
    extents = [size / edge for size, edge in zip(object_size, survey.voxel_size, strict=True)]
    volume = ball_volume(0.5, len(extents)) * math.prod(extents)
    return replace(survey, object_extents=extents, extent_errors=[0.0] * len(extents), object_volume=volume)
