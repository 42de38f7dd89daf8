"""What there is to say about each instance in numbers, as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.data.utils import affine_to_spacing
from numpy.typing import ArrayLike, NDArray
from skimage.measure import regionprops_table

from .whole_files import whole_file

Table = dict[str, NDArray]  # name of a column -> its values, one for each instance

UNIT_SYMBOLS = {"micrometre": "um", "millimetre": "mm", "metre": "m"}
SCORES_POSTFIX = "scores"  # the scores of the instances under KEY are under KEY_scores
UNSTATED = "unit"  # stands in for the symbol where the file names no unit


def instance_table(instances: NDArray[np.integer], scores: ArrayLike, affine: ArrayLike, unit: str = "") -> Table:
    """Measure the instances of a map.

    Args:
        instances: (*spatial) with axes (Z, Y, X) or (Y, X), 0 = background, ids from 1..K. Those that are not in the
            map get no row.
        scores: (K,), the first one that of id 1.
        affine: (ndim + 1, ndim + 1), from indices to places in `unit`. Its columns need not be at right angles: then a
            voxel is a parallelepiped, smaller than the product of its edges.
        unit: of lengths: "micrometre", "millimetre", "metre", or anything else for none that is known.

    Returns:
        the columns, here of a volume in micrometres; every axis has columns of its own:

        ====================  ============================================================================
        ``id``                in the instance map
        ``score``             see `confidence.instance_scores`
        ``voxels``            how many
        ``volume_um3``        of all its voxels; in 2D ``area_um2``
        ``centroid_z_um``     mean position of its voxels, measured from the middle of the file's first voxel
        ``centroid_z_voxel``  the same as an index, 0 for the first voxel
        ``min_z_voxel``       where its bounding box begins, as an index
        ``max_z_voxel``       the last index that belongs to it
        ====================  ============================================================================
    """
    axes = "zyx"[-instances.ndim :]
    columns = voxel_columns(instances)
    symbol = UNIT_SYMBOLS.get(unit, UNSTATED)
    size_name = f"area_{symbol}2" if instances.ndim == 2 else f"volume_{symbol}3"
    linear = np.asarray(affine)[: instances.ndim, : instances.ndim]
    voxel_size, voxel_volume = affine_to_spacing(linear, r=instances.ndim), abs(np.linalg.det(linear))
    places = {
        f"centroid_{axis}_{symbol}": columns[f"centroid_{axis}_voxel"] * edge
        for axis, edge in zip(axes, voxel_size, strict=True)
    }
    ids, sizes = columns.pop("id"), columns.pop("voxels")
    return {
        "id": ids,
        "score": np.asarray(scores, np.float64)[ids - 1],
        "voxels": sizes,
        size_name: sizes * voxel_volume,
        **places,
        **columns,
    }


def voxel_columns(instances: NDArray[np.integer]) -> Table:
    """The columns of `instance_table` that the map alone tells: ids, sizes and places in voxels."""
    axes = "zyx"[-instances.ndim :]
    found = regionprops_table(instances, properties=("label", "num_pixels", "centroid", "bbox"))
    centroids = [found[f"centroid-{axis}"] for axis in range(len(axes))]
    corners = [found[f"bbox-{side}"] for side in range(2 * len(axes))]  # the last ones do not belong to the box
    return {
        "id": found["label"],
        "voxels": found["num_pixels"],
        **{f"centroid_{a}_voxel": index for a, index in zip(axes, centroids, strict=True)},
        **{f"min_{a}_voxel": corner for a, corner in zip(axes, corners, strict=False)},
        **{f"max_{a}_voxel": corner - 1 for a, corner in zip(axes, corners[len(axes) :], strict=True)},
    }


def write_table(target: Path, table: Mapping[str, NDArray]) -> None:
    """Write a table as CSV: a header and one line for each instance; the file appears whole or not at all.

    It is UTF-8 in any case: bytes in the name of an image that are none, as of an older computer, are escaped.
    """
    rows = table_rows(table)
    with (
        whole_file(target) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows([list(table), *rows])


def table_rows(table: Mapping[str, NDArray]) -> list[list[str]]:
    """What `write_table` writes of each instance."""
    return [[_text(value) for value in row] for row in zip(*table.values(), strict=True)]


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
