"""Whether the files of an image and of its label map state one grid, as far as both of them state any.

What a file says of its grid is in the metadata that `readers` gives: `stated_voxel_size` per axis, not-a-number where
nothing is said, and `placement`, not-a-number where its affine does not tell where the voxels lie and how the axes run.
Programs that know none of it write voxels of 1 and the origin 0: that says nothing, either.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import nibabel
import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from ..refusals import refusal
from .image_files import describe_shape

TOLERANCE = 0.05  # of a voxel's edge, along each axis: programs round what they write
FARTHEST = 1.0  # voxels between the two first voxels: some programs count from a voxel's corner, others from its middle
FARTHEST_TURNED = 1.0  # voxels by which directions that differ move any other voxel away from the first one
ROUNDING = 1e-3  # between two directions, as of a quaternion in single precision and a matrix
LENGTHS = {"micrometre": 1.0, "millimetre": 1e3, "metre": 1e6}


def check_same_grid(label_file: str, label: MetaTensor, image_file: str, image: MetaTensor) -> None:
    """Refuse a label map whose voxels cannot be those of the image.

    Args:
        label_file, image_file: for the message.
        label, image: as read, of one shape, each on the grid of its file.

    Raises:
        ValueError: other voxel sizes; other axes, or another place, where both files state theirs.
    """
    factor = _common_factor(label, image)
    both_placed = is_placed(image.meta) and is_placed(label.meta) and not _is_usual(label)
    if factor is not None and (not both_placed or _same_place(label, image, factor)):
        return
    expected = (
        f"that of {image_file}, {_describe(image_file, image)}; resample the labels onto it, or copy its header "
        "where the voxels are the same ones"
    )
    raise refusal(label_file, f"a grid of {_describe(label_file, label)}", expected)


def stated_axes(image: MetaTensor) -> list[bool]:
    """Along which axes the file of an image says how long a voxel is; along all where the reader does not tell.

    Where all are 1, as programs write by default, only a unit of length says something, or, in a file that says where
    its volume lies, an unusual place.
    """
    stated = np.asarray(image.meta.get("stated_voxel_size", image.pixdim), np.float64)
    by_default = _is_usual(image) if is_placed(image.meta) else image.meta.get("unit") not in LENGTHS
    if by_default and (stated == 1).all():
        return [False] * len(stated)
    return np.isfinite(stated).tolist()


def counts_pixels(image: MetaTensor) -> bool:
    """Whether a file states voxel sizes in pixels, as ImageJ does without a calibration: proportions, no lengths."""
    return image.meta.get("unit") == "pixel" and any(stated_axes(image))


def is_placed(meta: Mapping[Hashable, Any]) -> bool:
    """Whether the metadata of an image tell where its voxels lie and how its axes run."""
    return bool(np.isfinite(meta.get("placement", np.nan)).all())


def _common_factor(label: MetaTensor, image: MetaTensor) -> float | None:
    """The label's lengths over the image's, 1 where nothing is stated; None when the two contradict each other.

    Numbers may be equal in spite of the units: ITK calls every length millimetres. In unlike or unknown units only the
    proportions of a voxel can be compared.
    """
    ratios = _stated_voxel_size(label) / _stated_voxel_size(image)
    ratios = ratios[np.isfinite(ratios)]
    unit, image_unit = label.meta.get("unit"), image.meta.get("unit")
    if not len(ratios):
        return 1.0
    if unit in LENGTHS and image_unit in LENGTHS:
        factors = [1.0, LENGTHS[image_unit] / LENGTHS[unit]]
    else:
        factors = [1.0] if unit == image_unit else [float(ratios[0])]
    return next((factor for factor in factors if np.allclose(ratios / factor, 1, rtol=0, atol=TOLERANCE)), None)


def _same_place(label: MetaTensor, image: MetaTensor, factor: float) -> bool:
    in_label, in_image = _placement(label), _placement(image)
    first = np.linalg.solve(in_image[:3, :3], in_label[:3, 3] / factor - in_image[:3, 3])  # in voxels of the image
    lengths = np.linalg.norm(in_image[:3, :3], axis=0)
    difference = in_label[:3, :3] / np.linalg.norm(in_label[:3, :3], axis=0) - in_image[:3, :3] / lengths
    turned = np.linalg.solve(in_image[:3, :3], difference * lengths).T  # by a step along each axis
    last_index = np.array([1, *image.shape[1:]])[-3:] - 1
    farthest = max((last_index @ np.clip(sign * turned, 0, None)).max() for sign in (1, -1))  # of all corners
    is_alike = np.abs(difference).max() <= ROUNDING or farthest <= FARTHEST_TURNED
    return bool(is_alike and np.abs(first).max() <= FARTHEST)


def _describe(file: str, tensor: MetaTensor) -> str:
    sizes = ["?" if np.isnan(size) else f"{size:.4g}" for size in _stated_voxel_size(tensor)]
    text = f"voxels of {describe_shape(file, sizes)}, unit {tensor.meta.get('unit')}"
    if not is_placed(tensor.meta):
        return text
    placement = _placement(tensor)
    axes = "".join(nibabel.aff2axcodes(placement[:, [2, 1, 0, 3]]))
    return f"{text}, axes {axes[: tensor.ndim - 1]}, origin ({', '.join(f'{at:.4g}' for at in placement[:3, 3])})"


def _stated_voxel_size(tensor: MetaTensor) -> NDArray[np.float64]:
    stated = np.asarray(tensor.meta.get("stated_voxel_size", [np.nan] * (tensor.ndim - 1)), np.float64)
    says_nothing = (stated == 1).all() and (not is_placed(tensor.meta) or _is_usual(tensor))
    return np.full_like(stated, np.nan) if says_nothing else stated


def _is_usual(tensor: MetaTensor) -> bool:
    """Whether a NIfTI affine has the origin 0 and the axes of NIfTI, or of ITK, where x and y run the other way."""
    *directions, origin = np.sign(_placement(tensor)[:3, [2, 1, 0, 3]]).T
    usual = [np.diag(axes) for axes in ([1, 1, 1], [-1, -1, 1])]
    if tensor.ndim == 3:  # of a slice, across whichever axis, two are left
        directions, usual = directions[:2], [np.delete(axes, across, 0) for axes in usual for across in range(3)]
    return not origin.any() and any(np.array_equal(directions, axes) for axes in usual)


def _placement(tensor: MetaTensor) -> NDArray[np.float64]:
    return np.asarray(tensor.meta["placement"], np.float64)
