"""The mean of the embeddings of an image and of its mirror images: test-time augmentation.

A training shows patches flipped at random, so that what a network makes of a mirror image is nearly the mirror image of
its embeddings. Where it is not, it is wrong in one way or the other, and the mean is nearer to what is right; Isensee
et al., "nnU-Net", Nature Methods 2021, segment all images so. Of an image with D axes that may be flipped there are 2^D
views, and it takes 2^D times as long.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import torch
from torch import Tensor

from ..notices import counted_aloud

logger = logging.getLogger(__name__)


def flipped_axes(flips: bool, spatial_dims: int, upside_down: float) -> list[int]:
    """Along which spatial axes a network knows mirror images.

    Args:
        flips: whether to average over them; otherwise there is none.
        spatial_dims: 2 or 3.
        upside_down: share of the patches that the training flipped along y; 0: up and down differ.
    """
    up = spatial_dims - 2
    return [axis for axis in range(spatial_dims) if flips and (upside_down or axis != up)]


def mean_over_flips(
    embed: Callable[[Tensor], Tensor], images: Tensor, axes: Sequence[int], has_displacements: bool
) -> Tensor:
    """The mean embeddings of images and of their mirror images along all of the axes, each mirrored back.

    Args:
        embed: (B, C, *spatial) -> (B, E, *spatial), without positions. What it returns for the images as they are is
            overwritten.
        images: (B, C, *spatial).
        axes: spatial axes to flip, the first one is 0; none: one view.
        has_displacements: dimensions 1, 2, ... of the embeddings are displacements along the spatial axes (see
            `positions`), which point the other way in a mirror image.

    Returns:
        (B, E, *spatial), of several views at least in single precision.
    """
    total = embed(images)
    if not axes:
        return total
    total = total.to(torch.promote_types(total.dtype, torch.float32))
    for flipped in counted_aloud(
        [*_subsets(axes)], logger, "looking at the mirror images of an image: %d of %d are done"
    ):
        # without a name for the view, which would be kept while the next one is computed
        _add_mirrored_back(total, embed(images.flip([2 + axis for axis in flipped])), flipped, has_displacements)
    return total.div_(2 ** len(axes))


def _add_mirrored_back(total: Tensor, view: Tensor, flipped: Sequence[int], has_displacements: bool) -> None:
    """Add the embeddings of a mirror image: one dimension at a time, as a copy of all is as large as they are."""
    for dimension in range(view.shape[1]):
        points_back = has_displacements and dimension - 1 in flipped
        mirrored = view[:, dimension].flip([1 + axis for axis in flipped])
        total[:, dimension].add_(mirrored, alpha=-1 if points_back else 1)


def _subsets(axes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All subsets but the empty one."""
    for count in range(1, len(axes) + 1):
        yield from combinations(axes, count)
