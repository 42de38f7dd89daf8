"""Sinusoidal coordinates as further input channels, so that two look-alike neighbours can be told apart.

After Kulikov and Lempitsky, "Instance Segmentation of Biological Images Using Harmonic Embeddings", CVPR 2020.
They are added to the whole volume before it is cut into windows, so that overlapping windows agree.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from torch import Tensor


def coordinate_channels(shape: Sequence[int], period: float, offset: Sequence[float]) -> Tensor:
    """Sine and cosine of 2 pi (x + offset) / period along each axis: (2 * ndim, *shape) float32.

    >>> coordinate_channels((4,), period=4, offset=(0,)).round().tolist()
    [[0.0, 1.0, 0.0, -1.0], [1.0, 0.0, -1.0, -0.0]]
    """
    channels = []
    for axis, (size, start) in enumerate(zip(shape, offset, strict=True)):
        phase = 2 * math.pi * (torch.arange(size, dtype=torch.float64) + start) / period
        along = [-1 if other == axis else 1 for other in range(len(shape))]
        channels += [wave.float().view(along).expand(*shape) for wave in (phase.sin(), phase.cos())]
    return torch.stack(channels)


class AddCoordinatesd(Randomizable, MapTransform):
    """Append sinusoidal coordinate channels to images, the same ones to every key.

    Args:
        keys: images (C, *spatial), all of one spatial shape.
        period: length of one wave in voxels: longer than an object, so that neighbours differ. None or 0 adds
            nothing.
        random_offset: shift the waves at random, in training, so that the network learns differences of position
            and not places in the volume.
    """

    def __init__(self, keys: KeysCollection, period: float | None, random_offset: bool = False) -> None:
        super().__init__(keys)
        self.period, self.random_offset = period, random_offset

    def randomize(self, data: Any) -> list[float]:
        """Draw one offset per axis, in voxels."""
        return [self.R.uniform(0, self.period) for _ in data]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        if not self.period:
            return result
        shape = result[self.keys[0]].shape[1:]
        offset = self.randomize(shape) if self.random_offset else [0.0] * len(shape)
        channels = coordinate_channels(shape, self.period, offset)
        for key in self.key_iterator(result):
            image = result[key]
            joined = torch.cat([torch.as_tensor(np.asarray(image)), channels])
            result[key] = (
                MetaTensor(joined, meta=image.meta, applied_operations=image.applied_operations)
                if isinstance(image, MetaTensor)
                else joined
            )
        return result


def input_channels(image_channels: int, spatial_dims: int, period: float | None) -> int:
    """Number of channels the network sees: the image's, and two per axis where coordinates are on."""
    return image_channels + (2 * spatial_dims if period else 0)
