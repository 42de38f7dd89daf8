"""The embedding network: MONAI's DynUNet, shaped by the voxel size and free of checkerboards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from ..refusals import InputError

GROUPS = 8

Network = TypeVar("Network", bound=nn.Module)


def embedding_network(
    spatial_dims: int,
    in_channels: int,
    embedding_dim: int,
    filters: Sequence[int] = (16, 32, 64, 128),
    voxel_size: Sequence[float] | None = None,
) -> DynUNet:
    """A DynUNet that maps (B, in_channels, *spatial) to embeddings (B, embedding_dim, *spatial).

    Spatial sizes must be divisible by the product of the strides along each axis (`size_divisor`).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        embedding_dim: E, the number of output channels.
        filters: channels of each level, multiples of 8; one entry a level, at least 3.
        voxel_size: voxel edge per axis in any unit, isotropic by default. An axis with voxels at least twice as
            long as the shortest is not downsampled, and not convolved along, until the others have caught up.
    """
    if any(width % GROUPS for width in filters):
        raise InputError(f"filters must be multiples of {GROUPS} for GroupNorm, got {list(filters)}")
    if len(filters) < 3:
        raise InputError(f"filters must have at least 3 levels, got {list(filters)}")
    voxel_size = [1.0] * spatial_dims if voxel_size is None else list(voxel_size)
    if len(voxel_size) != spatial_dims or min(voxel_size) <= 0:
        raise InputError(f"voxel_size must hold {spatial_dims} positive lengths, got {voxel_size}")
    kernels, strides = kernels_and_strides(voxel_size, len(filters))
    network = DynUNet(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=embedding_dim,
        kernel_size=kernels,
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=list(filters),
        norm_name=("GROUP", {"num_groups": GROUPS}),
    )
    return smooth_upsampling(network)


def kernels_and_strides(voxel_size: Sequence[float], levels: int) -> tuple[list[list[int]], list[list[int]]]:
    """Kernel sizes and strides per level and axis, so that voxels grow isotropic on the way down.

    >>> kernels_and_strides((4.0, 1.0, 1.0), 3)
    ([[1, 3, 3], [1, 3, 3], [3, 3, 3]], [[1, 1, 1], [1, 2, 2], [1, 2, 2]])
    """
    size = list(voxel_size)
    kernels, strides = [], []
    for level in range(levels):
        stride = [1 if level == 0 or edge >= 2 * min(size) else 2 for edge in size]
        size = [edge * step for edge, step in zip(size, stride, strict=True)]
        kernels.append([1 if edge >= 2 * min(size) else 3 for edge in size])
        strides.append(stride)
    return kernels, strides


def size_divisor(voxel_size: Sequence[float], levels: int) -> list[int]:
    """What each spatial size must be divisible by: the product of the strides along that axis."""
    _, strides = kernels_and_strides(voxel_size, levels)
    return [math.prod(axis) for axis in zip(*strides, strict=True)]


def smooth_upsampling(network: Network) -> Network:
    """Make every transposed convolution nearest-neighbour upsampling, at the start and throughout training.

    A transposed convolution learns one weight per position inside its kernel; positions that differ print their
    grid into the embeddings and shatter clusters. Weights and gradients are averaged over the kernel positions,
    which keeps the class, the parameters and the state_dict of the stock network. A deep copy has no such hooks:
    it is for evaluation, as the momentum network, and not for training.
    """
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
            with torch.no_grad():
                # averaging n independent weights shrinks their deviation by sqrt(n): undo it
                positions = module.weight[0, 0].numel()
                module.weight.copy_(_mean_over_positions(module.weight) * positions**0.5)
            module.weight.register_hook(_mean_over_positions)
    return network


def _mean_over_positions(weight: Tensor) -> Tensor:
    """(in, out, *kernel) -> the same shape, equal over the kernel positions."""
    return weight.mean(dim=tuple(range(2, weight.dim())), keepdim=True).expand_as(weight).contiguous()
