"""The layers of a network over a whole image, of which one window at a time is computed.

What a network makes of a window is not what it makes of the image: GroupNorm normalizes by the statistics of what it is
given, and beyond its rims a window sees zeros. So it is not the network that goes from window to window here, but each
of its layers. A network that is given `Features` returns `Features`: its convolutions read as far beyond a window as
their kernels reach, and its normalizations take the statistics of the whole image. What comes out is what the network
makes of the whole image, up to rounding.

Convolutions with a stride, and those below them, have few voxels, and are kept in memory. All others are computed anew
for each layer that reads them, no further back than to the image, and to what is kept; or, where there is memory for
them, kept as well, which takes half of the time.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn import functional

from .group_norm import pooled_moments

Region = Sequence[slice]  # along each axis, from where to where; it may reach beyond the border


@dataclass(frozen=True)
class Windows:
    """What is computed at once.

    Attributes:
        image: spatial axes of the image.
        size: largest window of the image, along each axis.
        device: where it is computed.
        store: the device for what is kept.
        keep_all: whether convolutions are kept that have as many voxels as the image, too.
    """

    image: Sequence[int]
    size: Sequence[int]
    device: torch.device
    store: torch.device
    keep_all: bool

    def over(self, shape: Sequence[int]) -> Iterator[Region]:
        """Regions of features with other spatial axes that are like the windows of the image; each voxel is in one."""
        axes = []
        for length, whole, largest in zip(shape, self.image, self.size, strict=True):
            size = math.ceil(length * largest / whole)
            axes.append([slice(start, min(start + size, length)) for start in range(0, length, size)])
        return itertools.product(*axes)


class UnsupportedLayer(AttributeError):  # so that `hasattr` says no
    """A network has a layer that cannot be computed in windows."""


class Features:
    """What a layer makes of an image, computed where it is read; PyTorch's functions take it for a tensor.

    Functions that do not know it, operators, and methods of a tensor that it lacks raise `UnsupportedLayer`.

    Args:
        shape: (1, C, *spatial).
        windows: what is computed at once.
        compute: a region within the border -> (1, C, *region), a tensor that may be changed.
    """

    def __init__(self, shape: Sequence[int], windows: Windows, compute: Callable[[Region], Tensor]) -> None:
        self.shape, self.windows, self._compute = torch.Size(shape), windows, compute

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Features:
        name = getattr(function, "__name__", function)
        if function not in _LAYERS:
            raise UnsupportedLayer(f"{name} is computed for whole tensors only")
        try:
            given = inspect.signature(_LAYERS[function]).bind(function, *args, **(kwargs or {}))
        except TypeError as error:
            raise UnsupportedLayer(f"{name} with these arguments is computed for whole tensors only") from error
        return _LAYERS[function](*given.args, **given.kwargs)

    def __getattr__(self, name: str) -> NoReturn:
        raise UnsupportedLayer(f"{name} is known of whole tensors only")

    def _operate(self, *_: Any) -> NoReturn:
        raise UnsupportedLayer("operators are computed for whole tensors only")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = _operate
    __matmul__ = __neg__ = __getitem__ = __iter__ = __len__ = _operate

    def read(self, region: Region) -> Tensor:
        """(1, C, *region) with zeros beyond the border, a tensor that may be changed."""
        sides = list(zip(region, self.shape[2:], strict=True))
        inside = [slice(max(side.start, 0), min(side.stop, length)) for side, length in sides]
        beyond = [(max(-side.start, 0), max(side.stop - length, 0)) for side, length in reversed(sides)]
        values = self._compute(inside)
        return functional.pad(values, [n for ends in beyond for n in ends]) if any(map(any, beyond)) else values

    def whole(self, dtype: torch.dtype | None = None) -> Tensor:
        """(1, C, *spatial) in the store; of the type that is computed, if there is no other."""
        whole: Tensor | None = None
        for window in self.windows.over(self.shape[2:]):
            values = self.read(window)
            if whole is None:
                whole = values.new_empty(self.shape, dtype=dtype, device=self.windows.store)
            whole[_everywhere_in(window)] = values
        assert whole is not None  # there is a window, as no axis is empty
        return whole


def _everywhere_in(region: Region) -> tuple[slice, ...]:
    """Index of a region in (1, C, *spatial)."""
    return (slice(None), slice(None), *region)


def image_features(
    image: Tensor, window: Sequence[int], store: torch.device | str | None = None, keep_all: bool = False
) -> Features:
    """An image (1, C, *spatial) for a network.

    Args:
        image: on the network's device.
        window: largest one, along each axis.
        store: the device for what has to be kept, the image's by default.
        keep_all: see `Windows`.
    """
    windows = Windows(image.shape[2:], window, image.device, torch.device(store or image.device), keep_all)
    return _kept(image.as_subclass(Tensor), windows)


def _kept(values: Tensor, windows: Windows) -> Features:
    """(1, C, *spatial)."""
    return Features(values.shape, windows, lambda region: values[_everywhere_in(region)].to(windows.device, copy=True))


def _each_axis(value: int | Sequence[int], weight: Tensor) -> Sequence[int]:
    """One for each spatial axis of a convolution's weights."""
    return [value] * (weight.dim() - 2) if isinstance(value, int) else value


