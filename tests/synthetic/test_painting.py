"""Synthetic images are bright and dark where the labels say."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.synthetic.images import synthetic_membranes, synthetic_nuclei
from scripts.synthetic.optics import Optics
from scripts.synthetic.styles import TissueStyle

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
