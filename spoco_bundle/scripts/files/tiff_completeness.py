"""Whether a TIFF is complete: tifffile fills missing planes with zeros, or leaves them out, without a word."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import tifffile

from ..refusals import refusal

# Data type code of a TIFF tag -> bytes a value.
TYPE_BYTES = {code: struct.calcsize(f"={layout}") for code, layout in tifffile.TIFF.DATA_FORMATS.items()}
NEW_SUBFILE_TYPE, THUMBNAIL, MASK = 254, 1, 4  # the code of a tag, and bits of its value


def check_tiff_is_complete(path: Path, tif: tifffile.TiffFile, series: list[tifffile.TiffPageSeries]) -> None:
    """Refuse missing planes, which tifffile fills with zeros or leaves out, and data beyond the end.

    Args:
        path: the file, for messages.
        tif: the file, open.
        series: its image, as `tiff_headers.image_series` gives it.

    Raises:
        ValueError: what is missing.
    """
    pages_in_file = _count_pages(path, tif)
    if series[0].kind in ("ome", "imagej", "shaped"):
        _check_description(path, tif, series, pages_in_file)
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


def _check_description(
    path: Path, tif: tifffile.TiffFile, series: list[tifffile.TiffPageSeries], pages_in_file: int
) -> None:
    """Refuse metadata of another number of planes than there are pages, unless one page stands for all of them.

    As where a program passes on those of the file that it has read: tifffile would leave planes out, or invent some.
    """
    described = 0
    for one in series:
        if len(one.pages) == 1:  # a page for each plane, or one for all of them
            described += math.prod(one.shape) // math.prod(one.keyframe.shape)
        else:
            described += sum(page is not None and page.parent is tif for page in one.pages)
    if pages_in_file not in (described, len(series)):
        found = f"{pages_in_file} pages, and metadata of {described} planes"
        raise refusal(path, found, "metadata of all pages, as it gets when it is saved again, in Fiji for instance")


def _count_pages(path: Path, tif: tifffile.TiffFile) -> int:
    """Follow the linked list of page directories to its end: those of a cut file point beyond it.

    Returns:
        how many are not the thumbnail or the mask of another one.
    """
    file, offset = tif.filehandle, tif.pages.first.offset
    seen: set[int] = set()
    count = 0
    while offset:
        if offset in seen:
            raise refusal(path, f"page {len(seen)} followed by an earlier one", "a list of pages that ends")
        seen.add(offset)
        file.seek(offset)
        try:
            offset, is_image = _check_page_tags(tif)
        except (EOFError, struct.error):
            raise refusal(path, f"page {len(seen)} incomplete", "a complete file: it is cut off") from None
        count += is_image
    return count


def _check_page_tags(tif: tifffile.TiffFile) -> tuple[int, bool]:
    """Read the page directory at the file's position.

    Returns:
        the offset of the next one, and whether the page is an image of its own.

    Raises:
        EOFError, struct.error: the directory, or what one of its tags points to, is beyond the end.
    """
    file, layout = tif.filehandle, tif.tiff
    (number_of_tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    entries = file.read(number_of_tags * layout.tagsize)
    (following,) = struct.unpack(layout.offsetformat, file.read(layout.offsetsize))
    entry = f"{tif.byteorder}HH{layout.offsetformat[-1]}{layout.offsetsize}s"  # code, data type, count, value or offset
    is_image = True
    for code, data_type, count, value in struct.iter_unpack(entry, entries):
        length = count * TYPE_BYTES.get(data_type, 0)
        if length > layout.offsetsize and struct.unpack(layout.offsetformat, value)[0] + length > file.size:
            raise EOFError
        if code == NEW_SUBFILE_TYPE:
            is_image = not struct.unpack(f"{tif.byteorder}I", value[:4])[0] & (THUMBNAIL | MASK)
    return following, is_image
