"""A small sample with known truth: crowded, touching nuclei, of which only a few are annotated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from scripts.synthetic.images import synthetic_nuclei
from scripts.synthetic.optics import Optics
from scripts.synthetic.styles import NucleusStyle

SHAPE = (40, 128, 128)  # z, y, x: some 300 nuclei, and still segmented in well under a minute on two cores
VOXEL_SIZE = (0.5, 0.25, 0.25)  # micrometres; z is coarser, as in nearly every microscope
DIAMETER = 17.0  # y, x voxels, so 4.25 micrometres; 8.5 voxels along z
DENSITY = 0.7  # nearly every nucleus touches another one: the case that thresholding cannot solve
ANNOTATED_FRACTION = 0.2
TRAIN_SEED, TEST_SEED, CHOICE_SEED = 1, 2, 0
STYLE = NucleusStyle(clumping=0.5, brightness_range=3.0)
OPTICS = Optics(blur=0.9, axial_blur=1.2, photons=80.0)  # neighbours run together, grain is visible


@dataclass(frozen=True)
class SampleCount:
    """How many objects of the training volume are annotated, and how many there are."""

    annotated: int
    total: int


def make_sample(train_dir: Path, test_dir: Path) -> SampleCount:
    """Write one volume to annotate and train on, and one with complete truth that training never sees.

    Args:
        train_dir, test_dir: get the folders `images` and `labels`, one OME-TIFF in each.
    """
    image, truth = draw(TRAIN_SEED)
    annotation = annotate(truth, ANNOTATED_FRACTION, CHOICE_SEED)
    write_pair(train_dir, "nuclei_train", image, annotation)
    write_pair(test_dir, "nuclei_test", *draw(TEST_SEED))
    return SampleCount(_count(annotation), _count(truth))


def draw(seed: int) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """One volume and its complete truth."""
    anisotropy = VOXEL_SIZE[0] / VOXEL_SIZE[-1]
    return synthetic_nuclei(SHAPE, DIAMETER, anisotropy, DENSITY, seed, STYLE, OPTICS)


def annotate(truth: NDArray[np.integer], fraction: float, seed: int) -> NDArray[np.integer]:
    """Keep at most this share of the objects, chosen at random, and at least one; 0 means "nobody looked".

    >>> annotate(np.arange(11), fraction=0.2, seed=0).nonzero()[0].size
    2
    """
    ids = np.setdiff1d(truth, [0])
    chosen = np.random.default_rng(seed).permutation(ids)[: max(1, int(fraction * len(ids)))]
    return np.where(np.isin(truth, chosen), truth, 0)


def write_pair(folder: Path, name: str, image: NDArray[np.uint16], labels: NDArray[np.integer]) -> None:
    """Write `folder/images/NAME.ome.tif` and `folder/labels/NAME.ome.tif` with the sample's voxel size."""
    sizes = dict(zip("ZYX", VOXEL_SIZE, strict=True))
    metadata = {
        "axes": "ZYX",
        **{f"PhysicalSize{axis}": size for axis, size in sizes.items()},
        **{f"PhysicalSize{axis}Unit": "µm" for axis in sizes},
    }
    for kind, array in (("images", image), ("labels", labels)):
        path = folder / kind / f"{name}.ome.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, array.astype(np.uint16), metadata=metadata, compression="zlib")


def _count(labels: NDArray[np.integer]) -> int:
    return len(np.setdiff1d(labels, [0]))
