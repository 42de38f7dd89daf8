"""What follows from the annotated objects: the voxel size to work at, and which instances are too small for objects."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..geometry.balls import ball_volume
from ..refusals import InputError
from .resampling import working_shape, working_voxels_per_voxel
from .survey import Survey

logger = logging.getLogger(__name__)

STANDARD_OBJECT_SIZE = 16.0  # voxels of the working grid along every axis
SMALLEST_SHARE = {2: 1 / 8, 3: 1 / 16}  # of the typical object, in 2D and 3D: an instance below it is a fragment
FEW_OBJECTS = 5  # fewer say little about how large objects are: in dense tissue two cells made half the usual AP50
FINEST = 0.5  # of a working voxel, in voxels of the image: finer sampling adds no detail, only work
NEARLY = math.log(1.2)  # a voxel size so near to another one is as good, as a logarithm
LONGEST = 4.0  # ellipsoids of its thickness that a long object counts as: who paints giants has small ones, too


def working_spacing(survey: Survey, spacing: str | Sequence[float] = "objects") -> list[float]:
    """The voxel size, per axis in the unit of the files, that all images are resampled to before the network.

    Args:
        survey: of the training files.
        spacing: ``objects`` gives the annotated objects one standard size (`standard_spacing`),
            ``image`` keeps the images' own voxel size, a list is used as it is.

    Raises:
        ValueError: neither of the two words nor positive numbers.
    """
    if not isinstance(spacing, str):
        if min(spacing) <= 0:
            raise InputError(f"spacing must hold positive numbers, got {list(spacing)}")
        return [float(edge) for edge in spacing]
    if spacing not in ("objects", "image"):
        raise InputError(f"spacing must be 'objects', 'image' or a list of numbers, got {spacing!r}")
    if spacing == "image":
        return survey.voxel_size
    chosen = standard_spacing(survey.voxel_size, survey.object_extents)
    if not any(survey.extent_errors):
        logger.info("spacing: %s, as objects measure %s voxels", rounded(chosen), rounded(survey.object_extents))
        return chosen
    logger.log(
        logging.WARNING if survey.object_count < FEW_OBJECTS else logging.INFO,
        "spacing: %s, as the annotated objects, %d, mostly measure %s voxels%s",
        rounded(chosen),
        survey.object_count,
        rounded(survey.object_extents),
        "; if objects are larger or smaller as a rule, give --object_size" if survey.object_count < FEW_OBJECTS else "",
    )
    return chosen


def standard_spacing(voxel_size: Sequence[float], extents: Sequence[float]) -> list[float]:
    """Working voxel size at which objects have the standard size along every axis, see `practical_spacing`.

    Args:
        voxel_size: of the images, per axis.
        extents: median extent of the annotated objects, per axis, in voxels of the images.
    """
    wanted = [edge * extent / STANDARD_OBJECT_SIZE for edge, extent in zip(voxel_size, extents, strict=True)]
    return practical_spacing(voxel_size, wanted)


def practical_spacing(voxel_size: Sequence[float], wanted: Sequence[float]) -> list[float]:
    """The voxel size nearest to the wanted one, per axis, that is worth resampling to.

    Args:
        voxel_size: of the images.
        wanted: within a fifth of it the images' own stays: interpolation would cost more than it gains.
    """
    spacing = []
    for edge, size in zip(voxel_size, wanted, strict=True):
        factor = max(FINEST, size / edge)
        spacing.append(edge if abs(math.log(factor)) < NEARLY else edge * factor)
    return spacing


def rounded(numbers: Sequence[float]) -> list[float]:
    return [float(f"{number:.3g}") for number in numbers]


def standard_volume(dims: int) -> float:
    """Volume, in 2D area, of a round object of the standard size, in working voxels."""
    return ball_volume(STANDARD_OBJECT_SIZE / 2, dims)


def inference_spacing(object_size: Sequence[float] | None, trained: Sequence[float] | None) -> list[float] | None:
    """The voxel size to work at where there are no annotated objects to ask, or None for that of the image.

    Args:
        object_size: how large the objects are, per axis in the unit of the files, if the user says so.
        trained: what the network was trained at.

    Raises:
        ValueError: `object_size` is no list of positive numbers.

    >>> inference_spacing([32.0, 8.0], trained=[1.0, 1.0])
    [2.0, 0.5]
    """
    if object_size is None:
        return None if trained is None else list(trained)
    numbers = isinstance(object_size, list | tuple) and all(isinstance(size, int | float) for size in object_size)
    if not (numbers and object_size and min(object_size) > 0):
        raise InputError(f"object_size must be a list of positive numbers, one an axis, got {object_size!r}")
    return [size / STANDARD_OBJECT_SIZE for size in object_size]


def voxel_shape(survey: Survey, spacing: Sequence[float]) -> list[float]:
    """Edges of a working voxel in units of a typical object, the shortest 1: what is long for the network.

    The files' own units do not matter: many do not state how thick a slice is, and flat objects in flat voxels are as
    good as round ones in cubes.

    >>> survey = Survey(1, [4.0, 1.0, 1.0], [4.0, 16.0, 16.0], [0.5] * 3, 500.0, [1.0] * 3, [True] * 3)
    >>> voxel_shape(survey, [4.0, 1.0, 1.0])
    [4.0, 1.0, 1.0]
    """
    sizes = zip(spacing, survey.voxel_size, survey.object_extents, strict=True)
    edges = [working / (voxel * extent) for working, voxel, extent in sizes]
    return [edge / min(edges) for edge in edges]


def fitting_patch(
    survey: Survey, spacing: Sequence[float], largest: Sequence[int], divisor: Sequence[int]
) -> list[int]:
    """The largest patch, in voxels of the working grid, that lies in all training images.

    Args:
        survey: of the training files.
        spacing: the working voxel size.
        largest: the most voxels that it may have along each axis.
        divisor: of which each side is a multiple, see `dynunet.size_divisor`; it is the least that is returned.

    Raises:
        ValueError: `largest` has not one entry for each axis.
    """
    if len(largest) != len(spacing):
        raise InputError(f"largest must have {len(spacing)} entries, one an axis, got {list(largest)}")
    shape = working_shape([1] * len(spacing), survey.smallest_sides, spacing)
    patch = [max(step, min(n, most) // step * step) for n, most, step in zip(shape, largest, divisor, strict=True)]
    logger.info("patch_size: %s, which lies in all images, of at most %s", patch, list(largest))
    return patch


def smallest_instance(survey: Survey, spacing: Sequence[float], min_size: int = 0) -> float:
    """The smallest volume, in working voxels, at which an instance is taken for an object.

    In working voxels, for which all images show objects alike, however fine their files are.

    Args:
        survey: of the training files. Typical is an ellipsoid (in 2D an ellipse) of the objects' typical extents, which
            chips at the border do not make smaller, or, where objects are long, their median volume, up to `LONGEST`.
        spacing: the working voxel size.
        min_size: the volume in voxels of the training files, if the user says so.
    """
    radii = [extent / 2 for extent in survey.object_extents]
    ellipsoid = ball_volume(1.0, len(radii)) * math.prod(radii)
    typical = min(max(ellipsoid, survey.object_volume), LONGEST * ellipsoid)
    in_files = min_size or SMALLEST_SHARE[len(radii)] * typical
    return in_files * math.prod(survey.voxel_size) / math.prod(spacing)


def remind_of_grid(settings: Mapping[str, Any], survey: Survey, spacing: Sequence[float]) -> None:
    """Warn where weights that were trained on such images go on with them on another working grid, and how to keep it.

    A few more objects may have moved it, as corrected ones are often not typical, and the network knows the old one.

    Args:
        settings: of the weights to start from, see `checkpoints.read_settings`; nothing is said of shipped ones.
        survey: of the training files.
        spacing: the working voxel size.
    """
    trained, voxel_size, smallest = (settings.get(name) for name in ("spacing", "voxel_size", "smallest_instance"))
    if trained and voxel_size and smallest and _nearly(voxel_size, survey.voxel_size) and not _nearly(trained, spacing):
        logger.warning(
            'spacing: %s, where the weights to start from were trained on %s; to stay there give --spacing "%s" '
            "--smallest_instance %.4g",
            rounded(spacing),
            rounded(trained),
            str(rounded(trained)).replace(" ", ""),
            smallest,
        )


def _nearly(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two voxel sizes differ so little, along each axis, that objects look the same, see `NEARLY`."""
    return len(one) == len(other) and all(abs(math.log(a / b)) < NEARLY for a, b in zip(one, other, strict=True))


