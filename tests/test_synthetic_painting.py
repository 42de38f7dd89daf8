"""Synthetic images are bright and dark where the labels say."""

from __future__ import annotations

import cc3d
import numpy as np
import pytest

from scripts.synthetic import synthetic_membranes, synthetic_nuclei
from scripts.synthetic_optics import Optics
from scripts.synthetic_styles import TissueStyle

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


def test_organelles_are_dark_blobs_of_their_size_inside_cells() -> None:
    largest = []
    for size in (0.08, 0.5):
        style = TissueStyle(dark_membranes=True, texture=0.0, interior_range=1.0, organelles=-0.9, organelle_size=size)
        image, labels = synthetic_membranes((240, 240), 60.0, style=style, optics=CLEAR)
        deep = np.ones(labels.shape, bool)  # at least 6 voxels from any border
        for axis, step in [(axis, step) for axis in (0, 1) for step in range(-6, 7)]:
            deep &= np.roll(labels, step, axis) == labels
        dark = deep & (image < 0.4 * np.median(image))
        blobs = cc3d.statistics(cc3d.connected_components(dark.astype(np.uint8)))["voxel_counts"][1:]
        assert 0.01 < dark[deep].mean() < 0.4
        largest.append(blobs.max())
    assert largest[1] > 4 * largest[0]
