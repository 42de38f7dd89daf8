"""Gaussian smoothing in 3D and 2D: of white noise, which makes smooth noise, and of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..arrays import Floats


def voxel_steps(ndim: int, anisotropy: float) -> Floats:
    """Return the physical size of a voxel along each axis, whose unit is one (y, x) voxel."""
    return np.array([anisotropy, 1.0, 1.0][-ndim:], np.float32)


def smooth_noise(rng: Generator, shape: tuple[int, ...], scale: float, anisotropy: float = 1.0) -> Floats:
    """Draw smooth noise of mean 0 and variance 1 that varies over `scale` physical units."""
    matrices = []
    for size, step in zip(shape, voxel_steps(len(shape), anisotropy), strict=True):
        knots = np.arange(-2 * scale, size * step + 3 * scale, scale)
        matrix = _kernel(np.arange(size) * step, knots, 0.8 * scale)
        matrices.append(matrix / np.linalg.norm(matrix, axis=1, keepdims=True))
    white = rng.standard_normal([matrix.shape[1] for matrix in matrices], dtype=np.float32)
    return _separable(white, matrices)


def blur(image: Floats, sigmas: list[float]) -> Floats:
    """Blur with a Gaussian; at the border its weights are normalised to what lies inside."""
    matrices = []
    for size, sigma in zip(image.shape, sigmas, strict=True):
        positions = np.arange(size)
        matrix = _kernel(positions, positions, max(sigma, 1e-2))
        matrices.append(matrix / matrix.sum(axis=1, keepdims=True))
    return _separable(image, matrices)


def _separable(field: Floats, matrices: list[Floats]) -> Floats:
    """Multiply each axis by its matrix; a full matrix per axis is faster here than a sliding filter."""
    for matrix in matrices:
        field = np.tensordot(field, matrix, axes=(0, 1))  # takes the first axis away, appends it last
    return field


def _kernel(positions: NDArray[Any], knots: NDArray[Any], sigma: float) -> Floats:
    weights = np.exp(-0.5 * ((positions[:, None] - knots[None, :]) / sigma) ** 2)
    weights[weights < 1e-6] = 0  # denormal numbers would slow the product down several times
    return weights.astype(np.float32)
