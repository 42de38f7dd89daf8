"""Refuse images and label maps that would train or segment without an error, but wrongly.

In a MONAI JSON config, right after loading::

    {"_target_": "scripts.transforms.checks.CheckImaged", "keys": "image", "spatial_dims": "@spatial_dims"}
    {"_target_": "scripts.transforms.checks.CheckLabelsd", "label_key": "label", "image_key": "image"}
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..files.grids import check_same_grid
from ..files.image_files import describe_shape, file_of
from ..refusals import InputError, refusal
from .label_convention import without_special

BLANK_KEY = "is_blank"  # of an image: whether it has one value throughout


class CheckImaged(MapTransform):
    """Refuse images that the network would take for something else; what passes is unchanged.

    Refused are images of another number of spatial dimensions or channels, with not-a-number or infinite
    values, or, unless they may be blank, with one value throughout, in each channel its own.

    Args:
        keys: keys of the images, channel first: (C, *spatial).
        spatial_dims: 2 or 3.
        in_channels: channels that the network takes.
        allow_blank: whether images may be blank; ``is_blank`` then says which are.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spatial_dims: int,
        in_channels: int = 1,
        allow_blank: bool = False,
    ) -> None:
        super().__init__(keys)
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.allow_blank = allow_blank

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data as they are; raises ValueError naming the file, found and expected."""
        result = dict(data)
        for key in self.key_iterator(result):
            file, image = file_of(result[key], key), result[key]
            self._check(file, image)
            is_blank = all(bool(channel.min() == channel.max()) for channel in image)
            if self.allow_blank:
                result[BLANK_KEY] = is_blank
            elif is_blank:
                values = ", ".join(f"{channel.min().item():g}" for channel in image)
                raise refusal(file, f"the value {values} everywhere", "an image with contrast")
        return result

    def _check(self, file: str, image: torch.Tensor) -> None:
        found_dims = image.ndim - 1
        if found_dims != self.spatial_dims:
            if self.spatial_dims == 2:
                hint = "leave out configs/2d.json for stacks; of channels the file must say that they are"
            elif image.shape[0] == 1:
                hint = "add configs/2d.json for 2D images"
            else:
                hint = "add configs/2d.json for 2D images; of slices the file must not say that they are colours"
            shape = describe_shape(file, image.shape[1:])
            # a stack whose planes the file calls channels is a frequent slip of the program that wrote it
            channels = f", with {_channels(image)}" if image.shape[0] != self.in_channels else ""
            found, expected = (
                f"a {found_dims}D image, {shape}{channels}",
                f"a {self.spatial_dims}D image ({hint})",
            )
            raise refusal(file, found, expected)
        if getattr(image, "meta", {}).get("has_palette"):
            expected = "grey values (in Fiji: Image > Lookup Tables > Grays), or red, green and blue"
            raise refusal(file, "colours from a palette, as of a label map", expected)
        if image.shape[0] != self.in_channels:
            expected = f"{self.in_channels}, the number given as in_channels in training (1 where it is not given)"
            raise refusal(file, _channels(image), expected)
        if not torch.isfinite(image).all():
            count = int((~torch.isfinite(image)).sum())
            raise refusal(file, f"{count} values that are infinite or not a number", "finite values")
        if image.numel() == 0:
            raise refusal(file, "no voxel", "an image with contrast")


def _channels(image: torch.Tensor) -> str:
    alpha = " beside one that is said to be transparency" if getattr(image, "meta", {}).get("had_alpha") else ""
    return f"{image.shape[0]} channel{'s' if image.shape[0] > 1 else ''}{alpha}"


class CheckPatchSized(MapTransform):
    """Refuse a patch size that does not fit into an image, or that the network cannot halve often enough.

    Args:
        keys: keys of the images on the working grid: (C, *spatial).
        patch_size: along each axis, in voxels of the working grid.
        divisor: of which the network takes multiples, along each axis, see `dynunet.size_divisor`.
    """

    def __init__(self, keys: KeysCollection, patch_size: Sequence[int], divisor: Sequence[int]) -> None:
        super().__init__(keys)
        if len(patch_size) != len(divisor):
            raise InputError(f"patch_size must have {len(divisor)} entries, one an axis, got {list(patch_size)}")
        if any(size < step or size % step for size, step in zip(patch_size, divisor, strict=True)):
            raise InputError(f"patch_size must be a multiple of {list(divisor)}, got {list(patch_size)}")
        self.patch_size, self.divisor = list(patch_size), list(divisor)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data as they are; raises ValueError naming the file, found and expected."""
        result = dict(data)
        for key in self.key_iterator(result):
            shape = list(result[key].shape[1:])
            if any(size > available for size, available in zip(self.patch_size, shape, strict=True)):
                largest = [n // step * step for n, step in zip(shape, self.divisor, strict=True)]
                raise refusal(
                    file_of(result[key], key),
                    f"{shape} voxels on the working grid, fewer than patch_size {self.patch_size}",
                    f"patch_size up to {largest}",
                )
        return result


class CheckLabelsd(MapTransform):
    """Refuse label maps that break the label convention; what passes becomes int32, or int64 if need be.

    The convention: integers on the image's grid, 0 = unlabelled, 1..N = one id for each wholly annotated
    object. No value is changed. The slices of a volume may be what the file calls colours. A grid that
    contradicts the image's is refused (see `grids`). As label and image share one, the label takes over the image's
    affine: a TIFF and a NIfTI file of one volume state theirs in different units.

    Args:
        label_key: key of the label map, (1, *spatial).
        image_key: key of the image, (C, *spatial).
        background_label: id painted on known background, which is no object.
        ignore_label: id that is left out of training, which is no object either.
        allow_empty: accept a label map without any object.
        allow_missing_keys: do not raise when there is no label map.
    """

    def __init__(
        self,
        label_key: str,
        image_key: str,
        background_label: int | None = None,
        ignore_label: int | None = None,
        allow_empty: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(label_key, allow_missing_keys)
        self.image_key = image_key
        self.special = (background_label, ignore_label)
        self.allow_empty = allow_empty

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with checked labels; raises ValueError naming the file, found and expected."""
        result = dict(data)
        image = result[self.image_key]
        for key in self.key_iterator(result):
            label, file = _with_slices(result[key], image), file_of(result[key], key)
            self._check_grid(file, label, file_of(image, self.image_key), image)
            self._check_ids(file, label)
            result[key] = _on_grid_of(label, image)
        return result

    def _check_grid(self, file: str, label: torch.Tensor, image_file: str, image: torch.Tensor) -> None:
        if label.ndim > 1:
            check_one_channel(file, label.shape[0])
        if label.shape[1:] != image.shape[1:]:
            label_shape = describe_shape(file, label.shape[1:])
            image_shape = describe_shape(image_file, image.shape[1:])
            raise refusal(file, f"a label map of shape {label_shape}", f"the shape {image_shape} of {image_file}")
        if isinstance(label, MetaTensor) and isinstance(image, MetaTensor):
            check_same_grid(file, label, image_file, image)

    def _check_ids(self, file: str, label: torch.Tensor) -> None:
        check_ids(file, label)
        if not self.allow_empty and not without_special(label, *self.special).any():
            others = ", ".join(map(str, sorted({0, *(label for label in self.special if label is not None)})))
            expected = "at least one object id; leave out images in which nothing is annotated"
            raise refusal(file, f"no annotated object, only the values {others}", expected)


def _with_slices(label: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """A label map (1, *spatial), also where the file calls the three or four slices of a volume colours.

    As many programs write them. Colours of a plane are no ids, and the image has the same slices.
    """
    if label.shape[0] == 1 or label.shape != image.shape[1:]:
        return label
    slices = label.as_subclass(torch.Tensor)[None]
    if isinstance(label, MetaTensor) and isinstance(image, MetaTensor):
        return MetaTensor(slices, meta={**image.meta, "filename_or_obj": file_of(label, "label")})
    return slices


def check_one_channel(file: str, channels: int) -> None:
    """Refuse a label map of colours; raises ValueError naming the file."""
    if channels != 1:
        expected = "one channel of integer ids; colours must be turned into ids first"
        raise refusal(file, f"a label map of {channels} channels", expected)


def check_ids(file: str, label: torch.Tensor) -> None:
    """Refuse a label map of numbers that are no ids; raises ValueError naming the file."""
    if label.is_floating_point() or label.is_complex():
        kind = str(label.dtype).removeprefix("torch.")
        raise refusal(
            file, f"a label map of type {kind}", "integer ids, such as uint16 or uint32, without a scale factor"
        )
    if label.min() < 0:
        raise refusal(file, f"the negative id {int(label.min())}", "0 (unlabelled) and ids from 1 upwards")


def _on_grid_of(label: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Narrow the ids to int32 where they fit, and put the label on the image's affine."""
    fits = int(label.max()) <= torch.iinfo(torch.int32).max
    label = label.to(torch.int32 if fits else torch.int64).clone()
    if isinstance(label, MetaTensor) and isinstance(image, MetaTensor):
        label.affine = image.affine.clone()
    return label
