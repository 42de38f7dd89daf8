"""Files are known by their suffix, and told of in the order of their format."""

from __future__ import annotations

import pytest

from scripts.image_files import describe_shape, split_suffix


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/data/a.b.ome.tif", ("a.b", ".ome.tif")),
        ("a.b.TIFF", ("a.b", ".TIFF")),
        ("x.nii.gz", ("x", ".nii.gz")),
        ("x.nii", ("x", ".nii")),
    ],
)
def test_split_suffix(path: str, parts: tuple[str, str]) -> None:
    assert split_suffix(path) == parts


def test_shapes_are_told_in_the_order_of_the_file() -> None:
    assert describe_shape("a.tif", (3, 5, 7)) == "3 x 5 x 7 (z, y, x)"
    assert describe_shape("a.nii.gz", (3, 5, 7)) == "7 x 5 x 3 (x, y, z)"
    assert describe_shape("a.tif", (5, 7)) == "5 x 7 (y, x)"
