"""Sliding windows over one network, or over student and teacher together."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.inferers import SlidingWindowInferer
from monai.utils import convert_to_dst_type
from torch import Tensor, nn
from torch.nn.functional import pad

from ..refusals import InputError
from .checkpoints import load_weights
from .device_memory import is_out_of_memory
from .features import UnsupportedLayer, image_features
from .flips import mean_over_flips
from .group_norm import ExactGroupNorm
from .positions import add_positions_

logger = logging.getLogger(__name__)

Network = Callable[..., Tensor | Sequence[Tensor] | dict[Any, Tensor]]  # as to MONAI; here it returns one tensor

SMALLEST_WINDOW = 2**18  # voxels: what too small a GPU is asked for at last
# share of an automatic window in which a CPU computes one layer after the other: what is larger than about 32 MB is
# mapped by malloc each time anew, which takes as long as to compute it
CPU_SHARE = 1 / 32
# times as many voxels as a window may have: an image of up to so many needs no more memory with all of its convolutions
# kept than one that is seen at once
KEPT_WINDOWS = 2


class EmbeddingInferer(SlidingWindowInferer):
    """MONAI's sliding window; with a teacher, its embeddings follow the student's as further channels.

    An image that fits into one window is seen at once. Of a larger one, a network with GroupNorm computes one layer
    after the other in windows, so that its embeddings are those of the image seen at once (see `features`); any other
    network sees one window after the other, and their embeddings are blended. Where the memory of a GPU is too small,
    the embeddings are put together in the host's, and automatic windows become smaller.

    Args:
        roi_size: largest window, along each axis or along all of them, divisible by the network's strides; 0: as large
            as `window_voxels` allows.
        divisor: those strides, see `dynunet.size_divisor`; 1 along each axis of `roi_size` by default. An image of
            which no such multiple makes one window is continued by its outermost voxels.
        overlap: share of a window that its neighbour repeats where they are blended, in [0, 1).
        window_voxels: how many voxels a window may have where `roi_size` is 0, and an image that is seen at once.
        position_scale: see `positions.add_positions`; positions are those in the whole image.
        flipped_axes: spatial axes over whose mirror images embeddings are averaged, see `flips`.
        teacher: the momentum network, for consistency clustering.
        teacher_path: its weights, read when first used.
        others: see `SlidingWindowInferer`.

    Raises:
        ValueError: windows that do not exist, or that the network cannot take.
    """

    roi_size: list[int]  # of the newest image
    overlap: float

    def __init__(
        self,
        roi_size: Sequence[int] | float,
        overlap: float = 0.25,
        divisor: Sequence[int] | None = None,
        window_voxels: int = 2**23,
        position_scale: float = 0.0,
        flipped_axes: Sequence[int] = (),
        teacher: nn.Module | None = None,
        teacher_path: str | None = None,
        **others: Any,
    ) -> None:
        if isinstance(roi_size, float | np.integer) and float(roi_size).is_integer():
            roi_size = int(roi_size)  # some user interfaces send a float
        if not divisor:
            if not isinstance(roi_size, Sequence):
                raise InputError(f"divisor must be given where roi_size is one number, got roi_size {roi_size}")
            divisor = [1] * len(roi_size)
        self.divisor = list(divisor)
        largest_roi = [0] * len(divisor) if roi_size == 0 else _checked_windows(roi_size, divisor)
        if not isinstance(overlap, int | float) or not 0 <= overlap < 1:
            raise InputError(f"overlap must be a number in [0, 1), got {overlap!r}")
        super().__init__(roi_size=largest_roi, overlap=overlap, **others)
        self.largest_roi = None if roi_size == 0 else largest_roi
        self.window_voxels = window_voxels
        self.position_scale, self.flipped_axes = position_scale, flipped_axes
        self.teacher, self.teacher_path = teacher, teacher_path

    def __call__(self, inputs: Tensor, network: Network, *args: Any, **kwargs: Any) -> Tensor:
        """(B, C, *spatial) -> (B, E, *spatial), or (B, 2 E, *spatial) with a teacher."""
        student = self._embed(inputs, network, *args, **kwargs)
        if self.teacher is None:
            return student
        if self.teacher_path is not None:
            expected = "the momentum network that a training writes beside model.pt; shipped weights have none"
            load_weights(self.teacher, self.teacher_path, expected)
            self.teacher_path = None
        teacher = self._embed(inputs, self.teacher.to(inputs.device).eval(), *args, **kwargs)
        return torch.cat([student, teacher.to(student.device)], dim=1)

    def _embed(self, inputs: Tensor, network: Network, *args: Any, **kwargs: Any) -> Tensor:
        """(B, C, *spatial) -> (B, E, *spatial), image by image."""
        if len(inputs) > 1:
            return torch.cat([self._embed(image, network, *args, **kwargs) for image in inputs.split(1)])

        def embed(voxels: int, device: torch.device | str | None) -> Tensor:
            mean = mean_over_flips(
                lambda view: self._embed_image(view, network, voxels, device, *args, **kwargs),
                inputs,
                self.flipped_axes,
                has_displacements=bool(self.position_scale),
            )
            return add_positions_(mean, self.position_scale)

        *attempts, last = self._attempts(inputs)
        for voxels, device in attempts:
            try:
                return embed(voxels, device)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                window, target = " x ".join(map(str, self.roi_size)), device or inputs.device
                logger.warning(
                    "%s: too little memory for windows of %s, with embeddings on %s", inputs.device, window, target
                )
        return embed(*last)

    def _attempts(self, inputs: Tensor) -> list[tuple[int, torch.device | str | None]]:
        """Voxels of an automatic window, and where the embeddings are put together: one thing after the other.

        First as `SlidingWindowInferer` was told to, None for where the image is.
        """
        host = torch.device("cpu")
        attempts = [(self.window_voxels, self.device), (self.window_voxels, host)]
        voxels = min(self.window_voxels, inputs.shape[2:].numel())
        while self.largest_roi is None and voxels > SMALLEST_WINDOW:
            voxels //= 2
            attempts.append((voxels, host))
        return attempts

    def _embed_image(
        self,
        inputs: Tensor,
        network: Network,
        voxels: int,
        device: torch.device | str | None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """(1, C, *spatial) -> (1, E, *spatial) on the device, no positions; automatic windows have `voxels` voxels."""
        shape = inputs.shape[2:]
        self.roi_size = self._fitting(shape, voxels, self.overlap)
        fits = all(length <= size for length, size in zip(shape, self.roi_size, strict=True))
        embeddings = None if fits else self._embed_by_layers(inputs, network, voxels, device, *args, **kwargs)
        if embeddings is None:
            padded = _continued(inputs, self.roi_size)
            with ExactGroupNorm():
                blended = super().__call__(padded, network, *args, device=device, **kwargs)
            if not isinstance(blended, Tensor):
                raise TypeError(f"a network must return one tensor, got {type(blended).__name__}")
            embeddings = blended
        return embeddings[(slice(None), slice(None), *(slice(length) for length in shape))]

    def _embed_by_layers(
        self,
        inputs: Tensor,
        network: Network,
        voxels: int,
        device: torch.device | str | None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor | None:
        """Like `_embed_image`, as if the image was seen at once; None if this cannot be."""
        if not isinstance(network, nn.Module) or not any(isinstance(part, nn.GroupNorm) for part in network.modules()):
            return None
        shape = _divisible(inputs.shape[2:], self.divisor)
        share = CPU_SHARE if inputs.device.type == "cpu" else 1
        window = self._fitting(shape, int(voxels * share), overlap=0.0)
        keep_all = self.largest_roi is None and math.prod(shape) <= KEPT_WINDOWS * voxels
        try:
            features = network(image_features(_continued(inputs, shape), window, device, keep_all), *args, **kwargs)
            return convert_to_dst_type(features.whole(inputs.dtype), inputs, device=device)[0]
        except UnsupportedLayer as reason:
            logger.warning("%s: windows see and normalize only themselves: %s", type(network).__name__, reason)
            return None

    def _fitting(self, shape: Sequence[int], voxels: int, overlap: float) -> list[int]:
        """The size of all windows in which an image with these spatial axes is seen."""
        roi = self.largest_roi or largest_window(shape, self.divisor, voxels)
        axes = zip(shape, roi, self.divisor, strict=True)
        return [fitting_window(length, largest, overlap, step) for length, largest, step in axes]


def largest_window(shape: Sequence[int], divisor: Sequence[int], voxels: int) -> list[int]:
    """The window that covers an image, made shorter along its longest axes until it has no more than `voxels` voxels.

    >>> largest_window([10, 100, 60], divisor=[1, 4, 4], voxels=25_000)
    [10, 48, 52]
    """
    window = _divisible(shape, divisor)
    while math.prod(window) > voxels and window != list(divisor):
        longest = max(range(len(window)), key=lambda axis: window[axis] if window[axis] > divisor[axis] else 0)
        window[longest] -= divisor[longest]
    return window


def fitting_window(length: int, largest: int, overlap: float, step: int) -> int:
    """The smallest window that covers an axis with as few windows as the largest one does.

    Args:
        length: of the image.
        largest: window, a multiple of `step`.
        overlap: share of a window that its neighbour repeats.
        step: what the window must be divisible by.

    >>> fitting_window(100, largest=128, overlap=0.25, step=8), fitting_window(130, largest=128, overlap=0.25, step=8)
    (104, 80)
    """

    def count(size: int) -> int:
        return 1 + math.ceil(max(0, length - size) / max(1, int(size * (1 - overlap))))  # as MONAI places them

    return next(size for size in range(step, largest + 1, step) if count(size) <= count(largest))


def _divisible(shape: Sequence[int], divisor: Sequence[int]) -> list[int]:
    """The next larger spatial axes that a network can halve often enough."""
    return [step * math.ceil(length / step) for length, step in zip(shape, divisor, strict=True)]


def _continued(image: Tensor, shape: Sequence[int]) -> Tensor:
    """(1, C, *spatial), continued by its outermost voxels along those axes that are shorter than in `shape`."""
    missing = [max(0, size - length) for size, length in zip(shape, image.shape[2:], strict=True)]
    return pad(image, [n for after in reversed(missing) for n in (0, after)], mode="replicate")


def _checked_windows(roi_size: Sequence[int] | float, divisor: Sequence[int]) -> list[int]:
    """The windows along each axis."""
    sizes = [roi_size] * len(divisor) if isinstance(roi_size, int) else roi_size
    if not isinstance(sizes, Sequence) or len(sizes) != len(divisor):
        raise InputError(f"roi_size must have {len(divisor)} entries, one an axis, got {sizes!r}")
    if any(not isinstance(size, int) or size < 1 or size % step for size, step in zip(sizes, divisor, strict=True)):
        raise InputError(f"roi_size must hold multiples of {list(divisor)}, at least one, got {list(sizes)}")
    return list(sizes)