def _convolution(
    function: Callable[..., Tensor],
    source: Features,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Features:
    if isinstance(padding, str):
        raise UnsupportedLayer(f"a convolution's padding in numbers is needed, got {padding!r}")
    stride, padding, dilation = (_each_axis(value, weight) for value in (stride, padding, dilation))
    reach = [step * (size - 1) + 1 for step, size in zip(dilation, weight.shape[2:], strict=True)]

    def compute(region: Region) -> Tensor:
        starts = [side.start * step - zeros for side, step, zeros in zip(region, stride, padding, strict=True)]
        stops = [(side.stop - 1) * step - zeros for side, step, zeros in zip(region, stride, padding, strict=True)]
        needed = [slice(start, stop + size) for start, stop, size in zip(starts, stops, reach, strict=True)]
        return function(source.read(needed), weight, bias, stride, 0, dilation, groups)

    axes = zip(source.shape[2:], reach, padding, stride, strict=True)
    spatial = [(length + 2 * zeros - size) // step + 1 for length, size, zeros, step in axes]
    features = Features([1, len(weight), *spatial], source.windows, compute)
    is_coarse = math.prod(spatial) < math.prod(source.windows.image)
    return _kept(features.whole(), source.windows) if is_coarse or source.windows.keep_all else features


def _upsampling(
    function: Callable[..., Tensor],
    source: Features,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Features:
    """A transposed convolution whose kernel is its stride, as of a U-Net."""
    stride, padding, output_padding = (_each_axis(value, weight) for value in (stride, padding, output_padding))
    if tuple(weight.shape[2:]) != tuple(stride) or any((*padding, *output_padding)):
        raise UnsupportedLayer("a transposed convolution's kernel must be its stride")

    def compute(region: Region) -> Tensor:
        needed = [slice(side.start // n, math.ceil(side.stop / n)) for side, n in zip(region, stride, strict=True)]
        starts = [side.start - coarse.start * n for side, coarse, n in zip(region, needed, stride, strict=True)]
        wanted = [slice(start, start + side.stop - side.start) for start, side in zip(starts, region, strict=True)]
        values = function(source.read(needed), weight, bias, stride, 0, 0, groups, dilation)
        return values[_everywhere_in(wanted)]

    spatial = [length * n for length, n in zip(source.shape[2:], stride, strict=True)]
    return Features([1, weight.shape[1] * groups, *spatial], source.windows, compute)


def _normalization(
    function: Callable[..., Tensor],
    source: Features,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Features:
    """GroupNorm by the statistics of the whole image: one scale and one shift for each channel."""
    regions = list(source.windows.over(source.shape[2:]))
    # in one piece: a small tensor that outlives its window would split the memory which the next one needs
    means, variances = torch.empty(2, len(regions), num_groups, device=source.windows.device)
    counts = []
    for index, region in enumerate(regions):
        groups = source.read(region).float().reshape(num_groups, -1)
        means[index] = groups.mean(1)
        variances[index] = groups.sub(means[index, :, None]).square_().mean(1)  # much faster than torch.var_mean
        counts.append(groups.shape[1])
    moments = pooled_moments(means, variances, torch.tensor(counts), source.shape[1] // num_groups)

    def compute(region: Region) -> Tensor:
        return functional.batch_norm(source.read(region).float(), *moments, weight, bias, eps=eps)

    return Features(source.shape, source.windows, compute)


def _activation(function: Callable[..., Tensor], source: Features, *arguments: Any, **options: Any) -> Features:
    if not arguments:
        options["inplace"] = True  # what is read may be changed
    return Features(source.shape, source.windows, lambda region: function(source.read(region), *arguments, **options))


def _concatenation(function: Callable[..., Tensor], sources: Sequence[Features | Tensor], dim: int = 0) -> Features:
    if dim != 1:
        raise UnsupportedLayer(f"only channels can be joined, got dim {dim}")
    joined = [source for source in sources if isinstance(source, Features)]
    if len(joined) < len(sources):
        raise UnsupportedLayer("only what is made of the image can be joined, got a tensor")
    shape = [1, sum(source.shape[1] for source in joined), *joined[0].shape[2:]]
    windows = joined[0].windows
    return Features(shape, windows, lambda region: function([source.read(region) for source in joined], dim))


# what takes the place of a function whose first argument is `Features`; it is given the function and its arguments
_LAYERS: dict[Callable[..., Any], Callable[..., Features]] = {
    functional.conv2d: _convolution,
    functional.conv3d: _convolution,
    functional.conv_transpose2d: _upsampling,
    functional.conv_transpose3d: _upsampling,
    functional.group_norm: _normalization,
    functional.leaky_relu: _activation,
    functional.relu: _activation,
    torch.cat: _concatenation,
}
