"""Settings of synthetic images drawn over wide ranges, so that a network that is pre-trained on them has seen much."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator

from .optics import Optics
from .styles import NucleusStyle, TissueStyle


def random_nuclei(rng: Generator, diameter: float) -> NucleusStyle:
    """Draw what nuclei of this diameter, in voxels, look like."""
    brightness_range = rng.uniform(1.2, 5.0)
    return NucleusStyle(
        **_random_form(rng),
        elongation=rng.uniform(1.0, 2.2),
        clumping=rng.uniform(0, 1),
        separation=diameter * max(0.0, rng.uniform(-0.08, 0.06)),
        brightness_range=brightness_range,
        nucleoli=max(0.0, rng.uniform(-0.8, 0.9)),
        rim=max(-0.5, rng.uniform(-1.5, 0.8)),
        cytoplasm=max(0.0, rng.uniform(-0.5, 0.7)) / brightness_range**0.8,  # dim nuclei must not drown in it
        debris=max(0.0, rng.uniform(-2.0, 2.0)),
    )


def random_tissue(rng: Generator) -> TissueStyle:
    """Draw what membrane-bounded cells look like, among them neurites and cells in electron microscopy."""
    form = _random_form(rng)
    dark = bool(rng.random() < 0.5)
    if rng.random() < 0.5:  # neurites: thin beside thick, bent, long
        form["size_variation"], form["irregularity"] = rng.uniform(0.3, 0.45), rng.uniform(0.15, 0.4)
    return TissueStyle(
        **form,
        elongation=rng.uniform(1.0, 3.5),
        dark_membranes=dark,
        gaps=max(0.0, rng.uniform(-0.8, 0.5)),
        membrane_width=rng.uniform(0.7, 2.0),
        membrane_unevenness=rng.uniform(0, 0.6),
        interior=rng.uniform(0.0, 0.4),
        interior_range=rng.uniform(1.1, 2.5 if dark else 5.0),
        organelles=max(-0.9, rng.uniform(-1.5, 0.3)) if dark else max(0.0, rng.uniform(-1.0, 1.5)),
    )


def random_optics(rng: Generator, diameter: float, anisotropy: float, fewest_photons: float) -> Optics:
    """Draw a microscope that is poor, but not so poor for objects of this size that nobody could see them."""
    photons = log_uniform(rng, fewest_photons * max(1.0, 20 / diameter) ** 1.5, 400)
    return Optics(
        blur=rng.uniform(0.3, 0.08 * diameter),
        axial_blur=log_uniform(rng, 0.4, 0.2 * diameter / anisotropy),
        haze=rng.uniform(0, 0.4),
        background=log_uniform(rng, 0.01, 0.3),
        unevenness=rng.uniform(0, 0.6),
        attenuation=rng.uniform(0, 0.6),
        slice_jitter=max(0.0, rng.uniform(-0.1, 0.06)),
        photons=photons,
        read_noise=rng.uniform(0, 0.4) * np.sqrt(photons),
        sectioning=int(rng.choice([1, 1, 1, 1, 2, 2, 3])),
        noise_blur=max(0.0, rng.uniform(-0.8, 0.8)),
    )


def electron_optics(rng: Generator, optics: Optics) -> Optics:
    """Draw an electron microscope: sharp, and nothing is out of focus; the rest is as in `optics`."""
    optics = replace(optics, haze=0.0, attenuation=0.0, blur=rng.uniform(0.3, 1.0), sectioning=1)
    return replace(optics, axial_blur=optics.blur * rng.uniform(0.8, 2.0), background=0.05)


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniformly distributed."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _random_form(rng: Generator) -> dict[str, Any]:
    return {
        "size_variation": rng.uniform(0.05, 0.35),
        "irregularity": rng.uniform(0.03, 0.25),
        "texture": rng.uniform(0.0, 0.5),
        "texture_scale": rng.uniform(0.03, 0.2),
        "aligned": bool(rng.random() < 0.3),
    }
