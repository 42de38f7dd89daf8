"""One normalization for all windows of an image.

GroupNorm normalizes by the mean and the variance of whatever it is given. In a window full of objects these are others
than in one that is almost empty, so that a voxel has another embedding in each of the windows that hold it; and an
empty window has its noise blown up until it looks like objects. `shared_statistics` gives all windows those of the
whole image, as if the network had seen it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from monai.networks.utils import replace_modules_temp
from torch import Tensor, nn


class FixedNorm(nn.Module):
    """What a GroupNorm does when its statistics are given: one scale and one shift for each channel.

    Args:
        norm: whose affine parameters to use.
        moments: (2, groups): the mean and the mean square of what it is given.
        spatial_dims: number of axes after the channels.
    """

    def __init__(self, norm: nn.GroupNorm, moments: Tensor, spatial_dims: int) -> None:
        super().__init__()
        mean, mean_square = moments.repeat_interleave(norm.num_channels // norm.num_groups, dim=1)  # (C,) each
        scale = norm.weight / (mean_square - mean.square() + norm.eps).sqrt()
        self.scale, self.shift = (x.float().view(-1, *[1] * spatial_dims) for x in (scale, norm.bias - mean * scale))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, *spatial) -> the same shape."""
        return torch.addcmul(self.shift, features, self.scale)


@contextmanager
def shared_statistics(network: nn.Module, see_windows: Callable[[], None], spatial_dims: int) -> Iterator[None]:
    """While it is open, every GroupNorm of a network normalizes by its mean statistics over some windows.

    What a layer is given depends on the layers before it, which still look at each window alone while the statistics
    are taken. Going over the windows again does not help: on trained networks it left the embeddings no closer to
    those of the whole image, and a third time made them worse.

    Args:
        network: whose GroupNorms have affine parameters; it is as before when this closes.
        see_windows: runs the network on windows of equal size that cover the image evenly.
        spatial_dims: 2 or 3.
    """
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.GroupNorm)}
    moments: dict[str, list[Tensor]] = {name: [] for name in norms}
    with ExitStack() as recording:
        for name, norm in norms.items():
            handle = norm.register_forward_pre_hook(partial(_record_moments, moments[name]))
            recording.callback(handle.remove)
        see_windows()
    with ExitStack() as replaced:
        for name, norm in norms.items():
            fixed = FixedNorm(norm, torch.cat(moments[name]).mean(0), spatial_dims)
            replaced.enter_context(replace_modules_temp(network, name, fixed))
        yield


def _record_moments(moments: list[Tensor], norm: nn.GroupNorm, inputs: tuple[Tensor]) -> None:
    groups = inputs[0].detach().unflatten(1, (norm.num_groups, -1)).flatten(2)  # (B, groups, channels * voxels)
    variance, mean = torch.var_mean(groups.float(), dim=2, correction=0)
    moments.append(torch.stack([mean, variance + mean.square()], dim=1).double())  # (B, 2, groups)
