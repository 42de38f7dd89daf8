"""Read TIFF, NIfTI and PNG files as MONAI images with axes (C, Z, Y, X) or (C, Y, X).

In a MONAI JSON config, images and labels are loaded by MONAI's own ``LoadImaged``::

    {"_target_": "LoadImaged", "keys": "image", "reader": "scripts.readers.VolumeReader",
     "ensure_channel_first": true}
    {"_target_": "LoadImaged", "keys": "label", "reader": "scripts.readers.VolumeReader",
     "ensure_channel_first": true, "dtype": null}

The image becomes float32, MONAI's default. ``"dtype": null`` keeps what the label file holds: integer ids
become int32 or int64 (float32 would merge ids above 2**24), and a float label stays float, so that the
check after it can refuse it.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import numpy as np
from monai.config import PathLike
from monai.data import ImageReader
from nibabel.spatialimages import HeaderDataError
from PIL import Image

from .image_files import NIFTI_SUFFIXES, PNG_SUFFIXES, SUFFIXES, TIFF_SUFFIXES, existing_file, refusal, split_suffix
from .tiff_files import read_tiff
from .volumes import Volume, make_volume

NIFTI_UNITS = {"micron": "micrometre", "mm": "millimetre", "meter": "metre"}


# -------------------------------------------------------------------------------------------------- NIfTI


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
    unit = NIFTI_UNITS.get(header.header.get_xyzt_units()[0], "unknown")
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


# ---------------------------------------------------------------------------------------------------- PNG


def read_png(path: PathLike) -> Volume:
    """Read a PNG file as (Y, X), or as (C, Y, X) where it has colours; pixels have the size 1.

    Of a palette image the result is the indices, not the colours: that is how label maps are stored. An
    alpha channel is left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no PNG, truncated or damaged data.
    """
    path = existing_file(path)
    data = path.read_bytes()
    has_palette = data[25:26] == b"\x03"  # the colour type, in the header that comes first in every file
    try:
        # Pillow keeps 8 of the 16 bits of a colour, imagecodecs keeps no palette
        array = np.asarray(Image.open(io.BytesIO(data))) if has_palette else imagecodecs.png_decode(data)
    except MemoryError:
        raise
    except Exception as error:  # both libraries have several
        raise refusal(path, f"data that cannot be decoded ({error})", "an undamaged PNG file") from error
    if array.ndim == 3:
        has_alpha = array.shape[2] in (2, 4)
        array = array.transpose(2, 0, 1)[: -1 if has_alpha else None]
    return make_volume(path, array, np.eye(3), array.ndim == 3, "pixel", [math.nan] * 2, has_palette=has_palette)


# ------------------------------------------------------------------------------------------- MONAI readers


def read_volume(path: PathLike) -> Volume:
    """Read a file of any of the formats; raises like :func:`read_tiff`, :func:`read_nifti`, :func:`read_png`."""
    suffix = split_suffix(path)[1].lower()
    if suffix in PNG_SUFFIXES:
        return read_png(path)
    return read_tiff(path) if suffix in TIFF_SUFFIXES else read_nifti(path)


def _paths(names: Sequence[PathLike] | PathLike) -> list[Path]:
    return [Path(names)] if isinstance(names, (str, Path)) else [Path(name) for name in names]


class _FileReader(ImageReader):
    """A MONAI reader of single files.

    Everything happens in ``get_data``: ``LoadImage`` swallows the errors of ``read`` and goes on to its
    other readers, one of which takes the first page of a TIFF for the whole of it.
    """

    suffixes: tuple[str, ...]

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether all of the named files have a suffix of this reader."""
        return all(path.name.lower().endswith(self.suffixes) for path in _paths(filename))

    def read(self, data: Sequence[PathLike] | PathLike, **_: object) -> list[Path]:
        """Return the paths; raises ValueError for a suffix for which ``LoadImage`` asks the next reader."""
        paths = _paths(data)
        if not self.verify_suffix(paths):
            raise refusal(paths[0], "another extension", f"one of {', '.join(self.suffixes)}")
        return paths

    def get_data(self, img: list[Path]) -> tuple[np.ndarray, dict[str, Any]]:
        """Return array and metadata of one file; errors as of :func:`read_volume`."""
        if len(img) != 1:
            raise refusal(img[0], f"a list of {len(img)} files", "one file for each image")
        return read_volume(img[0])


class TiffReader(_FileReader):
    """MONAI reader of TIFF files, see :func:`read_tiff`."""

    suffixes = TIFF_SUFFIXES


class NiftiReader(_FileReader):
    """MONAI reader of NIfTI files, see :func:`read_nifti`."""

    suffixes = NIFTI_SUFFIXES


class VolumeReader(_FileReader):
    """MONAI reader of TIFF, NIfTI and PNG files, the one to name in configs.

    It refuses any other file itself. ``LoadImage`` would pass on what ``TiffReader`` does not know to MONAI's
    own readers, which order the axes differently.
    """

    suffixes = SUFFIXES

    def read(self, data: Sequence[PathLike] | PathLike, **_: object) -> list[Path]:
        """Return the paths, unchecked: ``get_data`` refuses, and its error reaches the user as it is."""
        return _paths(data)
