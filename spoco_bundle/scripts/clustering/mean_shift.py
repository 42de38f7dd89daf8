"""Mean shift with a flat kernel, of samples of the embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arrays import Labels, Mask
from ..geometry.distances import squared_distances
from .points import fill, foreground_points, nearest, portions, sample_of

# In delta_var: the loss wants objects 8 apart, so half of it lies between one and two objects. On nuclei in 2D and 3D,
# mean shift with modes 4 apart finds far more of them than with 2.
MERGE_DISTANCE = 4.0
SEEDS = 1_000  # points of a sample that mean shift starts from
MOST_STEPS = 50  # of a seed
ROUNDS = 10  # samples that mean shift draws from what it has not explained yet


def mean_shift_clusters(embeddings: Tensor, foreground: Mask, delta_var: float) -> Labels:
    """Flat-kernel mean shift of random samples; every voxel then joins the nearest mode."""
    points = foreground_points(embeddings, foreground)
    return fill(foreground, nearest(points, mean_shift_modes(points, delta_var)))


def mean_shift_modes(points: Tensor, radius: float) -> Tensor:
    """Modes of the density of points with a flat kernel: (N, E) -> (K, E), more than `MERGE_DISTANCE` radii apart.

    Samples are drawn again among the points that no mode explains, so that small clusters are found as well.
    """
    modes, unexplained = points[:0], points
    for _ in range(ROUNDS):
        sample = sample_of(unexplained).double()  # in float32 the number of threads would show in the result
        seeds = sample[:: max(1, len(sample) // SEEDS)]
        found = _densest(_climb(seeds, sample, radius), sample, radius).to(points.dtype)
        if len(modes):
            found = found[_gaps(found, modes) > MERGE_DISTANCE * radius]
        if not len(found):
            break
        modes = torch.cat([modes, found])
        unexplained = unexplained[_gaps(unexplained, found) > MERGE_DISTANCE * radius]
        if not len(unexplained):
            break
    return modes


def _climb(seeds: Tensor, points: Tensor, radius: float) -> Tensor:
    """Move each seed, (S, E), to the mean of the points near it until it moves no more."""
    centers, moving = seeds.clone(), torch.arange(len(seeds), device=seeds.device)
    for _ in range(MOST_STEPS):
        near = (squared_distances(centers[moving], points.T) <= radius**2).to(points.dtype)  # (S, N)
        moved = near @ points / near.sum(1, keepdim=True).clamp_min(1)
        step = (moved - centers[moving]).norm(dim=1)
        centers[moving] = moved
        moving = moving[step > 1e-3 * radius]
        if not len(moving):
            break
    return centers


def _densest(centers: Tensor, points: Tensor, radius: float) -> Tensor:
    """Of centres within `MERGE_DISTANCE` radii of each other keep the one with most points near it."""
    density = (squared_distances(centers, points.T) <= radius**2).sum(1)
    centers = centers[density.argsort(descending=True, stable=True)]
    close = (torch.cdist(centers, centers) <= MERGE_DISTANCE * radius).cpu()
    kept = torch.ones(len(centers), dtype=torch.bool)
    for index in range(len(centers)):
        if kept[index]:
            kept[index + 1 :] &= ~close[index, index + 1 :]
    return centers[kept.to(centers.device)]


def _gaps(points: Tensor, centers: Tensor) -> Tensor:
    """Distance of each point to the nearest centre: (N, E), (K, E) -> (N,)."""
    squared = [squared_distances(centers, part.T).amin(0) for part in portions(points, centers)]
    return torch.cat(squared).clamp_min(0).sqrt()
