"""A TIFF of which something is missing is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from image_samples import PLANE, TIFF_FLAVOURS, assert_refused, write_tiff

from scripts.files.tiff_files import read_tiff


def test_ome_set_with_a_missing_plane(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.ome.tif", ome=True, metadata={"axes": "ZYX"})
    text = path.read_bytes().replace(b'SizeZ="3"', b'SizeZ="4"')
    path.write_bytes(text)
    assert_refused(path, "3 of 4 planes, expected a complete file")


def test_imagej_file_with_fewer_pages_than_it_says(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", imagej=True, metadata={"axes": "ZYX"}, compression="zlib")
    path.write_bytes(path.read_bytes().replace(b"slices=3", b"slices=9"))
    assert_refused(path, "3 of 9 planes, expected a complete file")


@pytest.mark.parametrize("options", TIFF_FLAVOURS.values(), ids=[str(name) for name in TIFF_FLAVOURS])
def test_a_file_cut_off_anywhere(tmp_path: Path, options: dict) -> None:
    whole = write_tiff(tmp_path / "whole.tif", **options).read_bytes()
    path = tmp_path / "a.tif"
    padding = 16  # tifffile fills up to a multiple of 16 bytes at the end of some files
    for length in range(0, len(whole) - padding, 29):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.tif: found .*, expected .*\."):
            read_tiff(path)


def test_a_page_that_is_followed_by_itself_is_refused(tmp_path: Path) -> None:
    """Who follows the list of pages to its end never comes to one, and the planes after it are lost."""
    path = write_tiff(tmp_path / "a.tif", PLANE, metadata=None)
    content = bytearray(path.read_bytes())
    start = 8  # of the page's directory: a number of tags, 12 bytes for each, and where the next page starts
    (number_of_tags,) = struct.unpack_from("<H", content, start)
    struct.pack_into("<I", content, start + 2 + 12 * number_of_tags, start)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tif: found page 1 followed by an earlier one, expected"):
        read_tiff(path)
