"""Read and write NIfTI files: axes (x, y, z) come out as (Z, Y, X), with an affine to match."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path

import nibabel
import numpy as np
from monai.config import PathLike
from nibabel.spatialimages import HeaderDataError

from ..refusals import refusal
from .image_files import existing_file
from .volumes import Volume, check_instances, make_volume
from .whole_files import whole_file

HEADER_BYTES = 540  # of NIfTI-2, the longer one
UNITS = {"micron": "micrometre", "mm": "millimetre", "meter": "metre"}


def open_nifti(path: PathLike) -> nibabel.Nifti1Image:
    """Open a NIfTI file without reading its voxels.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not NIfTI, or a damaged header.
    """
    path = existing_file(path)
    try:
        with _opened(path) as stream:
            start = stream.read(HEADER_BYTES)
            stream.seek(0)
            for image_class in (nibabel.Nifti1Image, nibabel.Nifti2Image):
                if image_class.header_class.may_contain_header(start):
                    return image_class.from_stream(stream)
    except (
        nibabel.filebasedimages.ImageFileError,
        HeaderDataError,
        OSError,
        EOFError,
        ValueError,
        zlib.error,
    ) as error:
        raise refusal(path, f"no readable NIfTI header ({error})", "a NIfTI file") from error
    raise refusal(path, "no NIfTI header", "a NIfTI file")


def read_nifti(path: PathLike) -> Volume:
    """Read a NIfTI file; axes (x, y, z) come out as (Z, Y, X), and the affine's columns follow them.

    The affine maps (z, y, x) indices to the file's world coordinates, in the file's unit; nothing is
    reoriented. Of a single plane, across whichever axis, the result is (Y, X), and the affine holds the pixel
    size alone. Channels are the fourth axis, as many programs write them, or the fifth, as the standard has it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: axes beyond these, RGB or complex voxels, voxels of no size, truncated or damaged data.
    """
    path = Path(path)
    header = open_nifti(path)
    axes, channels = _image_axes(path, header.shape)
    if header.get_data_dtype().kind not in "biuf":
        raise refusal(path, f"voxels of type {header.get_data_dtype()}", "one integer or float a voxel")
    array = _nifti_voxels(path, type(header)).reshape([header.shape[axis] for axis in axes] + channels)
    placement = _placement(header.affine, axes)
    if not np.isfinite(placement).all() or np.linalg.det(placement) == 0:
        raise refusal(path, f"the affine {header.affine.tolist()}", "finite numbers, and no voxel of size 0")
    voxel_size = np.linalg.norm(placement[:3, :3], axis=0)[-len(axes) :]
    affine = placement if len(axes) == 3 else np.diag([*voxel_size, 1.0])
    unit = UNITS.get(header.header.get_xyzt_units()[0], "unknown")
    # a file of two dimensions cannot say where across its plane it lies
    tells_place = len(header.shape) > 2 and (header.header["qform_code"] or header.header["sform_code"])
    return make_volume(
        path, array.transpose(), affine, bool(channels), unit, voxel_size, placement if tells_place else None
    )


def _image_axes(path: Path, shape: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Which of the axes x, y, z of a NIfTI file are those of its image, and the number of channels, [] for one."""
    spatial, channels, rest = shape[:3], [n for n in shape[3:5] if n > 1], shape[5:]
    if len(spatial) < 2 or len(channels) > 1 or math.prod(rest) > 1:
        expected = "one volume (x, y, z) or image (x, y), with or without one axis of channels"
        raise refusal(path, f"shape {' x '.join(map(str, shape))}", expected)
    axes = list(range(len(spatial)))
    if len(spatial) == 3 and 1 in spatial:
        axes.remove(2 if spatial[2] == 1 else spatial.index(1))  # a single slice across it
    return axes, channels


def _placement(affine: np.ndarray, axes: list[int]) -> np.ndarray:
    """(4, 4), from indices (z, y, x) of the array to the world, of an affine of the file."""
    placement = affine[:, [*reversed(axes), 3]]
    if len(axes) == 3:
        return placement
    normal = np.cross(*placement[:3, :2].T[::-1])  # what the file says of a slice's thickness is often 0, or nonsense
    length = np.linalg.norm(normal)
    return np.insert(placement, 0, np.append(normal / length**0.5 if length else normal, 0), axis=1)


def _opened(path: Path) -> io.BufferedIOBase:
    return gzip.GzipFile(path) if path.name.lower().endswith(".gz") else path.open("rb")


def _nifti_voxels(path: Path, image_class: type[nibabel.Nifti1Image]) -> np.ndarray:
    try:
        with _opened(path) as stream:
            array = np.asarray(image_class.from_stream(stream).dataobj)
            while stream.read(1 << 20):  # the checksum of a gzip file is only tested at its end
                pass
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise refusal(path, f"data that cannot be read ({error})", "an undamaged NIfTI file") from error
    return array


def write_nifti(instances: np.ndarray, source: Path, target: Path) -> None:
    """See `writers.write_instances`."""
    image = open_nifti(source)
    shape = tuple(image.shape[axis] for axis in reversed(_image_axes(source, image.shape)[0]))
    check_instances(instances, source, target, shape, np.iinfo(np.int32).max)
    header = image.header.copy()
    header.set_data_dtype(np.int32)
    header.set_slope_inter(1, 0)
    header.set_intent("label")
    header["cal_min"] = header["cal_max"] = 0  # the grey values of the image; 0 lets a viewer choose
    stored = instances.astype(np.int32).transpose().reshape(image.shape[:3])
    # not `nibabel.save`, which writes a file .Nii to .nii
    with whole_file(target) as temporary, nibabel.openers.ImageOpener(str(temporary), "wb") as stream:
        # the header's own affine leaves its qform, sform and their codes as they are
        type(image)(stored, image.affine, header).to_stream(stream.fobj)
