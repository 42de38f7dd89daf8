"""One scale of brightness for all images: the network has seen values from 0 to 1."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import MapTransform
from monai.transforms.utils_pytorch_numpy_unification import percentile
from monai.utils import convert_to_dst_type
from torch import Tensor

from ..tensors import plain_tensor

LOWER, UPPER = 1, 99.8  # percentiles: a few dead or saturated voxels do not decide


class ScaleContrastd(MapTransform):
    """Scale each channel of images (C, *spatial) so that two percentiles become 0 and 1; what is beyond is cut off.

    Where both are one value, as in an image that is background but for a few voxels, its least and its largest value
    take their place. (MONAI's `ScaleIntensityRangePercentilesd` leaves such an image as bright as it is.) A channel of
    one value becomes 0.

    Args:
        keys: keys of the images.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            channels = plain_tensor(result[key]).float()
            scaled = torch.stack([_scale(channel) for channel in channels])
            result[key] = convert_to_dst_type(scaled, result[key], dtype=scaled.dtype)[0]
        return result


def _scale(channel: Tensor) -> Tensor:
    low, high = torch.as_tensor(percentile(channel, [LOWER, UPPER]))  # together: all voxels are sorted for each call
    if low == high:
        low, high = channel.aminmax()
    return ((channel - low) / (high - low)).clamp_(0, 1) if high > low else torch.zeros_like(channel)
