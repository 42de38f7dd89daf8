"""The sets of images that the accuracy benchmark trains on and tests on, and where their files lie.

They are no part of the repository: DATA is a folder with one folder a set, in it pairs of ``NAME_image.EXT`` and
``NAME_labels.EXT``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from scripts.files.readers import read_volume
from scripts.files.writers import write_instances
from scripts.transforms.sampling import kept_count


class Pair(NamedTuple):
    """An image and its complete labels."""

    image: Path
    labels: Path


@dataclass(frozen=True)
class BenchmarkSet:
    """Which files to train on and which to test on.

    Attributes:
        folder: of the set in DATA.
        train, test: what stands before ``_image.EXT``, as a pattern.
        spatial_dims: 2 or 3.
        boundaries: None where objects lie on background, whose voxels have the label 0; else every voxel belongs to
            an object and dark or bright membranes part them.
    """

    folder: str
    train: str
    test: str
    spatial_dims: int = 3
    boundaries: Literal["bright", "dark"] | None = None


SETS = {
    "nuclei3d": BenchmarkSet("nuclei3d", "1135", "1136"),
    "nuclei3d_back": BenchmarkSet("nuclei3d", "1136", "1135"),
    "membranes3d": BenchmarkSet("membranes3d", "lower", "upper", boundaries="bright"),
    "membranes3d_back": BenchmarkSet("membranes3d", "upper", "lower", boundaries="bright"),
    "neurites3d": BenchmarkSet("neurites3d", "train", "test", boundaries="dark"),
    "nuclei2d": BenchmarkSet("nuclei2d", "train/*", "test/*", spatial_dims=2),
}


def find_pairs(data: Path, folder: str, pattern: str) -> list[Pair]:
    """The pairs whose names match, sorted.

    Raises:
        FileNotFoundError: no image, or one without labels.
    """
    images = sorted((data / folder).glob(f"{pattern}_image.*"))
    if not images:
        raise FileNotFoundError(f"{data / folder}: found no {pattern}_image.*, expected the images of the set.")
    pairs = [Pair(image, image.with_name(image.name.replace("_image.", "_labels."))) for image in images]
    for pair in pairs:
        if not pair.labels.is_file():
            raise FileNotFoundError(f"{pair.labels}: no such file, expected the labels of {pair.image.name}.")
    return pairs


def count_objects(pairs: list[Pair], fraction: float) -> tuple[int, int]:
    """How many objects are annotated when each image keeps this share of its own, and how many there are."""
    objects = [int(np.count_nonzero(np.unique(read_volume(pair.labels).array))) for pair in pairs]
    return sum(kept_count(count, fraction) for count in objects), sum(objects)


def paint_background(pairs: list[Pair], folder: Path) -> tuple[list[Pair], int]:
    """Write label maps in which the voxels of no object have an id of their own, the same in all; also return it."""
    labels = [read_volume(pair.labels).array for pair in pairs]
    background = 1 + max(int(array.max()) for array in labels)
    folder.mkdir(parents=True)
    painted = [Pair(pair.image, folder / pair.labels.name) for pair in pairs]
    for array, pair, target in zip(labels, pairs, painted, strict=True):
        write_instances(np.where(array == 0, background, array), pair.labels, target.labels)
    return painted, background
