"""How bright each voxel of a synthetic scene is, before a microscope sees it: bright objects are about 1."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from ..arrays import Floats, Labels
from .labels import depth_in_objects
from .smoothing import smooth_noise
from .styles import NucleusStyle, TissueStyle


def paint_nuclei(rng: Generator, labels: Labels, diameter: float, anisotropy: float, style: NucleusStyle) -> Floats:
    """Paint nuclei, what is inside them and what lies between them."""

    def noise(scale: float) -> Floats:
        return smooth_noise(rng, labels.shape, max(0.7, scale * diameter), anisotropy)

    depth = depth_in_objects(labels, anisotropy)
    brightness = _brightness(rng, labels.max(), style.brightness_range)
    scene = brightness[labels] * np.exp(style.texture * noise(style.texture_scale))
    if style.nucleoli > 0:
        scene[(noise(0.12) > 1.3) & (depth > 0.12 * diameter)] *= 1 - style.nucleoli
    if style.rim != 0:
        scene *= 1 + style.rim * np.exp(-((depth / (0.1 * diameter)) ** 2))
    empty = labels == 0
    if style.cytoplasm > 0:
        tissue = 1 / (1 + np.exp(-3 * noise(1.0)))
        scene += empty * style.cytoplasm * tissue * np.exp(style.texture * noise(style.texture_scale))
    if style.debris > 0:
        # The zero level of smooth noise is a curved sheet (a line in 2D); a second noise keeps a few patches.
        sheets = np.exp(-((noise(1.0) * diameter / 2) ** 2)) * (noise(1.0) > 1.2)
        scene += empty * style.debris * np.maximum(sheets, noise(0.08) > 3.3)
    return scene


def paint_tissue(rng: Generator, labels: Labels, diameter: float, anisotropy: float, style: TissueStyle) -> Floats:
    """Paint cells, their organelles and the membranes on the borders between them."""

    def noise(scale: float) -> Floats:
        return smooth_noise(rng, labels.shape, max(0.7, scale * diameter), anisotropy)

    depth = depth_in_objects(labels, anisotropy)
    membrane = np.exp(-((depth / style.membrane_width) ** 2))
    inside = _brightness(rng, labels.max(), style.interior_range)[labels]
    inside *= np.exp(style.texture * noise(style.texture_scale))
    if style.organelles != 0:
        inside *= 1 + style.organelles * np.clip(4 * (noise(0.25) - 1.2), 0, 1) * (depth > 2)
    unevenness = np.exp(style.membrane_unevenness * noise(0.5))
    if style.dark_membranes:
        return inside * (1 - membrane * np.minimum(unevenness, 1))
    return membrane * unevenness + style.interior * inside


def _brightness(rng: Generator, count: int, ratio: float) -> Floats:
    """Draw one brightness per label, at most 1 and at least 1 / ratio; background has 0."""
    brightness = np.exp(-rng.uniform(0, np.log(ratio), count + 1)).astype(np.float32)
    brightness[0] = 0
    return brightness
