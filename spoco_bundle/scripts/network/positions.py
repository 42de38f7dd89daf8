"""Where a voxel is, added to its embedding.

Two look-alike neighbours can only be told apart by where they are. `add_positions` starts every embedding at its
voxel's position, so that the network has to learn displacements, and the loss draws the voxels of one object
together: a displacement towards the object's middle depends on appearance alone, is the same everywhere in the
volume, and is learned from few objects. After Neven et al., "Instance Segmentation by Jointly Optimizing Spatial
Embeddings and Clustering Bandwidth", CVPR 2019.

Positions are those in the whole volume and not in a window, so that overlapping windows agree.
"""

from __future__ import annotations

import torch
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
    """`add_positions` in place, for embeddings of a whole volume: a copy would double the memory they need.

    Those in half precision, which is too coarse for positions, are copied all the same.
    """
    if not scale:
        return embeddings
    embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    axes = embeddings.dim() - 2
    if embeddings.shape[1] <= axes:
        raise InputError(f"embedding_dim must exceed the {axes} axes to hold positions, got {embeddings.shape[1]}")
    for axis, length in enumerate(embeddings.shape[2:]):
        along = (torch.arange(length, device=embeddings.device, dtype=torch.float32) - (length - 1) / 2) * scale
        embeddings.select(1, 1 + axis).add_(along.view(-1, *[1] * (axes - 1 - axis)))
    return embeddings
