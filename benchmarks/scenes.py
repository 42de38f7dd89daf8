"""Images of several kinds of objects, with complete truth, that no weights of the bundle were trained on.

Simpler than `scripts.synthetic`, which made the images for the shipped weights, and on purpose without any part of it:
ellipsoids and Voronoi cells, painted, blurred, unevenly lit, with noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from scipy.spatial import cKDTree
from skimage.segmentation import find_boundaries

Floats = NDArray[np.float64]
Labels = NDArray[np.int32]
Blur = float | tuple[float, ...]  # of a Gaussian, in voxels, along all axes or each

TRIES = 30  # at placing an object
SMALLEST = 20  # voxels of an object
WHOLE = 15  # percentile of the sizes: those below are mostly slivers at the border, which nobody annotates


@dataclass(frozen=True)
class Ellipsoids:
    """Objects on background.

    Attributes:
        shape: of the image.
        count: of objects.
        radii: smallest and largest, in units of `voxel_size`.
        voxel_size: along each axis.
        elongation: how much longer or shorter than its radius a semi-axis may be, before the volume is set.
    """

    shape: tuple[int, ...]
    count: int
    radii: tuple[float, float]
    voxel_size: tuple[float, ...]
    elongation: float = 1.4

    def place(self, random: Generator) -> Labels:
        """Place one after the other at random; where two overlap, a voxel is of the one whose middle is nearer."""
        labels, depth = np.zeros(self.shape, np.int32), np.full(self.shape, np.inf, np.float32)
        placed: list[tuple[Floats, float]] = []
        for _ in range(TRIES * self.count):
            if len(placed) == self.count:
                break
            radius = random.uniform(*self.radii)
            axes = radius * random.uniform(1 / self.elongation, self.elongation, len(self.shape))
            axes *= radius / np.prod(axes) ** (1 / len(axes))
            sides = np.multiply(self.shape, self.voxel_size)
            center = np.array([random.uniform(0, side) for side in sides])
            if any(np.linalg.norm(center - other) < 0.85 * (radius + its_radius) for other, its_radius in placed):
                continue  # they may touch and overlap a little
            box, distance = self._distance(center, axes, random)
            inside = (distance < 1) & (distance < depth[box])
            if inside.sum() < SMALLEST:
                continue
            placed.append((center, radius))
            labels[box][inside], depth[box][inside] = len(placed), distance[inside]
        return labels

    def _distance(self, center: Floats, axes: Floats, random: Generator) -> tuple[tuple[slice, ...], Floats]:
        """A box around the ellipsoid, turned at random, and each of its voxels' distance, 1 at the surface."""
        turn, _ = np.linalg.qr(random.normal(size=(len(axes), len(axes))))
        reach = max(axes)
        grid = list(zip(center, self.voxel_size, self.shape, strict=True))
        box = tuple(
            slice(max(0, int((at - reach - 1) / step)), min(size, int((at + reach + 2) / step) + 1))
            for at, step, size in grid
        )
        along = [np.arange(side.start, side.stop) * step - at for side, (at, step, _) in zip(box, grid, strict=True)]
        offset = np.stack(np.meshgrid(*along, indexing="ij"), -1) @ turn
        return box, np.sqrt(np.square(offset / axes).sum(-1))


def touching_cells(
    shape: tuple[int, ...], count: int, voxel_size: tuple[float, ...], random: Generator
) -> tuple[Labels, Floats]:
    """Voronoi cells that fill the image, with wavy faces: labels, and distance from the face as that to two centres."""
    centers = np.array(
        [[random.uniform(0, n * step) for n, step in zip(shape, voxel_size, strict=True)] for _ in range(count)]
    )
    along = [np.arange(n) * step for n, step in zip(shape, voxel_size, strict=True)]
    voxels = np.stack(np.meshgrid(*along, indexing="ij"), -1).reshape(-1, len(shape))
    waves = [25 * gaussian_filter(random.normal(size=shape), 6).ravel() for _ in shape]
    distances, nearest = cKDTree(centers).query(voxels + np.stack(waves, -1), k=2)
    return (
        (nearest[:, 0] + 1).reshape(shape).astype(np.int32),
        (distances[:, 1] - distances[:, 0]).reshape(shape),
    )


def joined(rare: Labels, common: Labels) -> Labels:
    """Objects of both kinds, the rare ones first; a common one that meets a rare one is left out."""
    free = np.isin(common, np.unique(common[rare > 0]), invert=True)
    numbered = np.unique(np.where(free, common, 0), return_inverse=True)[1].reshape(common.shape)
    return np.where(numbered > 0, numbered + rare.max(), rare).astype(np.int32)


def paint(labels: Labels, darkest: float, brightest: float, background: float, random: Generator) -> Floats:
    """Each object in a brightness of its own."""
    brightness = random.uniform(darkest, brightest, labels.max() + 1)
    brightness[0] = background
    return brightness[labels]


def observe(image: Floats, blur: Blur, noise: float, random: Generator) -> NDArray[np.uint16]:
    """Blur, uneven light and noise."""
    image = gaussian_filter(image.astype(np.float32), blur)
    light = zoom(random.normal(size=(3,) * image.ndim), [n / 3 for n in image.shape], order=1)
    image = image * (1 + 0.3 * light / np.abs(light).max()) + noise * random.normal(size=image.shape)
    return np.clip(image * 20_000, 0, 65_535).astype(np.uint16)


