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
from torch.nn.functional import batch_norm


class FixedNorm(nn.Module):
    """What a GroupNorm does when its statistics are given: one scale and one shift for each channel.

    Args:
        norm: whose affine parameters to use.
        moments: (2, groups): the mean and the mean square of what it is given.
    """

    def __init__(self, norm: nn.GroupNorm, moments: Tensor) -> None:
        super().__init__()
        mean, mean_square = moments.repeat_interleave(norm.num_channels // norm.num_groups, dim=1)  # (C,) each
        self.mean, self.variance = mean, (mean_square - mean.square()).clamp_min(0)
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, *spatial) -> the same shape."""
        return batch_norm(features, self.mean, self.variance, self.weight, self.bias, eps=self.eps)


@contextmanager
def shared_statistics(network: nn.Module, see_windows: Callable[[], None]) -> Iterator[None]:
    """While it is open, every GroupNorm of a network normalizes by its mean statistics over some windows.

    What a layer is given depends on the layers before it, which still look at each window alone while the statistics
    are taken. Going over the windows again does not help: on trained networks it left the embeddings no closer to
    those of the whole image, and a third time made them worse.

    Args:
        network: whose GroupNorms have affine parameters; it is as before when this closes.
        see_windows: runs the network on windows of equal size that cover the image evenly.
    """
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.GroupNorm)}
    moments: dict[str, list[Tensor]] = {name: [] for name in norms}
    with ExitStack() as recording:
        for name, norm in norms.items():
            handle = norm.register_forward_pre_hook(partial(_record_moments, moments[name]))
            recording.callback(handle.remove)
        if norms:
            see_windows()
    with ExitStack() as replaced:
        for name, norm in norms.items():
            fixed = FixedNorm(norm, torch.cat(moments[name]).mean(0))
            replaced.enter_context(replace_modules_temp(network, name, fixed))
        yield


def _record_moments(moments: list[Tensor], norm: nn.GroupNorm, inputs: tuple[Tensor]) -> None:
    groups = inputs[0].detach().unflatten(1, (norm.num_groups, -1)).flatten(2).float()  # (B, groups, channels * voxels)
    # two means are several times faster than torch.var_mean
    moments.append(torch.stack([groups.mean(2), groups.square().mean(2)], dim=1))  # (B, 2, groups)
