"""Anchors in the unlabelled region: where the consistency term compares the two networks.

SPOCO draws one unlabelled voxel after another at random, and removes the voxels within `delta_var` of it in
embedding space from the pool, until enough anchors are drawn or little is left. Walking through the pool in one
random order and skipping what is already covered is the same draw, so a random subset of the pool in random
order suffices: the walk never touches all voxels again. Two things are approximate: what is left of the pool is
estimated on the subset, and a subset can be used up before its pool is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .pairwise import squared_distances

CANDIDATES = 1024  # the share left uncovered is then known to about 1 %


def draw_anchors(
    embeddings: Tensor,
    unlabeled: Tensor,
    delta_var: float,
    count: int = 20,
    stop_share: float = 0.05,
    candidates: int = CANDIDATES,
) -> Tensor:
    """Draw anchors that cover the unlabelled region's embeddings (Section 3.3 of the paper).

    Args:
        embeddings: (E, N), without gradient.
        unlabeled: (N,) bool, the pool.
        delta_var: an anchor covers the voxels within this embedding distance.
        count: draw at most so many.
        stop_share: stop when less than this share of the N voxels is left in the pool.
        candidates: size of the random subset that is walked through.

    Returns:
        indices into N, (A,) int64 with A <= count.
    """
    pool = unlabeled.nonzero()[:, 0]
    walk = pool[torch.randperm(len(pool), device=pool.device)[:candidates]]  # (M,)
    if len(walk) == 0:
        return walk
    near = squared_distances(embeddings[:, walk].T, embeddings[:, walk]) <= delta_var**2  # (M, M)
    near.fill_diagonal_(True)
    uncovered = torch.ones_like(walk, dtype=torch.bool)
    voxels_per_candidate = len(pool) / len(walk)
    enough_left = stop_share * embeddings.shape[1] / voxels_per_candidate
    chosen, valid = [], []
    for _ in range(min(count, len(walk))):  # no value is read back, so that a GPU does not wait
        anchor = uncovered.int().argmax()  # the first of the walk that is not covered
        chosen.append(anchor)
        valid.append(uncovered.any() & (uncovered.sum() >= enough_left))
        uncovered &= ~near[anchor]
    return walk[torch.stack(chosen)[torch.stack(valid)]]
