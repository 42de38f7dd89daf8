"""Sliding windows over one network, or over student and teacher together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

from .checkpoints import load_weights
from .coordinates import add_positions


class EmbeddingInferer(SlidingWindowInferer):
    """MONAI's sliding window; with a teacher, its embeddings follow the student's as further channels.

    Args:
        roi_size: window, divisible by the network's strides; less along axes on which the image is smaller, because
            padding would change what the network's normalization sees.
        divisor: what the window must stay divisible by, see `networks.size_divisor`; 1 along each axis by default.
        overlap: share of a window that its neighbour repeats, in [0, 1).
        position_scale: see `coordinates.add_positions`; positions are those in the whole image.
        teacher: the momentum network, for consistency clustering.
        teacher_path: its weights, read when first used.
        others: see `SlidingWindowInferer`.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        overlap: float = 0.25,
        divisor: Sequence[int] | None = None,
        position_scale: float = 0.0,
        teacher: nn.Module | None = None,
        teacher_path: str | None = None,
        **others: Any,
    ) -> None:
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap must lie in [0, 1), got {overlap}")
        super().__init__(roi_size=roi_size, overlap=overlap, **others)
        self.largest_roi, self.divisor = list(roi_size), list(divisor or [1] * len(roi_size))
        self.position_scale, self.teacher, self.teacher_path = position_scale, teacher, teacher_path

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """(B, C, *spatial) -> (B, E, *spatial), or (B, 2 E, *spatial) with a teacher."""
        self.roi_size = [
            min(size, max(step, n // step * step))
            for size, step, n in zip(self.largest_roi, self.divisor, inputs.shape[2:], strict=True)
        ]
        student = add_positions(super().__call__(inputs, network, *args, **kwargs), self.position_scale)
        if self.teacher is None:
            return student
        if self.teacher_path is not None:
            load_weights(self.teacher, Path(self.teacher_path))
            self.teacher_path = None
        teacher = super().__call__(inputs, self.teacher.to(inputs.device).eval(), *args, **kwargs)
        return torch.cat([student, add_positions(teacher, self.position_scale)], dim=1)
