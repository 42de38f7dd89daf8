"""Synthetic images are bright and dark where the labels say."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.synthetic.images import synthetic_membranes, synthetic_nuclei
from scripts.synthetic.optics import Optics
from scripts.synthetic.painting import paint_nuclei
from scripts.synthetic.styles import NucleusStyle, TissueStyle

SHAPES = [(24, 48, 40), (96, 80)]
CLEAR = Optics(haze=0.0, unevenness=0.0, attenuation=0.0, photons=500.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_nuclei_are_brighter_than_background(shape: tuple[int, ...]) -> None:
    for seed in range(3):
        image, labels = synthetic_nuclei(shape, seed=seed)
        assert image[labels > 0].mean() > 1.3 * image[labels == 0].mean()


@pytest.mark.parametrize("dark", [False, True])
def test_membranes_lie_on_the_borders_of_cells(dark: bool) -> None:
    style = TissueStyle(dark_membranes=dark, membrane_unevenness=0.0, texture=0.0)
    image, labels = synthetic_membranes((96, 96), 20.0, style=style, optics=CLEAR)
    border = np.zeros(labels.shape, bool)
    border[:, 1:] = labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    on, off = image[border].mean(), image[~border].mean()
    assert on < 0.8 * off if dark else on > 1.25 * off


PLAIN = {"texture": 0.0, "cytoplasm": 0.0, "brightness_range": 1.0}


def painted(**style: float) -> tuple[np.ndarray, np.ndarray]:
    """Nuclei of brightness 1 on black, but for what the style adds; and their labels."""
    labels = synthetic_nuclei((24, 64, 64), 20.0, seed=0)[1]
    style = NucleusStyle(**{**PLAIN, "nucleoli": 0.0, **style})
    return paint_nuclei(np.random.default_rng(0), labels, 20.0, 1.0, style), labels


def test_nucleoli_are_dark_places_inside_nuclei() -> None:
    scene, labels = painted()
    assert scene[labels > 0].min() > 0.9
    scene, labels = painted(nucleoli=0.8)
    assert 0.01 < (scene[labels > 0] < 0.25).mean() < 0.2


def test_debris_is_bright_and_lies_between_nuclei() -> None:
    scene, labels = painted()
    assert scene[labels == 0].max() == 0
    scene, labels = painted(debris=2.0)
    assert 0.005 < (scene[labels == 0] > 1).mean() < 0.3
    assert scene[labels > 0].max() < 1.1
