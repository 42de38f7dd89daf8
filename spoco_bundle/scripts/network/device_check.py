"""Does a device compute what a CPU does? Apple's GPUs do not with every version of macOS, and nothing tells."""

from __future__ import annotations

import torch
from torch.nn import functional

TOLERANCE = 0.01  # of the largest value: what is rounded otherwise is within, what is wrong is wrong by its size


def convolves_rightly(device: torch.device | str, spatial_dims: int) -> bool:
    """Whether small convolutions, with weights stored as the network's, come to the same as on the CPU.

    With macOS 26.2 those in 3D did not, see https://github.com/pytorch/pytorch/issues/197114, and in 2D some torch
    took other weights than were given, see https://github.com/pytorch/pytorch/issues/192212.
    """
    generator = torch.Generator().manual_seed(0)  # the training's random numbers stay as they are
    image = torch.randn(1, 16, *[8] * spatial_dims, generator=generator)
    kernel = torch.randn(16, 16, *[3] * spatial_dims, generator=generator)
    convolve = functional.conv3d if spatial_dims == 3 else functional.conv2d
    channels_last = torch.channels_last_3d if spatial_dims == 3 else torch.channels_last
    expected = convolve(image, kernel)
    for memory_format in (torch.contiguous_format, channels_last):  # by `memory_format`, and by default
        stored = kernel.to(device).contiguous(memory_format=memory_format)
        found = convolve(image.to(device), stored).cpu()
        if not (found - expected).abs().max() <= TOLERANCE * expected.abs().max():  # also where it is no number
            return False
    return True
