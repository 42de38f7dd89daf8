"""A TIFF of which something is missing is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_samples import TIFF_FLAVOURS, assert_refused, write_tiff

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
