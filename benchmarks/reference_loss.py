"""The SPOCO loss as one would write it down: object by object, anchor by anchor, every soft mask kept for autograd.

Slow and hungry on purpose: `benchmarks/loss.py` measures the bundle's loss against it. All terms of
`scripts.losses.spoco_terms`, for an image without background and ignore labels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def reference_terms(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    anchors: Tensor,
    delta_var: float = 0.5,
    delta_dist: float = 2.0,
    kernel_threshold: float = 0.5,
) -> dict[str, Tensor]:
    """(E, *spatial), (E, *spatial), (*spatial), (A, ndim) -> 0-d tensors by the names of `spoco_terms`."""
    two_sigma = delta_var**2 / -math.log(kernel_threshold)

    def soft_mask(embeddings: Tensor, center: Tensor) -> Tensor:
        return torch.exp(-((embeddings.movedim(0, -1) - center) ** 2).sum(-1) / two_sigma)

    ids = [label for label in labels.unique().tolist() if label != 0]
    means = [student[:, labels == label].mean(1) for label in ids]
    unlabeled = labels == 0
    pull, push, soft_masks, masks = [], [], [], []
    for label, mean in zip(ids, means, strict=True):
        distance = (student.movedim(0, -1) - mean).norm(dim=-1)
        pull.append((distance[labels == label] - delta_var).clamp_min(0).square().mean())
        push.append((delta_dist - distance[unlabeled]).clamp_min(0).square().mean())
        soft_masks.append(soft_mask(student, mean))
        masks.append((labels == label).to(student.dtype))
    repulsion = [
        (2 * delta_dist - (first - second).norm()).clamp_min(0).square()
        for i, first in enumerate(means)
        for j, second in enumerate(means)
        if i != j
    ]
    soft, true = torch.stack(soft_masks), torch.stack(masks)
    around = [soft_mask(student, student[(slice(None), *anchor)]) for anchor in anchors.tolist()]
    target = [soft_mask(teacher, teacher[(slice(None), *anchor)]) for anchor in anchors.tolist()]
    one, other = torch.stack(around), torch.stack(target)
    in_slice = [0, *range(2, one.dim())]
    area = one.square().sum(in_slice) + other.square().sum(in_slice)
    disagreement = 1 - 2 * (one * other).sum(in_slice) / area.clamp_min(0.01)
    return {
        "variance": torch.stack(pull).mean(),
        "distance": torch.stack(repulsion).mean() if repulsion else student.new_zeros(()),
        "regularizer": torch.stack([mean.norm() for mean in (*means, student[:, unlabeled].mean(1))]).mean(),
        "unlabeled_push": torch.stack(push).mean(),
        "instance": 1 - 2 * (soft * true).sum() / (soft.square().sum() + true.square().sum()),
        "consistency": torch.where(area > 0.01, disagreement, 0).mean(),  # of slices that anchors reach
    }