def warn_of_dropped_objects(survey: Survey, spacing: Sequence[float], smallest: float, min_size: int = 0) -> None:
    """Warn of annotated objects so small that instances like them are dropped: no further training finds these.

    Args:
        survey: of the training files.
        spacing: the working voxel size.
        smallest, min_size: of an instance, see `smallest_in_working_voxels`.
    """
    in_files = min_size or smallest * math.prod(spacing) / math.prod(survey.voxel_size)
    dropped = sum(volume < in_files for volume in survey.object_volumes)
    if dropped:
        logger.warning(
            "smallest_instance: %d of %d annotated objects have fewer than %d voxels, and such instances are dropped; "
            "if they matter, give a smaller --min_size; the smallest of them has %d",
            dropped,
            len(survey.object_volumes),
            math.ceil(in_files),
            min(survey.object_volumes),
        )


def inference_smallest(object_size: Sequence[float] | None, trained: float) -> float:
    """The same where there are no annotated objects to ask.

    Args:
        object_size: how large the objects are, if the user says so: as large as `inference_spacing` makes them.
        trained: what the training found.
    """
    spacing = inference_spacing(object_size, None)
    if spacing is None:
        return trained
    return SMALLEST_SHARE[len(spacing)] * standard_volume(len(spacing))


def smallest_in_working_voxels(min_size: int, smallest_instance: float, image: Tensor) -> int:
    """How many voxels of the working grid the smallest instance of an image has.

    Args:
        min_size: the same in voxels of the image file, if the user says so; 0 if not.
        smallest_instance: what counts otherwise, in working voxels, see `smallest_instance`.
        image: on the working grid.
    """
    return max(1, round(min_size * working_voxels_per_voxel(image) if min_size else smallest_instance))
