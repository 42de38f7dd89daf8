"""Balls, in 2D discs: the shape that an object has as far as only its size is known."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Size = TypeVar("Size", float, NDArray[np.float64])


def ball_volume(radius: float, dims: int) -> float:
    """Volume of a ball, in 2D the area of a disc.

    >>> round(ball_volume(1.0, dims=3), 3)
    4.189
    """
    return math.pi ** (dims / 2) / math.gamma(dims / 2 + 1) * radius**dims


def ball_radius(volume: Size, dims: int) -> Size:
    """Radius of a ball with this volume, in 2D of a disc with this area.

    >>> ball_radius(ball_volume(7.0, dims=2), dims=2)
    7.0
    """
    return (volume / ball_volume(1.0, dims)) ** (1 / dims)
