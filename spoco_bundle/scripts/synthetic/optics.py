"""What a microscope makes of a clean synthetic scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..arrays import Floats
from .ranges import check_ranges
from .smoothing import blur, smooth_noise, voxel_steps

CountArray = NDArray[np.uint16]


@dataclass(frozen=True)
class Optics:
    """How a microscope turns a clean scene, whose bright objects are about 1, into camera counts.

    Args:
        blur: standard deviation of the point-spread function along y and x, in voxels.
        axial_blur: the same along z, in voxels; unused in 2D.
        haze: share of the light, 0 to 1, that arrives out of focus as a wide glow.
        background: brightness of empty space, in units of a bright object.
        unevenness: how much illumination and background vary over the field of view, 0 to 1.
        attenuation: share of the light, 0 to 0.99, that the deepest slice loses; unused in 2D.
        slice_jitter: standard deviation of the relative brightness of one z slice; unused in 2D.
        photons: expected number of photons from one voxel of brightness 1; fewer is noisier.
        read_noise: standard deviation of the camera's Gaussian noise, in photons.
        sectioning: only each n-th slice is recorded and those between are interpolated; unused in 2D.
        noise_blur: standard deviation, in voxels, of a smoothing after the noise, as resampling leaves it.

    Raises:
        ValueError: a setting is outside its range.
    """

    blur: float = 0.8
    axial_blur: float = 1.6
    haze: float = 0.15
    background: float = 0.06
    unevenness: float = 0.3
    attenuation: float = 0.2
    slice_jitter: float = 0.0
    photons: float = 60.0
    read_noise: float = 1.0
    sectioning: int = 1
    noise_blur: float = 0.0

    def __post_init__(self) -> None:
        positive = ("blur", "axial_blur", "background", "slice_jitter", "read_noise", "noise_blur")
        check_ranges(vars(self), dict.fromkeys(positive, (0, np.inf)))
        check_ranges(vars(self), {"haze": (0, 1), "unevenness": (0, 1), "attenuation": (0, 0.99)})
        check_ranges(vars(self), {"photons": (0.01, 1e6), "sectioning": (1, np.inf)})


def observe(rng: Generator, scene: Floats, optics: Optics, diameter: float, anisotropy: float) -> CountArray:
    """Image the scene: illumination, blur, haze, attenuation, photon and camera noise."""
    shape, ndim = scene.shape, scene.ndim
    wide = float(max(shape)) / 2
    light = np.exp(optics.unevenness * 0.5 * smooth_noise(rng, shape, wide, anisotropy))
    sharp = blur(scene, [optics.axial_blur, optics.blur, optics.blur][-ndim:])
    glow = blur(scene, list(1.0 * diameter / voxel_steps(ndim, anisotropy)))
    floor = optics.background * np.exp(optics.unevenness * smooth_noise(rng, shape, 2 * diameter, anisotropy))
    image = light * ((1 - optics.haze) * sharp + optics.haze * glow + floor)
    if ndim == 3:
        decay = np.linspace(0, np.log(1 - min(optics.attenuation, 0.99)), shape[0])
        jitter = optics.slice_jitter * rng.standard_normal(shape[0])
        image *= np.exp(decay + jitter).astype(np.float32)[:, None, None]
    counts = rng.poisson(optics.photons * image).astype(np.float32)
    counts += optics.read_noise * rng.standard_normal(shape, dtype=np.float32)
    if ndim == 3 and optics.sectioning > 1:
        counts = _resection(counts, optics.sectioning)
    if optics.noise_blur > 0:
        counts = blur(counts, [optics.noise_blur] * ndim)
    # 100 is a usual camera offset; 1000 levels for brightness 1 leave room for the brightest voxels.
    return np.clip(np.rint(100 + 1000 / optics.photons * counts), 0, 65535).astype(np.uint16)


def _resection(image: Floats, step: int) -> Floats:
    """Keep each `step`-th slice and interpolate those between, as resampling to cubic voxels does."""
    size = image.shape[0]
    knots = np.arange(0, size, step)
    matrix = np.clip(1 - np.abs(np.arange(size)[:, None] - knots[None, :]) / step, 0, None)
    matrix /= matrix.sum(axis=1, keepdims=True)  # slices past the last recorded one repeat it
    return np.tensordot(matrix.astype(np.float32), image[knots], 1)
