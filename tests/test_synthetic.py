"""Synthetic microscopy: clean truth, deterministic images, settings that do what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cc3d
import numpy as np
import pytest

from scripts.synthetic import random_sample, synthetic_membranes, synthetic_nuclei
from scripts.synthetic_optics import Optics
from scripts.synthetic_styles import Form, NucleusStyle, TissueStyle

SHAPES = [(24, 48, 40), (96, 80)]
GENERATORS = [synthetic_nuclei, synthetic_membranes]
CLEAR = Optics(haze=0.0, unevenness=0.0, attenuation=0.0, photons=500.0)


def assert_clean(labels: np.ndarray, smallest: int) -> None:
    """Ids are 1..N, each one connected component of at least `smallest` voxels."""
    sizes = np.bincount(labels.ravel())[1:]
    assert labels.dtype == np.int32
    assert len(sizes) > 0
    assert sizes.min() >= smallest
    pieces = cc3d.connected_components(labels, connectivity=6 if labels.ndim == 3 else 4)
    assert pieces.max() == len(sizes)


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


@pytest.mark.parametrize("generate", GENERATORS)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_types_and_clean_truth(generate: Callable[..., Any], shape: tuple[int, ...]) -> None:
    for seed in range(4):
        image, labels = generate(shape, 12.0, seed=seed)
        assert image.shape == labels.shape == shape
        assert image.dtype == np.uint16
        assert image.max() < 65535
        assert_clean(labels, smallest=7)


@pytest.mark.parametrize("generate", GENERATORS)
@pytest.mark.parametrize("shape", SHAPES)
def test_same_seed_same_image(generate: Callable[..., Any], shape: tuple[int, ...]) -> None:
    image, labels = generate(shape, seed=3)
    again_image, again_labels = generate(shape, seed=3)
    _, other_labels = generate(shape, seed=4)
    np.testing.assert_array_equal(image, again_image)
    np.testing.assert_array_equal(labels, again_labels)
    assert (labels != other_labels).any()


@pytest.mark.parametrize("shape", [(32, 64, 64), (192, 192)])
def test_density_crowds_nuclei(shape: tuple[int, ...]) -> None:
    truths = [synthetic_nuclei(shape, 12.0, density=density, seed=1)[1] for density in (0.0, 0.4, 1.0)]
    shares = [touching_share(labels) for labels in truths]
    covered = [(labels > 0).mean() for labels in truths]
    assert shares[0] < shares[1] < shares[2]
    assert shares[0] < 0.2
    assert shares[2] > 0.8
    assert covered[0] < covered[1] < covered[2]


@pytest.mark.parametrize("shape", SHAPES)
def test_nuclei_are_brighter_than_background(shape: tuple[int, ...]) -> None:
    for seed in range(3):
        image, labels = synthetic_nuclei(shape, seed=seed)
        assert image[labels > 0].mean() > 1.3 * image[labels == 0].mean()


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


@pytest.mark.parametrize("generate", GENERATORS)
def test_a_single_slice_and_thin_stacks_work(generate: Callable[..., Any]) -> None:
    for depth in (1, 3):
        image, labels = generate((depth, 64, 64), 12.0, anisotropy=3.0)
        assert image.shape == (depth, 64, 64)
        assert_clean(labels, smallest=7)


def test_separation_keeps_nuclei_apart() -> None:
    labels = synthetic_nuclei((128, 128), density=1.0, style=NucleusStyle(separation=1.0))[1]
    assert touching_share(labels) == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_tissue_is_dense_except_in_gaps(shape: tuple[int, ...]) -> None:
    dense = synthetic_membranes(shape, 10.0, seed=2)[1]
    torn = synthetic_membranes(shape, 10.0, seed=2, style=TissueStyle(gaps=0.4))[1]
    assert (dense > 0).all()
    assert 0.1 < (torn == 0).mean() < 0.7
    assert_clean(torn, smallest=7)


@pytest.mark.parametrize("dark", [False, True])
def test_membranes_lie_on_the_borders_of_cells(dark: bool) -> None:
    style = TissueStyle(dark_membranes=dark, membrane_unevenness=0.0, texture=0.0)
    image, labels = synthetic_membranes((96, 96), 20.0, style=style, optics=CLEAR)
    border = np.zeros(labels.shape, bool)
    border[:, 1:] = labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    on, off = image[border].mean(), image[~border].mean()
    assert on < 0.8 * off if dark else on > 1.25 * off


def test_attenuation_dims_deep_slices() -> None:
    optics = Optics(attenuation=0.8, unevenness=0.0, background=0.0)
    image, labels = synthetic_nuclei((32, 64, 64), 10.0, density=1.0, optics=optics)
    light = image.astype(float) - 100  # the camera's offset
    assert light[-8:][labels[-8:] > 0].mean() < 0.6 * light[:8][labels[:8] > 0].mean()


@pytest.mark.parametrize("shape", [(32, 32, 32), (96, 96)])
def test_random_samples_never_fail(shape: tuple[int, ...]) -> None:
    dense = 0
    for seed in range(30):
        image, labels = random_sample(shape, seed)
        assert image.shape == labels.shape == shape
        assert image.dtype == np.float32
        assert np.isfinite(image).all()
        assert -0.5 <= image.min() < image.max() <= 2.1  # 1.5 to the power of the largest gamma
        assert_clean(labels, smallest=7)
        dense += int((labels > 0).mean() > 0.95)
    assert 3 <= dense <= 20  # some, but not all, are tissue without gaps


def test_random_samples_repeat_per_seed() -> None:
    first, again, other = (random_sample((32, 32, 32), seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (8,)}, r"got \(8,\)"),
        ({"shape": (8, 0, 8)}, r"got \(8, 0, 8\)"),
        ({"shape": (8, 8), "object_diameter": 2.0}, "diameter must be between 4 and .* got 2.0"),
        ({"shape": (8, 8), "anisotropy": 0.0}, "anisotropy must be between .* got 0.0"),
        ({"shape": (8, 8), "density": 1.5}, "density must be between 0 and 1, got 1.5"),
    ],
)
def test_wrong_scenes_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthetic_nuclei(**arguments)


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (Optics, {"haze": 1.5}),
        (Optics, {"photons": 0.0}),
        (Optics, {"blur": -1.0}),
        (Form, {"elongation": 0.5}),
        (NucleusStyle, {"clumping": 2.0}),
        (NucleusStyle, {"irregularity": float("nan")}),
        (TissueStyle, {"gaps": 1.0}),
        (TissueStyle, {"organelles": -2.0}),
    ],
)
def test_wrong_settings_are_refused(make: type, setting: dict[str, float]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=f"{name} must be between .* got {value}"):
        make(**setting)
