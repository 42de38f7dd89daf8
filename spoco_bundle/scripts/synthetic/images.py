"""Synthetic microscopy with complete truth: touching nuclei and membrane-bounded cells, in 3D and 2D.

Everything is drawn in physical space, whose unit is one (y, x) voxel; a z step is `anisotropy` units long.
The labels are made first and the image is rendered from them, so that the two can never disagree.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from skimage.segmentation import watershed

from ..arrays import Floats, Labels
from ..refusals import InputError
from ..transforms.contrast import LOWER, UPPER
from .labels import depth_in_objects, fewest_voxels, largest_pieces
from .objects import cells_outside_gaps, place_objects
from .optics import Optics, observe
from .painting import paint_nuclei, paint_tissue
from .ranges import check_ranges
from .settings import electron_optics, log_uniform, random_nuclei, random_optics, random_tissue
from .styles import NucleusStyle, TissueStyle

CountArray = NDArray[np.uint16]


def synthetic_nuclei(
    shape: tuple[int, ...],
    object_diameter: float = 16.0,
    anisotropy: float = 1.0,
    density: float = 0.5,
    seed: int = 0,
    style: NucleusStyle | None = None,
    optics: Optics | None = None,
) -> tuple[CountArray, Labels]:
    """Draw nuclei that touch along faces but never overlap.

    Args:
        shape: (Z, Y, X) or (Y, X), in voxels.
        object_diameter: average diameter along y and x, in voxels, at least 4.
        anisotropy: z voxel size divided by (y, x) voxel size; objects are flatter in z voxels by it.
        density: 0 (few, apart) to 1 (crowded, nearly all touch).
        seed: the same seed draws the same image.
        style: what nuclei look like.
        optics: what the microscope does to them.

    Returns:
        image: camera counts, offset 100, about 1000 more for the brightest nuclei.
        labels: 0 is background; 1..N are nuclei, each one connected component.

    Raises:
        ValueError: shape, diameter, anisotropy or density is outside its range.
    """
    _check_scene(shape, object_diameter, anisotropy)
    check_ranges({"density": density}, {"density": (0, 1)})
    style, optics = style or NucleusStyle(), optics or Optics()
    rng = np.random.default_rng(seed)
    spacing = max(0.65, 1.2 - 0.5 * density - 0.25 * style.clumping)  # below 1, neighbours touch
    coverage = 0.04 + 0.7 * density
    owner = place_objects(
        rng, shape, object_diameter, anisotropy, style, spacing, coverage, reach=1.0, clumping=style.clumping
    )
    smallest = fewest_voxels(len(shape), object_diameter, anisotropy)
    if style.separation > 0:
        owner[depth_in_objects(owner, anisotropy) <= style.separation] = 0
    labels = largest_pieces(owner, smallest)
    scene = paint_nuclei(rng, labels, object_diameter, anisotropy, style)
    return observe(rng, scene, optics, object_diameter, anisotropy), labels


def synthetic_membranes(
    shape: tuple[int, ...],
    cell_diameter: float = 16.0,
    anisotropy: float = 1.0,
    seed: int = 0,
    style: TissueStyle | None = None,
    optics: Optics | None = None,
) -> tuple[CountArray, Labels]:
    """Draw dense tissue: cells that share bright or dark membranes.

    Args:
        shape: (Z, Y, X) or (Y, X), in voxels.
        cell_diameter: average diameter along y and x, in voxels, at least 4.
        anisotropy: z voxel size divided by (y, x) voxel size; cells are flatter in z voxels by it.
        seed: the same seed draws the same image.
        style: what cells look like.
        optics: what the microscope does to them.

    Returns:
        image: camera counts, offset 100, about 1000 more for the brightest structures.
        labels: 1..N are cells up to the middle of their membranes, each one connected component; 0 is in gaps
            of the tissue only.

    Raises:
        ValueError: shape, diameter or anisotropy is outside its range.
    """
    _check_scene(shape, cell_diameter, anisotropy)
    style, optics = style or TissueStyle(), optics or Optics()
    rng = np.random.default_rng(seed)
    owner = place_objects(rng, shape, cell_diameter, anisotropy, style, spacing=0.75, coverage=1.2, reach=1.8)
    tissue = cells_outside_gaps(rng, owner, cell_diameter, anisotropy, style.gaps)
    pieces = largest_pieces(np.where(tissue, owner, 0), fewest_voxels(len(shape), cell_diameter, anisotropy))
    # Flooding, unlike the nearest label, hands chips to neighbours without ever cutting a cell in two.
    labels = watershed(np.zeros(shape, np.uint8), pieces, mask=tissue).astype(np.int32)
    scene = paint_tissue(rng, labels, cell_diameter, anisotropy, style)
    return observe(rng, scene, optics, cell_diameter, anisotropy), labels


def random_sample(shape: tuple[int, ...], seed: int) -> tuple[Floats, Labels]:
    """Draw nuclei (60 %) or cells (40 %) with settings over wide ranges, to pre-train a network.

    Args:
        shape: (Z, Y, X) or (Y, X), in voxels. Mean diameters are 10 to 28 voxels along y
            and x, and along z 0.65 to 1.5 times less.
        seed: the same seed draws the same sample.

    Returns:
        image: the range from the 1st to the 99.8th percentile is 0 to 1; clipped at 1.5.
        labels: as those of `synthetic_nuclei` and `synthetic_membranes`, with at least one object, unless
            ten draws found none because `shape` is too small.

    Raises:
        ValueError: shape is not (Z, Y, X) or (Y, X) with positive sizes.
    """
    _check_scene(shape, 10.0, 1.0)
    rng = np.random.default_rng(seed)
    for _ in range(10):  # a small patch of a sparse scene can miss all its objects
        image, labels = _random_scene(rng, shape)
        if labels.any():
            break
    return image, labels


def _random_scene(rng: Generator, shape: tuple[int, ...]) -> tuple[Floats, Labels]:
    diameter = log_uniform(rng, 10, 28)
    anisotropy = log_uniform(rng, 0.65, 1.5) if len(shape) == 3 else 1.0
    scene_seed = int(rng.integers(2**31))
    if rng.random() < 0.6:
        optics = random_optics(rng, diameter, anisotropy, fewest_photons=8)
        style = random_nuclei(rng, diameter)
        density = rng.uniform(0.15, 1)
        image, labels = synthetic_nuclei(shape, diameter, anisotropy, density, scene_seed, style, optics)
        gamma, inverted = log_uniform(rng, 0.6, 1.6), bool(rng.random() < 0.05)
    else:
        tissue = random_tissue(rng)
        optics = random_optics(rng, diameter, anisotropy, fewest_photons=30)
        if tissue.dark_membranes and rng.random() < 0.8:
            optics = electron_optics(rng, optics)
        image, labels = synthetic_membranes(shape, diameter, anisotropy, scene_seed, tissue, optics)
        gamma, inverted = log_uniform(rng, 0.5, 1.2 if tissue.dark_membranes else 1.6), False
    return _develop(image, gamma, inverted), labels


def _develop(image: CountArray, gamma: float, inverted: bool) -> Floats:
    """Scale the range from the 1st to the 99.8th percentile to 0..1 and apply the gamma curve."""
    low, high = np.percentile(image, [LOWER, UPPER])
    scaled = np.clip((image.astype(np.float32) - low) / max(high - low, 1.0), 0, 1.5) ** gamma
    return (1 - scaled if inverted else scaled).astype(np.float32)


def _check_scene(shape: tuple[int, ...], diameter: float, anisotropy: float) -> None:
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise InputError(f"shape must be (Z, Y, X) or (Y, X) with positive sizes, got {shape}.")
    values = {"diameter": diameter, "anisotropy": anisotropy}
    check_ranges(values, {"diameter": (4, 1e4), "anisotropy": (0.05, 50)})
