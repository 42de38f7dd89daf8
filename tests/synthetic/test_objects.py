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


def directions(labels: np.ndarray) -> np.ndarray:
    """Return the unit vectors along which the objects are longest, (N, ndim)."""
    found = []
    for number in range(1, labels.max() + 1):
        places = np.argwhere(labels == number)
        if len(places) > 30:
            found.append(np.linalg.eigh(np.cov(places.T))[1][:, -1])
    return np.array(found)


def test_aligned_nuclei_are_long_in_one_direction() -> None:
    parallel = []
    for aligned in (False, True):
        style = NucleusStyle(elongation=3.0, irregularity=0.0, aligned=aligned)
        found = directions(synthetic_nuclei((256, 256), 16.0, density=0.1, seed=0, style=style)[1])
        parallel.append(np.abs(found @ found.T).mean())
    assert parallel[1] > parallel[0] + 0.15


def test_irregular_nuclei_are_less_round() -> None:
    outside = []
    for irregularity in (0.0, 0.3):
        style = NucleusStyle(elongation=1.0, size_variation=0.0, irregularity=irregularity)
        labels = synthetic_nuclei((256, 256), 20.0, density=0.1, seed=0, style=style)[1]
        distances = [
            np.linalg.norm(places - places.mean(0), axis=1) / np.sqrt(len(places) / np.pi)
            for places in (np.argwhere(labels == number) for number in range(1, labels.max() + 1))
        ]
        outside.append(np.mean([(distance > 1.05).mean() for distance in distances]))
    assert outside[1] > 2 * outside[0]


def test_clumping_lays_nuclei_side_by_side() -> None:
    apart, side_by_side = (
        touching_share(synthetic_nuclei((256, 256), density=0.3, seed=0, style=NucleusStyle(clumping=clumping))[1])
        for clumping in (0.0, 1.0)
    )
    assert side_by_side > apart + 0.2
