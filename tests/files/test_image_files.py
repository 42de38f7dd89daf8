"""Files are known by their suffix, and told of in the order of their format."""

from __future__ import annotations

import pytest

from scripts.files.image_files import describe_shape, image_name, split_suffix, unique_names


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


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/1136_image.ome.tif", "1136_image"),
        ("a/b.nii.gz", "b"),
        ("a/b.jpg", "b"),
        ("a/B.OME.TIFF", "B"),
        ("day.1.tif", "day.1"),
        ("plain", "plain"),
    ],
)
def test_an_image_has_the_name_of_its_file(path: str, name: str) -> None:
    assert image_name(path) == name


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["d1/a.tif", "d2/a.tif", "d2/b.tif"], ["d1/a", "d2/a", "b"]),
        (["x/d/a.tif", "y/d/a.tif"], ["x/d/a", "y/d/a"]),
        (["a.tif", "d/a.tif"], ["a", "d/a"]),
        (["d/a.tif", "d/a.nii.gz"], ["d/a.tif", "d/a.nii.gz"]),
        (["d/a.tif", "d/a.tif"], ["a", "a#2"]),
        (["d/a.tif", "d/a.tif", "d/a#2.tif", "d/a.tif"], ["a", "a#3", "a#2", "a#4"]),
        (["", ""], ["image_0", "image_1"]),
        ([], []),
    ],
)
def test_no_two_images_share_a_name(paths: list[str], names: list[str]) -> None:
    assert unique_names(paths) == names
