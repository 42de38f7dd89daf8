"""Read and write plain, ImageJ and OME TIFF files, whole or not at all."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from monai.config import PathLike

from ..notices import SaidOnce
from ..refusals import refusal
from .tiff_completeness import check_tiff_is_complete
from .tiff_headers import TiffHeader, image_series, open_tiff, read_tiff_header, series_header
from .volumes import Volume, check_instances, is_brightness, make_volume
from .whole_files import whole_file

ALPHA = {tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA}

logger = logging.getLogger(__name__)
logger.addFilter(SaidOnce())


def read_tiff(path: PathLike) -> Volume:
    """Read a plain, ImageJ or OME TIFF; axes come out as (C, Z, Y, X), without those of length one.

    The stack axis of a plain file is Z. An alpha channel is left out. The affine is the voxel size in
    micrometres where OME or ImageJ metadata state it. Resolution tags alone are ignored: in plain files they
    are the 72 or 96 dots an inch of some screen. What is not stated is 1. Values are those of the file, also where it
    says that the lowest is white, as ImageJ does of masks that it only shows inverted. Only signed 16-bit values, which
    ImageJ stores 32768 higher, are what it shows.

    Raises:
        FileNotFoundError: no such file.
        ValueError: time series, several images, unequal pages, truncated or undecodable data, a voxel size that is no
            number.
    """
    path = Path(path)
    with open_tiff(path) as tif:
        series = image_series(path, tif)
        header = series_header(path, tif, series)
        check_tiff_is_complete(path, tif, series)
        page = series[0].keyframe
        try:
            arrays = [one.asarray(maxworkers=1) for one in series]  # the data loader has workers of its own
        except MemoryError:
            raise
        except Exception as error:  # each codec of imagecodecs has an error class of its own
            raise refusal(path, f"data that cannot be decoded ({error})", "an undamaged TIFF") from error
        is_signed = header.flavour == "imagej" and _is_signed_16_bit(tif)
    array = (arrays[0] if len(arrays) == 1 else np.stack(arrays)).reshape(header.shape)
    if is_signed:
        array = array.astype(np.int32) - 2**15
    order = [header.axes.index(axis) for axis in "CSZYX" if axis in header.axes]
    spacing = [header.voxel_size.get(axis, 1.0) for axis in "ZYX" if axis in header.axes]
    has_channels = len(order) > len(spacing)
    array = array.transpose(order)
    # not where S comes before Y and X: tifffile says of any array of four planes that the last one is transparency
    has_alpha = header.axes.endswith("S") and bool(set(page.extrasamples) & ALPHA)
    if has_alpha:
        array = array[:-1]
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        logger.warning(
            "%s: says that its lowest value is white, which is not looked at: 0 is dark in an image, and nothing in a "
            "label map; if it should be the other way round, save the file inverted",
            path,
        )
    colours = page.colormap if page.photometric == tifffile.PHOTOMETRIC.PALETTE else None
    has_palette = colours is not None and not is_brightness(colours.T)
    stated = [header.voxel_size.get(axis, math.nan) for axis in "ZYX" if axis in header.axes]
    affine = np.diag([*spacing, 1.0])
    return make_volume(
        path, array, affine, has_channels, header.unit, stated, has_palette=has_palette, had_alpha=has_alpha
    )


def _is_signed_16_bit(tif: tifffile.TiffFile) -> bool:
    """Whether an ImageJ file holds signed values: it says so by a calibration, zero + 1 value."""
    metadata = tif.imagej_metadata or {}
    calibration = [metadata.get(key) for key in ("cf", "c0", "c1")]  # a straight line, where, how steep
    return tif.pages.first.dtype == np.uint16 and calibration == [0, -(2**15), 1]


def write_tiff(instances: np.ndarray, source: Path, target: Path) -> None:
    """See `writers.write_instances`."""
    header = read_tiff_header(source)
    check_instances(instances, source, target, header.spatial_shape, np.iinfo(np.uint32).max)
    is_wide = bool(instances.size) and instances.max() > np.iinfo(np.uint16).max
    instances = instances.astype(np.uint32 if is_wide else np.uint16)
    array_axes = "ZYX"[-instances.ndim :]
    instances = instances.transpose([array_axes.index(axis) for axis in header.spatial_axes])
    flavour = header.flavour
    without_unit = header.unit == "pixel" and "X" in header.voxel_size  # which ImageJ's format cannot say
    if flavour == "imagej" and (is_wide or without_unit or instances.nbytes >= 2**32):
        flavour = "ome"
    with whole_file(target) as temporary:
        tifffile.imwrite(
            temporary,
            instances,
            photometric="minisblack",  # three planes would be taken for the colours of one
            compression="zlib",
            # compressed sizes are not known beforehand, so leave 32-bit offsets well before 4 GiB
            bigtiff=flavour != "imagej" and (header.is_bigtiff or instances.nbytes > 3 * 2**30),
            **_tiff_options(flavour, header),
        )


def _tiff_options(flavour: str, header: TiffHeader) -> dict[str, Any]:
    """Return what ``tifffile.imwrite`` needs in order to state axes and voxel size in one flavour of TIFF."""
    axes, sizes = header.spatial_axes, header.voxel_size
    if flavour == "ome":
        unit = "µm" if header.unit == "micrometre" else "pixel"
        lengths = {f"PhysicalSize{axis}": sizes[axis] for axis in axes if axis in sizes}
        return {
            "ome": True,
            "metadata": {"axes": axes, **lengths, **{f"{name}Unit": unit for name in lengths}},
        }
    if flavour == "imagej":
        micron = "micron" if header.unit == "micrometre" else "pixel"
        metadata: dict[str, str | float] = {"axes": axes, "unit": micron if "X" in sizes else "pixel"}
        if "Z" in sizes:
            metadata |= {"spacing": sizes["Z"], "zunit": micron}
        resolution = (1 / sizes.get("X", 1.0), 1 / sizes.get("Y", 1.0))
        return {"imagej": True, "metadata": metadata, "resolution": resolution}
    # said outright, as tifffile takes any file named .ome.tif for OME
    tags = {"resolution": header.resolution, "resolutionunit": header.resolution_unit}
    return {"ome": False, "metadata": {"axes": axes} if flavour == "shaped" else None, **tags}
