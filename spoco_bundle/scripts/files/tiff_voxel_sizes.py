"""The voxel size that a TIFF states: in OME metadata, or in ImageJ's description and resolution tags."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import tifffile

from ..notices import SaidOnce
from ..refusals import refusal

# One length unit in micrometres. Casefolded keys: that also turns the micro sign into the Greek letter mu.
MICROMETRES = {
    **dict.fromkeys(("μm", "um", "micron", "microns", "micrometer", "micrometre", "micrometers", "micrometres"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre", "nanometers", "nanometres"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre", "millimeters", "millimetres"), 1e3),
    **dict.fromkeys(("in", "inch", "inches"), 25400.0),
    **dict.fromkeys(("å", "angstrom", "ångström"), 1e-4),
    **{"pm": 1e-6, "cm": 1e4, "m": 1e6},
}
NO_UNIT = ("pixel", "pixels", "")
SCREEN_UNITS = ("in", "inch", "inches")  # ImageJ takes the dots an inch of plain files for a calibration

logger = logging.getLogger(__name__)
logger.addFilter(SaidOnce())


def stated_voxel_size(path: Path, tif: tifffile.TiffFile, flavour: str) -> tuple[dict[str, float], str]:
    """Return the stated voxel sizes by axis, and their unit.

    Where no axis has a known unit, lengths are kept as they are: they still say how anisotropic the grid is. Beside
    lengths in a known unit they say nothing.

    Args:
        path: the file, for messages.
        tif: the file, open.
        flavour: see `tiff_headers.TiffHeader`.

    Raises:
        ValueError: a voxel size that is no number.
    """
    lengths: dict[str, tuple[float, str]] = {}
    try:
        if flavour == "ome" and tif.ome_metadata is not None:
            lengths = _ome_lengths(tif.ome_metadata)
        elif flavour == "imagej":
            lengths = _imagej_lengths(tif)
    except ValueError as error:
        raise refusal(path, f"a voxel size that is no number ({error})", "one such as 0.5") from error
    for axis, (value, _) in lengths.items():
        if not 0 <= value < math.inf:  # 0 is how many programs say that they know none
            logger.warning("%s: found the voxel size %g along %s, which is taken for 1", path, value, axis)
    lengths = {axis: (value, unit) for axis, (value, unit) in lengths.items() if 0 < value < math.inf}
    known = {axis: value * MICROMETRES[unit] for axis, (value, unit) in lengths.items() if unit in MICROMETRES}
    if known:
        for axis, (value, unit) in lengths.items():
            if axis not in known and value != 1:  # one pixel states nothing
                message = "%s: found the voxel size %g %s along %s, which does not fit the other axes' unit, left out"
                logger.warning(message, path, value, unit, axis)
        return known, "micrometre"
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
    """Return axis -> (length, unit): Z from ImageJ's description, Y and X from the resolution tags.

    ImageJ leaves out a distance of slices of 1, in the unit of the others, and reads it as such.
    """
    metadata = tif.imagej_metadata or {}

    def unit_of(key: str, default: str) -> str:
        escaped = str(metadata.get(key, default))
        return re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), escaped).strip().casefold()

    unit = unit_of("unit", "pixel")
    if unit in SCREEN_UNITS:
        return {}
    is_calibrated = unit not in NO_UNIT
    left_out = 1 if is_calibrated and "slices" in metadata else 0
    lengths = {"Z": (abs(float(metadata.get("spacing", left_out))), unit_of("zunit", unit))}
    if is_calibrated:  # otherwise the tags tell no size of a voxel
        tags = tif.pages.first.tags
        for axis, axis_unit in (("Y", unit_of("yunit", unit)), ("X", unit)):
            pixels, per_length = tags.valueof(f"{axis}Resolution", default=(0, 0))
            lengths[axis] = (per_length / pixels if pixels else 0.0, axis_unit)
    return lengths
