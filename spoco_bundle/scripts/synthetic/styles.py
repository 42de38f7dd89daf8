"""What the objects of a synthetic image look like: settings, checked to be in their range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .ranges import check_ranges


@dataclass(frozen=True)
class Form:
    """What objects of either kind look like.

    Args:
        size_variation: standard deviation of the logarithm of the diameter.
        elongation: up to this ratio of longest to shortest axis, at least 1.
        aligned: all objects are long in the same direction.
        irregularity: how far outlines are displaced, in radii; above 0.4 shapes become torn.
        texture: standard deviation of the logarithm of the brightness inside an object.
        texture_scale: size of a grain of this texture, in object diameters.

    Raises:
        ValueError: a setting is outside its range.
    """

    size_variation: float = 0.15
    elongation: float = 1.5
    aligned: bool = False
    irregularity: float = 0.15
    texture: float = 0.25
    texture_scale: float = 0.1

    def __post_init__(self) -> None:
        check_ranges(vars(self), {"size_variation": (0, 1), "elongation": (1, 10), "irregularity": (0, 1)})


@dataclass(frozen=True)
class NucleusStyle(Form):
    """What nuclei look like, beside their form.

    Args:
        clumping: share of the nuclei, 0 to 1, that lie right beside another one.
        separation: width, in voxels, of what is shaved off each nucleus, so that neighbours stay apart.
        brightness_range: ratio of the brightest nucleus to the dimmest, at least 1.
        nucleoli: how dark nucleoli are, 0 (none) to 1 (black).
        rim: extra brightness of a nucleus' border; negative is a soft border.
        cytoplasm: brightness of the tissue between nuclei.
        debris: brightness of unlabelled streaks, sheets and specks.

    Raises:
        ValueError: a setting is outside its range.
    """

    clumping: float = 0.3
    separation: float = 0.0
    brightness_range: float = 4.0
    nucleoli: float = 0.3
    rim: float = 0.0
    cytoplasm: float = 0.05
    debris: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(vars(self), {"clumping": (0, 1), "nucleoli": (0, 1), "brightness_range": (1, np.inf)})
        check_ranges(vars(self), dict.fromkeys(("separation", "cytoplasm", "debris"), (0, np.inf)))
        check_ranges(vars(self), {"rim": (-1, np.inf)})


@dataclass(frozen=True)
class TissueStyle(Form):
    """What membrane-bounded cells look like, beside their form.

    Args:
        dark_membranes: dark membranes around bright cells (electron microscopy), else bright membranes.
        gaps: share of the volume, 0 to 0.9, without cells.
        membrane_width: half width of a membrane, in voxels.
        membrane_unevenness: standard deviation of the logarithm of a membrane's brightness along it.
        interior: brightness of cells between bright membranes.
        interior_range: ratio of the brightest cell interior to the dimmest, at least 1.
        organelles: change of brightness in blobs inside cells, -1 (black) to 2 (three times as bright).

    Raises:
        ValueError: a setting is outside its range.
    """

    dark_membranes: bool = False
    gaps: float = 0.0
    membrane_width: float = 1.0
    membrane_unevenness: float = 0.3
    interior: float = 0.15
    interior_range: float = 2.0
    organelles: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(vars(self), {"gaps": (0, 0.9), "interior_range": (1, np.inf), "organelles": (-1, 2)})
        check_ranges(vars(self), {"membrane_width": (0.1, np.inf), "interior": (0, np.inf)})
