"""Read NIfTI files: axes (x, y, z) come out as (Z, Y, X), with an affine to match."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import nibabel
import numpy as np
from monai.config import PathLike
from nibabel.spatialimages import HeaderDataError

from ..refusals import refusal
from .image_files import existing_file
from .volumes import Volume, make_volume

UNITS = {"micron": "micrometre", "mm": "millimetre", "meter": "metre"}


def open_nifti(path: PathLike) -> nibabel.Nifti1Image:
    """Open a NIfTI file without reading its voxels.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not NIfTI, or a damaged header.
    """
    path = existing_file(path)
    try:
        image = nibabel.load(path)
    except (
        nibabel.filebasedimages.ImageFileError,
        HeaderDataError,
        OSError,
        EOFError,
        ValueError,
        zlib.error,
    ) as error:
        raise refusal(path, f"no readable NIfTI header ({error})", "a NIfTI file") from error
    if not isinstance(image, nibabel.Nifti1Image):  # Nifti2Image is a subclass
        raise refusal(path, f"a file of type {type(image).__name__}", "a NIfTI file")
    return image


def read_nifti(path: PathLike) -> Volume:
    """Read a NIfTI file; axes (x, y, z) come out as (Z, Y, X), and the affine's columns follow them.

    The affine maps (z, y, x) indices to the file's world coordinates, in the file's unit; nothing is
    reoriented. Of a single plane the result is (Y, X), and the affine holds the pixel size alone. Channels
    are the fourth axis, as many programs write them, or the fifth, as the standard has it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: axes beyond these, RGB or complex voxels, voxels of no size, truncated or damaged data.
    """
    path = Path(path)
    header = open_nifti(path)
    spatial_shape, channels = _nifti_shape(path, header.shape)
    if header.get_data_dtype().kind not in "biuf":
        raise refusal(path, f"voxels of type {header.get_data_dtype()}", "one integer or float a voxel")
    array = _nifti_voxels(path, type(header)).reshape(spatial_shape + channels)
    if len(spatial_shape) == 2:
        affine = np.diag([*header.header.get_zooms()[1::-1], 1.0]).astype(np.float64)
    else:
        affine = header.affine[:, [2, 1, 0, 3]]
    if not np.isfinite(affine).all() or np.linalg.det(affine) == 0:
        raise refusal(path, f"the affine {affine.tolist()}", "finite numbers, and no voxel of size 0")
    unit = UNITS.get(header.header.get_xyzt_units()[0], "unknown")
    codes = header.header["qform_code"], header.header["sform_code"]
    is_placed = len(spatial_shape) == 3 and any(codes)
    voxel_size = np.linalg.norm(affine[:-1, :-1], axis=0)
    return make_volume(path, array.transpose(), affine, bool(channels), unit, voxel_size, is_placed)


def nifti_spatial_shape(path: PathLike, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a NIfTI file in array order, (Z, Y, X), or (Y, X) for a single plane."""
    return _nifti_shape(Path(path), shape)[0][::-1]


def _nifti_shape(path: Path, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split a NIfTI shape into spatial axes and channels, () for a single one."""
    spatial, channels, rest = shape[:3], tuple(n for n in shape[3:5] if n > 1), shape[5:]
    if len(spatial) < 2 or len(channels) > 1 or math.prod(rest) > 1:
        expected = "one volume (x, y, z) or image (x, y), with or without one axis of channels"
        raise refusal(path, f"shape {' x '.join(map(str, shape))}", expected)
    if len(spatial) == 3 and spatial[2] == 1:
        spatial = spatial[:2]
    return spatial, channels


def _nifti_voxels(path: Path, image_class: type[nibabel.Nifti1Image]) -> np.ndarray:
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
            array = np.asarray(image_class.from_stream(stream).dataobj)
            while stream.read(1 << 20):  # the checksum of a gzip file is only tested at its end
                pass
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise refusal(path, f"data that cannot be read ({error})", "an undamaged NIfTI file") from error
    return array
