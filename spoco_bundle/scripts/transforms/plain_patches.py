"""Random transforms on plain tensors: what MONAI keeps of a patch's origin takes longer than the transforms."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from monai.data import MetaTensor, get_track_meta, set_track_meta
from monai.transforms import Compose, RandRotate90d
from monai.transforms.traits import RandomizableTrait
from monai.transforms.utils import map_spatial_axes


class ComposePlainPatches(Compose):
    """MONAI's `Compose` that leaves affine and history of an image behind before its first random transform.

    What is read, checked and resampled needs them; of a random patch nobody asks where it was. The patches are the
    same with and without, and half of the time to make one goes. It is for data loaders that make patches in the
    main thread or in processes of their own: MONAI's switch counts for all threads. A plain `Compose` among the
    transforms, which counts as random, is taken for its parts: its checks see metadata, and what is not random in it
    is cached.
    """

    def __init__(self, transforms: Sequence[Callable[..., Any]], **others: Any) -> None:
        super().__init__(Compose(transforms).flatten().transforms, **others)

    def __call__(
        self, input_: Any, start: int = 0, end: int | None = None, threading: bool = False, lazy: bool | None = None
    ) -> Any:
        """As of `Compose`, for {key: image}."""
        end = len(self.transforms) if end is None else end
        first_random = self.get_index_of_first(lambda transform: isinstance(transform, RandomizableTrait))
        first_random = min(end, max(start, end if first_random is None else first_random))
        data = super().__call__(input_, start, first_random, threading, lazy)
        if first_random == end:
            return data
        plain = {key: value.as_tensor() if isinstance(value, MetaTensor) else value for key, value in data.items()}
        with _without_metadata():
            return super().__call__(plain, first_random, end, threading, lazy)


def tilt_probability(patch_size: Sequence[int], objects_voxel_shape: Sequence[float]) -> float:
    """How often a patch is turned about y, or about x: half of the time where slices are like any other plane.

    Args:
        patch_size: along each axis; only cubes can be turned.
        objects_voxel_shape: relative edges of a voxel, see `working_grid.voxel_shape`.
    """
    is_cube = len(patch_size) == 3 and len(set(patch_size)) == 1
    return 0.5 if is_cube and max(objects_voxel_shape) < 1.5 * min(objects_voxel_shape) else 0.0


class RandTurnd(RandRotate90d):
    """MONAI's `RandRotate90d`, with the same draws, for plain tensors.

    MONAI works out the affine of a turned image also where there is none, which takes a quarter of the time that a
    patch takes.
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor], lazy: bool | None = None) -> dict[Hashable, torch.Tensor]:
        """As of `RandRotate90d`; `lazy` has no say."""
        self.randomize()
        result = dict(data)
        if self._do_transform:
            for key in self.key_iterator(result):
                axes = map_spatial_axes(result[key].ndim, self.spatial_axes)
                result[key] = torch.rot90(result[key], self._rand_k, axes)
        return result


@contextmanager
def _without_metadata() -> Iterator[None]:
    tracked = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(tracked)
