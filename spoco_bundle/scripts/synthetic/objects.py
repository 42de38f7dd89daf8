"""Where the objects of a synthetic image lie, which voxels each of them owns, and where there is no tissue."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..arrays import Floats, Labels
from ..geometry.balls import ball_volume
from .smoothing import smooth_noise, voxel_steps
from .styles import Form


def place_objects(
    rng: Generator,
    shape: tuple[int, ...],
    diameter: float,
    anisotropy: float,
    form: Form,
    spacing: float,
    coverage: float,
    reach: float,
    clumping: float = 0.0,
) -> Labels:
    """Scatter objects and share out the voxels among them.

    Args:
        rng: is drawn from.
        shape: (Z, Y, X) or (Y, X), in voxels.
        diameter: average diameter along y and x, in voxels.
        anisotropy: z voxel size divided by (y, x) voxel size.
        form: what the objects look like.
        spacing: least distance of two centres, in sums of their radii; below 1 objects touch.
        coverage: how many objects are tried for, as the share of the space that balls of this diameter would fill.
        reach: how far an object may extend where no other is near, in its own radii.
        clumping: share of the objects, 0 to 1, that lie right beside another one.

    Returns:
        0 where no object is within reach, else the number of the one that owns the voxel; one may own several pieces.
    """
    steps = voxel_steps(len(shape), anisotropy)
    extent = steps * np.array(shape, np.float32)
    radius = diameter / 2
    centres, radii = _scatter(rng, extent, radius, form.size_variation, spacing, coverage, clumping)
    metrics = _ellipsoids(rng, radii, len(shape), form)
    warp = [smooth_noise(rng, shape, 0.5 * diameter, anisotropy) for _ in shape]
    return _partition(form.irregularity * radius * np.stack(warp), centres, metrics, steps, reach)


def cells_outside_gaps(
    rng: Generator, owner: Labels, diameter: float, anisotropy: float, gaps: float
) -> NDArray[np.bool_]:
    """Return where tissue is: gaps take whole cells, so that their outline is that of cells.

    Args:
        rng, diameter, anisotropy: see `place_objects`.
        owner: what `place_objects` gives.
        gaps: share of the volume without cells, about.
    """
    if gaps == 0:
        return np.ones(owner.shape, bool)
    field = smooth_noise(rng, owner.shape, 1.5 * diameter, anisotropy)
    solid = np.bincount(owner.ravel(), weights=(field > np.quantile(field, gaps)).ravel())
    kept = solid >= 0.5 * np.bincount(owner.ravel())
    kept[0] = True  # voxels out of every cell's reach are flooded later
    return kept[owner]


def _scatter(
    rng: Generator,
    extent: Floats,
    radius: float,
    size_variation: float,
    spacing: float,
    coverage: float,
    clumping: float,
) -> tuple[Floats, Floats]:
    """Scatter centres, also beyond the border, that keep `spacing` times the sum of their radii apart."""
    ndim = len(extent)
    margin = 1.5 * radius
    wanted = max(1, round(coverage * float(np.prod(extent + 2 * margin)) / ball_volume(radius, ndim)))
    attempts = 6 * wanted
    radii = (radius * np.exp(size_variation * rng.standard_normal(attempts).clip(-2, 2))).astype(np.float32)
    proposals = rng.uniform(-margin, extent + margin, (attempts, ndim)).astype(np.float32)
    directions = rng.standard_normal((attempts, ndim)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    beside = rng.random(attempts) < clumping
    centres = np.empty((wanted, ndim), np.float32)
    kept = np.empty(wanted, np.float32)
    count = 0
    for proposal, direction, size, join in zip(proposals, directions, radii, beside, strict=True):
        if join and count:
            partner = rng.integers(count)
            proposal = centres[partner] + direction * 1.02 * spacing * (size + kept[partner])
        gap = centres[:count] - proposal
        if ((gap**2).sum(1) < (spacing * (kept[:count] + size)) ** 2).any():
            continue
        centres[count], kept[count] = proposal, size
        count += 1
        if count == wanted:
            break
    return centres[:count], kept[:count]


def _ellipsoids(rng: Generator, radii: Floats, ndim: int, form: Form) -> Floats:
    """Return for each object the matrix that maps its ellipsoid, as large as its ball, to the unit ball."""
    stretch = rng.uniform(-0.5, 0.5, (len(radii), ndim)) * np.log(form.elongation)
    stretch -= stretch.mean(axis=1, keepdims=True)
    rotations = np.linalg.qr(rng.standard_normal((len(radii), ndim, ndim)))[0]
    if form.aligned:
        stretch.sort(axis=1)
        rotations[:] = rotations[:1]
    axes = radii[:, None] * np.exp(stretch)
    return (np.swapaxes(rotations, 1, 2) / axes[:, :, None]).astype(np.float32)


def _partition(warp: Floats, centres: Floats, metrics: Floats, steps: Floats, reach: float) -> Labels:
    """Give each voxel, displaced by `warp`, to the object whose own metric finds it nearest.

    Returns 1..N, and 0 where no object is within `reach` of its own radius.
    """
    shape = warp.shape[1:]
    axes = [np.arange(size, dtype=np.float32) * step for size, step in zip(shape, steps, strict=True)]
    positions = warp + np.stack(np.meshgrid(*axes, indexing="ij"))
    half_boxes = reach * np.linalg.norm(np.linalg.inv(metrics), axis=2) + np.abs(warp).max()
    nearest = np.full(shape, reach**2, np.float32)
    owner = np.zeros(shape, np.int32)
    for index, (centre, metric, half) in enumerate(zip(centres, metrics, half_boxes, strict=True), start=1):
        low = np.maximum((centre - half) // steps, 0).astype(int)
        high = np.minimum((centre + half) // steps + 2, shape).astype(int)
        if (low >= high).any():
            continue
        box = tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))
        inside = positions[(slice(None), *box)]
        offsets = metric @ inside.reshape(len(shape), -1) - (metric @ centre)[:, None]  # (ndim, voxels)
        distance = np.einsum("dv,dv->v", offsets, offsets).reshape(inside.shape[1:])
        closer = distance < nearest[box]
        np.copyto(nearest[box], distance, where=closer)
        np.copyto(owner[box], index, where=closer)
    return owner
