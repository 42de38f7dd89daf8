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

from .triton_support import runs_triton

CANDIDATES = 1024  # the share left uncovered is then known to about 1 %


def draw_anchors(
    embeddings: Tensor,
    unlabeled: Tensor,
    delta_var: float,
    count: int = 20,
    stop_share: float = 0.05,
    candidates: int = CANDIDATES,
) -> tuple[Tensor, Tensor]:
    """Draw anchors that cover the unlabelled region's embeddings (Section 3.3 of the paper), for each image.

    Args:
        embeddings: (B, E, N), without gradient.
        unlabeled: (B, N) bool, the pool.
        delta_var: an anchor covers the voxels within this embedding distance.
        count: the most to draw.
        stop_share: stop when less than this share of the N voxels is left in the pool.
        candidates: size of the random subset that is walked through.

    Returns:
        indices into N, (B, count) int64, and which of them were drawn, (B, count) bool: the first ones.
    """
    images, _, voxels = embeddings.shape
    order = torch.rand(images, voxels, device=unlabeled.device).masked_fill_(~unlabeled, 2)  # the pool comes first
    walk = order.topk(min(candidates, voxels), largest=False).indices  # (B, M)
    uncovered = unlabeled.gather(1, walk)
    enough = stop_share * voxels * uncovered.sum(1) / unlabeled.sum(1).clamp_min(1)
    if runs_triton(embeddings):
        from .triton_anchors import walk_on_gpu  # needs Triton, which not every computer has

        anchors, left = walk_on_gpu(embeddings, walk, uncovered, delta_var, count)
    else:
        anchors, left = walk_through(embeddings, walk, uncovered, delta_var, count)
    drawn = (left > 0) & (left >= enough[:, None])
    return anchors, drawn


def walk_through(
    embeddings: Tensor, walk: Tensor, uncovered: Tensor, delta_var: float, count: int
) -> tuple[Tensor, Tensor]:
    """Take the first voxel of a walk that no earlier one covers, `count` times.

    Args:
        embeddings: (B, E, N).
        walk: (B, M) indices into N. uncovered: (B, M) bool, which of them are in the pool.
        delta_var, count: see `draw_anchors`.

    Returns:
        indices into N, (B, count), and how many of the walk were uncovered before each, (B, count); where none was,
        the index is the walk's first.
    """
    dim = embeddings.shape[1]
    walked = embeddings.gather(2, walk[:, None].expand(-1, dim, -1)).mT.contiguous()  # (B, M, E)
    chosen, pools = [], []
    for _ in range(count):
        pools.append(uncovered)
        first = uncovered.view(torch.uint8).argmax(1, keepdim=True)  # of the walk, that is not covered
        chosen.append(first)
        anchor = walked.gather(1, first[:, :, None].expand(-1, -1, dim))  # (B, 1, E)
        distance = torch.cdist(anchor, walked, compute_mode="donot_use_mm_for_euclid_dist")[:, 0]
        uncovered = uncovered & (distance > delta_var)
    return walk.gather(1, torch.cat(chosen, 1)), torch.stack(pools, 1).sum(2)
