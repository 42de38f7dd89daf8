"""HDBSCAN of a sample of the embeddings."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import HDBSCAN
from torch import Tensor

from ..arrays import Labels, Mask
from .points import fill, foreground_points, nearest, sample_of


def hdbscan_clusters(embeddings: Tensor, foreground: Mask, min_size: int) -> Labels:
    """HDBSCAN of a random sample; every voxel then joins the cluster with the nearest mean."""
    points = foreground_points(embeddings, foreground)
    sample = sample_of(points)
    smallest = max(5, round(min_size * len(sample) / len(points)))
    if len(sample) <= smallest:
        return foreground.astype(np.int32)
    found = HDBSCAN(min_cluster_size=smallest, min_samples=5, allow_single_cluster=True, copy=True).fit(
        sample.cpu().numpy()
    )
    clusters = torch.from_numpy(found.labels_).to(points.device)  # -1 is noise
    if clusters.max() < 0:
        return foreground.astype(np.int32)
    means = torch.stack([sample[clusters == k].mean(0) for k in range(int(clusters.max()) + 1)])
    return fill(foreground, nearest(points, means))
