"""What a TIFF says about its voxel grid: which of its pages are the image, and what their axes mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import tifffile
from monai.config import PathLike

from ..refusals import refusal
from .image_files import existing_file
from .tiff_voxel_sizes import stated_voxel_size


@dataclass(frozen=True)
class TiffHeader:
    """What a TIFF says about its voxel grid.

    Attributes:
        axes: one letter an axis in file order, axes of length one left out: "ZYX", "YX", "CZYX", "YXS".
        shape: the length of each of them.
        voxel_size: length of a voxel along the axes among Z, Y, X for which the file states one.
        unit: "micrometre", or "pixel" where no physical length is stated.
        flavour: "ome", "imagej", "shaped" (written by tifffile) or "plain".
        is_bigtiff: whether the file has 64-bit offsets.
        resolution: pixels along X and Y in one `resolution_unit`, as the tags say, which other programs may go by.
    """

    axes: str
    shape: tuple[int, ...]
    voxel_size: dict[str, float]
    unit: str
    flavour: str
    is_bigtiff: bool
    resolution: tuple[float, float] = (1.0, 1.0)
    resolution_unit: int = tifffile.RESUNIT.NONE

    @property
    def spatial_axes(self) -> str:
        """The axes without channels, in file order."""
        return "".join(axis for axis in self.axes if axis in "ZYX")

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """The shape in array order, (Z, Y, X) or (Y, X)."""
        return tuple(self.shape[self.axes.index(axis)] for axis in "ZYX" if axis in self.axes)


def read_tiff_header(path: PathLike) -> TiffHeader:
    """Read the grid of a TIFF without its voxels; raises like `tiff_files.read_tiff`."""
    with open_tiff(Path(path)) as tif:
        return series_header(Path(path), tif, image_series(Path(path), tif))


def open_tiff(path: Path) -> tifffile.TiffFile:
    """Open a TIFF, of which nothing is read but its first bytes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no TIFF.
    """
    existing_file(path)
    try:
        return tifffile.TiffFile(path)
    except Exception as error:  # tifffile, struct and the file system each have their own
        raise refusal(path, f"no readable TIFF header ({error})", "a TIFF file") from error


def image_series(path: Path, tif: tifffile.TiffFile) -> list[tifffile.TiffPageSeries]:
    """Return the one image of the file, or the equal planes that were written one after the other.

    Raises:
        ValueError: no image, several of them, damaged page directories, or metadata that do not match the pages.
    """
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


def series_header(path: Path, tif: tifffile.TiffFile, series: list[tifffile.TiffPageSeries]) -> TiffHeader:
    """Describe the image that `image_series` gives.

    Raises:
        ValueError: a time series, other axes than those of a volume with channels, a voxel size that is no number.
    """
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
            "one time point, or a stack with axes ZYX (in Fiji, Image > Properties makes slices of frames)",
        )
    if len(set(axes)) < len(axes) or set(axes) - set("CSZYX") or {"C", "S"} <= set(axes):
        names = """, named as tifffile does with metadata={"axes": "ZCYX"}""" if set(axes) & set("IQ") else ""
        raise refusal(path, f"axes {axes} of length {shape}", f"axes ZYX or YX, with or without channels{names}")
    flavour = series[0].kind
    if flavour not in ("ome", "imagej", "shaped"):
        flavour = "ome" if tif.is_ome else "imagej" if tif.is_imagej else "plain"
    voxel_size, unit = stated_voxel_size(path, tif, flavour)
    page = series[0].keyframe
    try:
        resolution = page.get_resolution()
    except (ValueError, ZeroDivisionError):
        resolution = 0.0, 0.0
    if not all(0 < pixels < math.inf for pixels in resolution):  # 0 is how many programs say that they know none
        return TiffHeader(axes, shape, voxel_size, unit, flavour, tif.is_bigtiff)
    return TiffHeader(axes, shape, voxel_size, unit, flavour, tif.is_bigtiff, resolution, page.resolutionunit)
