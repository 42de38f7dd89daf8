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
import logging
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import imagecodecs
import nibabel
import numpy as np
import tifffile
from monai.config import PathLike
from monai.data import ImageReader
from nibabel.spatialimages import HeaderDataError
from PIL import Image

from .image_files import NIFTI_SUFFIXES, PNG_SUFFIXES, SUFFIXES, TIFF_SUFFIXES, existing_file, refusal, split_suffix
from .volumes import Volume, make_volume

# One length unit in micrometres. Casefolded keys: that also turns the micro sign into the Greek letter mu.
MICROMETRES = {
    **dict.fromkeys(("μm", "um", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("in", "inch"), 25400.0),
    **{"pm": 1e-6, "å": 1e-4, "cm": 1e4, "m": 1e6},
}
# Data type code of a TIFF tag -> bytes a value, by the TIFF 6.0 and BigTIFF specifications.
TIFF_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
TIFF_TYPE_BYTES |= {16: 8, 17: 8, 18: 8}
ALPHA = {tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA}
NIFTI_UNITS = {"micron": "micrometre", "mm": "millimetre", "meter": "metre"}

logger = logging.getLogger(__name__)


# --------------------------------------------------------------------------------------------------- TIFF


@dataclass(frozen=True)
class TiffHeader:
    """What a TIFF says about its voxel grid.

    Attributes:
        axes: one letter an axis in file order, axes of length one left out: "ZYX", "YX", "CZYX", "YXS".
        shape: the length of each of them.
        stored_shape: the shape with the axes of length one.
        voxel_size: length of a voxel along the axes among Z, Y, X for which the file states one.
        unit: "micrometre", or "pixel" where no physical length is stated.
        flavour: "ome", "imagej", "shaped" (written by tifffile) or "plain".
        is_bigtiff: whether the file has 64-bit offsets.
    """

    axes: str
    shape: tuple[int, ...]
    stored_shape: tuple[int, ...]
    voxel_size: dict[str, float]
    unit: str
    flavour: str
    is_bigtiff: bool

    @property
    def spatial_axes(self) -> str:
        """The axes without channels, in file order."""
        return "".join(axis for axis in self.axes if axis in "ZYX")

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """The shape in array order, (Z, Y, X) or (Y, X)."""
        return tuple(self.shape[self.axes.index(axis)] for axis in "ZYX" if axis in self.axes)


def read_tiff_header(path: PathLike) -> TiffHeader:
    """Read the grid of a TIFF without its voxels; raises like :func:`read_tiff`."""
    with _open_tiff(Path(path)) as tif:
        return _tiff_header(Path(path), tif, _tiff_series(Path(path), tif))


def read_tiff(path: PathLike) -> Volume:
    """Read a plain, ImageJ or OME TIFF; axes come out as (C, Z, Y, X), without those of length one.

    The stack axis of a plain file is Z. An alpha channel is left out. The affine is the voxel size in
    micrometres where OME or ImageJ metadata state it. Resolution tags alone are ignored: in plain files they
    are the 72 or 96 dots an inch of some screen. What is not stated is 1.

    Raises:
        FileNotFoundError: no such file.
        ValueError: time series, several images, unequal pages, truncated or undecodable data, a voxel size that is no
            number.
    """
    path = Path(path)
    with _open_tiff(path) as tif:
        series = _tiff_series(path, tif)
        header = _tiff_header(path, tif, series)
        _check_tiff_is_complete(path, tif, series)
        page = series[0].keyframe
        try:
            arrays = [one.asarray(maxworkers=1) for one in series]  # the data loader has workers of its own
        except MemoryError:
            raise
        except Exception as error:  # each codec of imagecodecs has an error class of its own
            raise refusal(path, f"data that cannot be decoded ({error})", "an undamaged TIFF") from error
    array = (arrays[0] if len(arrays) == 1 else np.stack(arrays)).reshape(header.shape)
    order = [header.axes.index(axis) for axis in "CSZYX" if axis in header.axes]
    spacing = [header.voxel_size.get(axis, 1.0) for axis in "ZYX" if axis in header.axes]
    has_channels = len(order) > len(spacing)
    array = array.transpose(order)
    if "S" in header.axes and set(page.extrasamples) & ALPHA:
        array = array[:-1]
    has_palette = page.photometric == tifffile.PHOTOMETRIC.PALETTE
    stated = [header.voxel_size.get(axis, math.nan) for axis in "ZYX" if axis in header.axes]
    affine = np.diag([*spacing, 1.0])
    return make_volume(path, array, affine, has_channels, header.unit, stated, has_palette=has_palette)


def _open_tiff(path: Path) -> tifffile.TiffFile:
    existing_file(path)
    try:
        return tifffile.TiffFile(path)
    except Exception as error:  # tifffile, struct and the file system each have their own
        raise refusal(path, f"no readable TIFF header ({error})", "a TIFF file") from error


def _tiff_series(path: Path, tif: tifffile.TiffFile) -> list[tifffile.TiffPageSeries]:
    """Return the one image of the file, or the equal planes that were written one after the other."""
    try:
        # reduced pages are the lower levels of a pyramid
        series = [one for one in tif.series if not one.keyframe.is_reduced]
    except Exception as error:  # a cut or damaged directory fails in many ways
        raise refusal(path, f"page directories that cannot be read ({error})", "a complete TIFF") from error
    # tifffile falls back to pages without a meaning when they do not fit what the metadata say
    if (tif.is_ome or tif.is_imagej) and any(one.kind in ("generic", "uniform") for one in series):
        flavour = "OME" if tif.is_ome else "ImageJ"
        raise refusal(path, f"{flavour} metadata that do not match the pages", "a complete file")
    grids = {(one.axes, one.shape, str(one.dtype)) for one in series}
    if len(series) > 1 and (tif.is_ome or len(grids) > 1 or len(series[0].shape) > 2):
        shapes = ", ".join(" x ".join(map(str, one.shape)) for one in series[:3])
        more = ", ..." if len(series) > 3 else ""
        raise refusal(path, f"{len(series)} images of shape {shapes}{more}", "one image a file")
    if not series:
        raise refusal(path, "no image", "one image a file")
    return series


def _tiff_header(path: Path, tif: tifffile.TiffFile, series: list[tifffile.TiffPageSeries]) -> TiffHeader:
    stored_axes, stored_shape = series[0].get_axes(squeeze=False), series[0].get_shape(squeeze=False)
    if len(series) > 1:
        stored_axes, stored_shape = f"Z{stored_axes}", (len(series), *stored_shape)
    kept = [index for index, axis in enumerate(stored_axes) if axis in "YX" or stored_shape[index] > 1]
    axes = "".join(stored_axes[index] for index in kept)
    if "Z" not in axes:
        axes = axes.replace("I", "Z", 1) if "I" in axes else axes.replace("Q", "Z", 1)
    shape = tuple(stored_shape[index] for index in kept)
    if "T" in axes:
        frames = shape[axes.index("T")]
        raise refusal(
            path,
            f"a time series of {frames} frames (axes {axes})",
            "one time point, or a stack with axes ZYX",
        )
    if len(set(axes)) < len(axes) or set(axes) - set("CSZYX") or {"C", "S"} <= set(axes):
        raise refusal(path, f"axes {axes} of length {shape}", "axes ZYX or YX, with or without channels")
    flavour = series[0].kind
    if flavour not in ("ome", "imagej", "shaped"):
        flavour = "ome" if tif.is_ome else "imagej" if tif.is_imagej else "plain"
    voxel_size, unit = _tiff_voxel_size(path, tif, flavour)
    return TiffHeader(axes, shape, stored_shape, voxel_size, unit, flavour, tif.is_bigtiff)


def _tiff_voxel_size(path: Path, tif: tifffile.TiffFile, flavour: str) -> tuple[dict[str, float], str]:
    """Return the stated voxel sizes by axis, and their unit.

    Lengths in pixels, or in no known unit, are kept as they are: they still say how anisotropic the grid is.
    """
    lengths: dict[str, tuple[float, str]] = {}
    try:
        if flavour == "ome":
            lengths = _ome_lengths(tif.ome_metadata)
        elif flavour == "imagej":
            lengths = _imagej_lengths(tif)
    except ValueError as error:
        raise refusal(path, f"a voxel size that is no number ({error})", "one such as 0.5") from error
    for axis, (value, _) in lengths.items():
        if not 0 <= value < math.inf:  # 0 is how many programs say that they know none
            logger.warning("%s: found the voxel size %g along %s, which is taken for 1", path, value, axis)
    lengths = {axis: (value, unit) for axis, (value, unit) in lengths.items() if 0 < value < math.inf}
    if lengths and all(unit in MICROMETRES for _, unit in lengths.values()):
        return {axis: value * MICROMETRES[unit] for axis, (value, unit) in lengths.items()}, "micrometre"
    return {axis: value for axis, (value, _) in lengths.items()}, "pixel"


def _ome_lengths(xml: str) -> dict[str, tuple[float, str]]:
    """Return axis -> (length, unit) of the first ``Pixels`` element."""
    pixels = next(element for element in ElementTree.fromstring(xml).iter() if element.tag.endswith("Pixels"))
    return {
        axis: (
            float(pixels.get(f"PhysicalSize{axis}", 0)),
            pixels.get(f"PhysicalSize{axis}Unit", "µm").casefold(),
        )
        for axis in "ZYX"
    }


def _imagej_lengths(tif: tifffile.TiffFile) -> dict[str, tuple[float, str]]:
    """Return axis -> (length, unit): Z from ImageJ's description, Y and X from the resolution tags."""
    metadata = tif.imagej_metadata or {}

    def unit_of(key: str, default: str) -> str:
        return str(metadata.get(key, default)).replace("\\u00B5", "µ").strip().casefold()

    unit = unit_of("unit", "pixel")
    lengths = {"Z": (abs(float(metadata.get("spacing", 0))), unit_of("zunit", unit))}
    if unit in MICROMETRES:  # without a unit the tags are not a calibration
        tags = tif.pages.first.tags
        for axis, axis_unit in (("Y", unit_of("yunit", unit)), ("X", unit)):
            pixels, per_length = tags.valueof(f"{axis}Resolution", default=(0, 0))
            lengths[axis] = (per_length / pixels if pixels else 0.0, axis_unit)
    return lengths


def _check_tiff_is_complete(path: Path, tif: tifffile.TiffFile, series: list[tifffile.TiffPageSeries]) -> None:
    """Refuse missing planes, which tifffile fills with zeros or leaves out, and data beyond the end."""
    _check_page_chain(path, tif)
    for one in series:
        pages = [page for page in one.pages if page is not None]
        planes, expected = sum(math.prod(page.shape) for page in pages), math.prod(one.shape)
        stored_in_one_block = len(one.pages) == 1 and one.dataoffset is not None
        if planes != expected and not stored_in_one_block:
            plane = math.prod(one.keyframe.shape)
            raise refusal(path, f"{planes // plane} of {expected // plane} planes", "a complete file")
        ends = [(one.dataoffset + one.nbytes, tif.filehandle.size)] if stored_in_one_block else []
        for page in pages:
            segments = zip(page.dataoffsets, page.databytecounts, strict=False)
            ends += [(offset + count, page.parent.filehandle.size) for offset, count in segments]
        needed, size = max(ends, key=lambda end: end[0] - end[1])
        if needed > size:
            raise refusal(path, f"a file of {size} bytes", f"at least {needed} bytes: it is cut off")


def _check_page_chain(path: Path, tif: tifffile.TiffFile) -> None:
    """Follow the linked list of page directories to its end: those of a cut file point beyond it."""
    file, offset, seen = tif.filehandle, tif.pages.first.offset, set()
    while offset and offset not in seen:
        seen.add(offset)
        file.seek(offset)
        try:
            offset = _check_page_tags(tif)
        except (EOFError, struct.error):
            raise refusal(path, f"page {len(seen)} incomplete", "a complete file: it is cut off") from None


def _check_page_tags(tif: tifffile.TiffFile) -> int:
    """Read the page directory at the file's position and return the offset of the next one.

    Raises EOFError or struct.error when the directory, or what one of its tags points to, is beyond the end.
    """
    file, layout = tif.filehandle, tif.tiff
    (number_of_tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    entries = file.read(number_of_tags * layout.tagsize)
    (following,) = struct.unpack(layout.offsetformat, file.read(layout.offsetsize))
    entry = f"{tif.byteorder}HH{layout.offsetformat[-1] * 2}"  # code, data type, count, value or its offset
    for _, data_type, count, value in struct.iter_unpack(entry, entries):
        length = count * TIFF_TYPE_BYTES.get(data_type, 0)
        if length > layout.offsetsize and value + length > file.size:
            raise EOFError
    return following


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
