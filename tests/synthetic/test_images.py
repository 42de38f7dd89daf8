"""Synthetic microscopy: clean truth and deterministic images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cc3d
import numpy as np
import pytest

from scripts.synthetic.images import random_sample, synthetic_membranes, synthetic_nuclei
from scripts.synthetic.styles import TissueStyle

SHAPES = [(24, 48, 40), (96, 80)]
GENERATORS = [synthetic_nuclei, synthetic_membranes]


def assert_clean(labels: np.ndarray, smallest: int) -> None:
    """Ids are 1..N, each one connected component of at least `smallest` voxels."""
    sizes = np.bincount(labels.ravel())[1:]
    assert labels.dtype == np.int32
    assert len(sizes) > 0
    assert sizes.min() >= smallest
    pieces = cc3d.connected_components(labels, connectivity=6 if labels.ndim == 3 else 4)
    assert pieces.max() == len(sizes)


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


@pytest.mark.parametrize("generate", GENERATORS)
def test_a_single_slice_and_thin_stacks_work(generate: Callable[..., Any]) -> None:
    for depth in (1, 3):
        image, labels = generate((depth, 64, 64), 12.0, anisotropy=3.0)
        assert image.shape == (depth, 64, 64)
        assert_clean(labels, smallest=7)


@pytest.mark.parametrize("shape", SHAPES)
def test_tissue_is_dense_except_in_gaps(shape: tuple[int, ...]) -> None:
    dense = synthetic_membranes(shape, 10.0, seed=2)[1]
    torn = synthetic_membranes(shape, 10.0, seed=2, style=TissueStyle(gaps=0.4))[1]
    assert (dense > 0).all()
    assert 0.1 < (torn == 0).mean() < 0.7
    assert_clean(torn, smallest=7)


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
