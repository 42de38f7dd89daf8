"""Synthetic objects are as large and as near to each other as asked for."""

from __future__ import annotations

import cc3d
import numpy as np
import pytest

from scripts.synthetic.images import synthetic_nuclei
from scripts.synthetic.styles import NucleusStyle


def touching_share(labels: np.ndarray) -> float:
    """Return the share of the objects that share a voxel face with another one."""
    touching: set[int] = set()
    for axis in range(labels.ndim):
        lower = np.moveaxis(labels, axis, 0)[:-1]
        upper = np.moveaxis(labels, axis, 0)[1:]
        faces = (lower != upper) & (lower > 0) & (upper > 0)
        touching.update(lower[faces].tolist(), upper[faces].tolist())
    return len(touching) / labels.max()


def mean_height_and_width(labels: np.ndarray) -> tuple[float, float]:
    """Return the mean extent along z and along x, in voxels, of objects that the border does not cut."""
    heights, widths = [], []
    for box in cc3d.statistics(labels.astype(np.uint32))["bounding_boxes"][1:]:
        cut = any(s.start == 0 or s.stop == size for s, size in zip(box, labels.shape, strict=True))
        if not cut:
            heights.append(box[0].stop - box[0].start)
            widths.append(box[2].stop - box[2].start)
    return float(np.mean(heights)), float(np.mean(widths))


@pytest.mark.parametrize("shape", [(32, 64, 64), (192, 192)])
def test_density_crowds_nuclei(shape: tuple[int, ...]) -> None:
    truths = [synthetic_nuclei(shape, 12.0, density=density, seed=1)[1] for density in (0.0, 0.4, 1.0)]
    shares = [touching_share(labels) for labels in truths]
    covered = [(labels > 0).mean() for labels in truths]
    assert shares[0] < shares[1] < shares[2]
    assert shares[0] < 0.2
    assert shares[2] > 0.8
    assert covered[0] < covered[1] < covered[2]


def test_diameter_and_anisotropy_set_the_size_of_nuclei() -> None:
    round_style = NucleusStyle(elongation=1.0, size_variation=0.0, irregularity=0.0)
    cubic = synthetic_nuclei((48, 96, 96), 14.0, 1.0, 0.2, seed=0, style=round_style)[1]
    flat = synthetic_nuclei((24, 96, 96), 14.0, 2.0, 0.2, seed=0, style=round_style)[1]
    height, width = mean_height_and_width(cubic)
    assert height == pytest.approx(14, abs=1.5)
    assert width == pytest.approx(14, abs=1.5)
    height, width = mean_height_and_width(flat)
    assert height == pytest.approx(7, abs=1)
    assert width == pytest.approx(14, abs=1.5)


def test_separation_keeps_nuclei_apart() -> None:
    labels = synthetic_nuclei((128, 128), density=1.0, style=NucleusStyle(separation=1.0))[1]
    assert touching_share(labels) == 0
