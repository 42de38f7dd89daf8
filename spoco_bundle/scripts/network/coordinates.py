"""Where a voxel is: added to its embedding, or shown to the network.

Two look-alike neighbours can only be told apart by where they are. `add_positions` starts every embedding at its
voxel's position, so that the network has to learn displacements, and the loss draws the voxels of one object
together: a displacement towards the object's middle depends on appearance alone, is the same everywhere in the
volume, and is learned from few objects. After Neven et al., "Instance Segmentation by Jointly Optimizing Spatial
Embeddings and Clustering Bandwidth", CVPR 2019.

`AddCoordinatesd` shows sinusoidal coordinates to the network as further input channels, after Kulikov and Lempitsky,
"Instance Segmentation of Biological Images Using Harmonic Embeddings", CVPR 2020. Both are computed for the whole
volume and not for each window, so that overlapping windows agree.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from ..refusals import InputError


def add_positions(embeddings: Tensor, scale: float) -> Tensor:
    """Add each voxel's position to the embedding dimensions 1, 2, ..., one for each axis.

    Dimension 0 stays free: it is the foreground axis (see `foreground`).

    Args:
        embeddings: (B, E, *spatial) with E > number of axes.
        scale: embedding distance between two direct neighbours; 0 adds nothing. Objects of 16 voxels with a
            scale of 0.25 lie 4 apart, the distance at which the loss (delta_dist 2) is content.

    Returns:
        (B, E, *spatial), at least in single precision; positions count from the middle of the volume.
    """
    if not scale:
        return embeddings
    return add_positions_(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32), copy=True), scale)


def add_positions_(embeddings: Tensor, scale: float) -> Tensor:
    """`add_positions` in place, for embeddings of a whole volume: a copy would double the memory they need."""
    if not scale:
        return embeddings
    axes = embeddings.dim() - 2
    if embeddings.shape[1] <= axes:
        raise InputError(f"embedding_dim must exceed the {axes} axes to hold positions, got {embeddings.shape[1]}")
    for axis, length in enumerate(embeddings.shape[2:]):
        along = (torch.arange(length, device=embeddings.device, dtype=torch.float32) - (length - 1) / 2) * scale
        embeddings.select(1, 1 + axis).add_(along.view(-1, *[1] * (axes - 1 - axis)))
    return embeddings


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
        self.period, self.random_offset = period or 0.0, random_offset

    def draw_offset(self, axes: int) -> list[float]:
        """One offset per axis, in voxels."""
        return [self.R.uniform(0, self.period) for _ in range(axes)]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        if not self.period:
            return result
        shape = result[self.keys[0]].shape[1:]
        offset = self.draw_offset(len(shape)) if self.random_offset else [0.0] * len(shape)
        channels = coordinate_channels(shape, self.period, offset)
        for key in self.key_iterator(result):
            image = result[key]
            joined = torch.cat([torch.as_tensor(image), channels])
            result[key] = (
                MetaTensor(joined, meta=image.meta, applied_operations=image.applied_operations)
                if isinstance(image, MetaTensor)
                else joined
            )
        return result


def input_channels(image_channels: int, spatial_dims: int, period: float | None) -> int:
    """Number of channels the network sees: the image's, and two per axis where coordinates are on."""
    return image_channels + (2 * spatial_dims if period else 0)
