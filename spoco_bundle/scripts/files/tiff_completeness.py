"""Whether a TIFF is complete: tifffile fills missing planes with zeros, or leaves them out, without a word."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import tifffile

from ..refusals import refusal

# Data type code of a TIFF tag -> bytes a value, by the TIFF 6.0 and BigTIFF specifications.
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
TYPE_BYTES |= {16: 8, 17: 8, 18: 8}


def check_tiff_is_complete(path: Path, tif: tifffile.TiffFile, series: list[tifffile.TiffPageSeries]) -> None:
    """Refuse missing planes, which tifffile fills with zeros or leaves out, and data beyond the end.

    Args:
        path: the file, for messages.
        tif: the file, open.
        series: its image, as `tiff_headers.image_series` gives it.

    Raises:
        ValueError: what is missing.
    """
    _check_page_chain(path, tif)
    for one in series:
        pages = [page for page in one.pages if page is not None]
        planes, expected = sum(math.prod(page.shape) for page in pages), math.prod(one.shape)
        block = one.dataoffset if len(one.pages) == 1 else None  # where all planes are stored in one
        if planes != expected and block is None:
            plane = math.prod(one.keyframe.shape)
            raise refusal(path, f"{planes // plane} of {expected // plane} planes", "a complete file")
        ends = [] if block is None else [(block + one.nbytes, tif.filehandle.size)]
        for page in pages:
            segments = zip(page.dataoffsets, page.databytecounts, strict=False)
            ends += [(offset + count, page.parent.filehandle.size) for offset, count in segments]
        needed, size = max(ends, key=lambda end: end[0] - end[1])
        if needed > size:
            raise refusal(path, f"a file of {size} bytes", f"at least {needed} bytes: it is cut off")


def _check_page_chain(path: Path, tif: tifffile.TiffFile) -> None:
    """Follow the linked list of page directories to its end: those of a cut file point beyond it."""
    file, offset = tif.filehandle, tif.pages.first.offset
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise refusal(path, f"page {len(seen)} followed by an earlier one", "a list of pages that ends")
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
        length = count * TYPE_BYTES.get(data_type, 0)
        if length > layout.offsetsize and value + length > file.size:
            raise EOFError
    return following