@dataclass(frozen=True)
class Scene:
    """An image and its truth; the voxel size is in micrometres, and the first `rare` ids are objects of a rare kind."""

    image: NDArray[np.uint16]
    labels: Labels
    voxel_size: tuple[float, ...]
    rare: int = 0

    def write(self, dataset: Path, annotated: int | None = None) -> None:
        """Write it as a dataset of one image; with `annotated`, only so many objects keep their labels."""
        labels = self.labels.astype(np.uint16)
        if annotated is not None:
            sizes, ids = np.bincount(labels.ravel()), np.unique(labels[labels != 0])
            whole = [id_ for id_ in ids if sizes[id_] > np.percentile(sizes[ids], WHOLE)]
            labels[~np.isin(labels, np.random.default_rng(5).choice(whole, annotated, replace=False))] = 0
        for folder, array in (("images", self.image), ("labels", labels)):
            (dataset / folder).mkdir(parents=True)
            z, *yx = self.voxel_size if array.ndim == 3 else (1.0, *self.voxel_size)
            tifffile.imwrite(
                dataset / folder / "generated.tif",
                array,
                imagej=True,
                metadata={"axes": "ZYX"[-array.ndim :], "spacing": z, "unit": "um"},
                resolution=(1 / yx[1], 1 / yx[0]),
            )


def of_many_sizes(random: Generator) -> Scene:
    """Nuclei in 3D whose radii differ by 3, with slices twice as thick as a pixel is wide."""
    objects = Ellipsoids((48, 160, 160), 220, (4, 13), (2, 1, 1))
    labels = objects.place(random)
    painted = paint(labels, 0.5, 1.2, 0.15, random)
    texture = 1 + 0.75 * gaussian_filter(random.normal(size=labels.shape), 1.5)
    return Scene(observe(painted * texture, (0.6, 1.2, 1.2), 0.08, random), labels, objects.voxel_size)


def of_dense_tissue(random: Generator) -> Scene:
    """Cells in 3D that fill the volume, with bright membranes, and slices twice as thick as a pixel is wide."""
    voxel_size = (2, 1, 1)
    labels, to_face = touching_cells((48, 160, 160), 260, voxel_size, random)
    membranes = np.exp(-np.square(to_face / 2))
    return Scene(observe(0.2 + membranes, (0.5, 0.8, 0.8), 0.12, random), labels, voxel_size)


def of_dark_objects(random: Generator) -> Scene:
    """Objects in 3D that are darker than the background."""
    objects = Ellipsoids((80, 128, 128), 250, (6, 9), (1, 1, 1))
    labels = objects.place(random)
    return Scene(observe(paint(labels, 0.1, 0.5, 1, random), 1.0, 0.1, random), labels, objects.voxel_size)


def of_hollow_objects(random: Generator) -> Scene:
    """Cells in 3D of which only the membrane is stained, hardly brighter inside than outside."""
    objects = Ellipsoids((80, 128, 128), 220, (7, 10), (1, 1, 1))
    labels = objects.place(random)
    rim = find_boundaries(labels) & (labels > 0)
    return Scene(observe(0.25 + 0.9 * rim + 0.05 * (labels > 0), 0.8, 0.08, random), labels, objects.voxel_size)


def of_rods(random: Generator) -> Scene:
    """Small rods in 2D."""
    objects = Ellipsoids((400, 400), 260, (6, 9), (1, 1), elongation=2.2)
    labels = objects.place(random)
    return Scene(observe(paint(labels, 0.6, 1.1, 0.2, random), 1.0, 0.06, random), labels, objects.voxel_size)


def of_faint_objects(random: Generator) -> Scene:
    """Textured nuclei in 2D, some of them hardly brighter than the noise."""
    objects = Ellipsoids((512, 512), 300, (7, 16), (1, 1), elongation=1.5)
    labels = objects.place(random)
    texture = 1 + 3.2 * gaussian_filter(random.normal(size=labels.shape), 2)
    painted = paint(labels, 0.2, 1, 0, random)
    return Scene(observe(0.5 + painted * texture, 0.8, 0.15, random), labels, objects.voxel_size)


SCENES: dict[str, Callable[[Generator], Scene]] = {
    "many sizes": of_many_sizes,
    "dense tissue": of_dense_tissue,
    "dark": of_dark_objects,
    "hollow": of_hollow_objects,
    "rods": of_rods,
    "faint": of_faint_objects,
}


def granular_among_filled(
    granular: Ellipsoids, filled: Ellipsoids, grain: Blur, blur: Blur, random: Generator
) -> Scene:
    """Large cells of which only granules are stained, each as wide as `grain`, rare among filled nuclei."""
    rare = granular.place(random)
    labels = joined(rare, filled.place(random))
    granules = gaussian_filter(random.normal(size=labels.shape), grain)
    stained = np.where(granules > np.quantile(granules, 0.75), 0.9, 0.2)
    painted = np.where(rare > 0, stained, paint(labels, 0.6, 1.1, 0.15, random))
    return Scene(observe(painted, blur, 0.06, random), labels, filled.voxel_size, int(rare.max()))


def of_rare_granular_cells(random: Generator) -> Scene:
    """In 2D one object of eleven is granular."""
    shape, voxel_size = (400, 400), (1, 1)
    granular, filled = Ellipsoids(shape, 18, (13, 17), voxel_size), Ellipsoids(shape, 220, (6, 9), voxel_size)
    return granular_among_filled(granular, filled, 2, 0.9, random)


def of_rare_granular_cells_3d(random: Generator) -> Scene:
    """In 3D, with slices twice as thick as a pixel is wide, one object of nineteen is granular."""
    shape, voxel_size = (48, 144, 144), (2, 1, 1)
    granular, filled = Ellipsoids(shape, 12, (9, 12), voxel_size), Ellipsoids(shape, 240, (5, 7), voxel_size)
    return granular_among_filled(granular, filled, (1, 2, 2), (0.6, 1, 1), random)


RARE_KINDS: dict[str, Callable[[Generator], Scene]] = {
    "granular2d": of_rare_granular_cells,
    "granular3d": of_rare_granular_cells_3d,
}
