"""A TIFF of which something is missing is refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from image_samples import PLANE, STACK, TIFF_FLAVOURS, assert_refused, write_tiff

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


IMAGEJ_OF_TWO = "ImageJ=1.54f\nimages=2\nslices=2\n"
OME_OF_TWO = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="7" SizeY="5" SizeZ="2" '
    'SizeC="1" SizeT="1"><TiffData/></Pixels></Image></OME>'
)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    "description", [IMAGEJ_OF_TWO, OME_OF_TWO, '{"shape": [5, 5, 7]}'], ids=["ij", "ome", "shaped"]
)
def test_metadata_of_another_number_of_planes_than_there_are_pages(
    tmp_path: Path, description: str, compression: str | None
) -> None:
    """As where a program passes on those of the file that it has read."""
    path = write_tiff(tmp_path / "a.tif", description=description, metadata=None, compression=compression)
    assert_refused(path, "3 pages, and metadata of . planes, expected metadata of all pages|3 of 2 planes")


def test_an_ome_set_of_several_files_is_whole_in_each(tmp_path: Path) -> None:
    """Of which a file has only some of the pages that its metadata speak of."""
    plane = '<TiffData FirstZ="{}" IFD="{}" PlaneCount="1"><UUID FileName="{}.ome.tif">urn:uuid:{}</UUID></TiffData>'
    planes = "".join(plane.format(*place) for place in [(0, 0, "a", "a"), (1, 1, "a", "a"), (2, 0, "b", "b")])
    description = OME_OF_TWO.replace('SizeZ="2"', 'SizeZ="3"').replace("<TiffData/>", planes)
    for name, stored in {"a": STACK[:2], "b": STACK[2:]}.items():
        text = description.replace("<OME ", f'<OME UUID="urn:uuid:{name}" ')
        write_tiff(tmp_path / f"{name}.ome.tif", stored, description=text, metadata=None)
    for name in ("a", "b"):
        assert np.array_equal(read_tiff(tmp_path / f"{name}.ome.tif").array, STACK)


def test_a_single_page_directory_for_all_planes(tmp_path: Path) -> None:
    """As ImageJ writes files above 4 GB, and tifffile those that it does not compress."""
    path = write_tiff(tmp_path / "a.tif", imagej=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as tif:
        first = tif.pages.first
        (tags,) = struct.unpack_from("<H", path.read_bytes(), first.offset)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, first.offset + 2 + 12 * tags, 0)  # no page follows
    path.write_bytes(content)
    assert np.array_equal(read_tiff(path).array, STACK)


@pytest.mark.parametrize(
    "kind", [{"subfiletype": 1}, {"subfiletype": 4, "photometric": "mask"}], ids=["thumbnail", "mask"]
)
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_pages_that_are_no_image_do_not_count(
    tmp_path: Path, kind: dict[str, Any], byteorder: str, bigtiff: bool
) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=False, byteorder=byteorder, bigtiff=bigtiff) as writer:
        description = OME_OF_TWO.replace('SizeZ="2"', 'SizeZ="3"')
        writer.write(STACK, photometric="minisblack", description=description, metadata=None)
        writer.write(PLANE[::2, ::2] > 0, **{"photometric": "minisblack", **kind}, metadata=None)
    assert np.array_equal(read_tiff(path).array, STACK)


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
