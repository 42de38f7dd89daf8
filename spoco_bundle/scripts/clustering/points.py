"""Clustering of points: the foreground's embeddings one a row, a sample of them, and the way back into the image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..arrays import Labels, Mask
from ..geometry.distances import squared_distances

SAMPLE = 10_000  # points that HDBSCAN and mean shift look at together; the rest is assigned to the clusters they find
PORTION = 2**24  # distances computed at once


def nearest(points: Tensor, centers: Tensor) -> Tensor:
    """Index of the nearest centre of each point: (N, E), (K, E) -> (N,)."""
    return torch.cat([squared_distances(centers, part.T).argmin(0) for part in portions(points, centers)])


def portions(points: Tensor, centers: Tensor) -> tuple[Tensor, ...]:
    """The points, (N, E), in parts whose distances to the centres, (K, E), fit into memory."""
    return points.split(max(1, PORTION // len(centers)))


def foreground_points(embeddings: Tensor, foreground: Mask) -> Tensor:
    """The embeddings of the foreground, one a row: (E, *spatial) -> (N, E)."""
    return embeddings[:, torch.from_numpy(foreground).to(embeddings.device)].T.contiguous()


def sample_of(points: Tensor) -> Tensor:
    """At most `SAMPLE` points, the same ones at every call."""
    if len(points) <= SAMPLE:
        return points
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    return points[order[:SAMPLE].to(points.device)]


def fill(foreground: Mask, clusters: Tensor) -> Labels:
    """Write cluster 0, 1, ... of each foreground voxel into an image as 1, 2, ..."""
    result = np.zeros(foreground.shape, np.int32)
    result[foreground] = clusters.cpu().numpy() + 1
    return result
