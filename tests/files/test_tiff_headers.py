"""TIFF files that are no TIFF, or no single volume or image, are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from image_samples import PLANE, STACK, assert_refused, write_tiff


def test_time_series(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "TYX"})
    assert_refused(path, r"a time series of 3 frames \(axes TYX\), expected one time point, or a stack")


def test_pages_of_unequal_shape(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", PLANE, metadata=None)
    write_tiff(tmp_path / "a.tif", PLANE[:3], metadata=None, append=True)
    assert_refused(tmp_path / "a.tif", "2 images of shape 5 x 7, 3 x 7, expected one image a file")


def test_several_ome_images(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for _ in range(2):
            writer.write(STACK, photometric="minisblack")
    assert_refused(tmp_path / "a.ome.tif", "2 images of shape 3 x 5 x 7, 3 x 5 x 7, expected one image")


def test_more_axes_than_a_volume_has(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.zeros((2, 3, 5, 7), np.uint8))
    assert_refused(path, r"axes .* of length \(2, 3, 5, 7\), expected axes ZYX or YX.*, named as tifffile does with")


def test_no_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"not a TIFF at all")
    assert_refused(path, "no readable TIFF header")
