"""What a TIFF of any flavour looks like once it is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from image_samples import PLANE, STACK, TIFF_FLAVOURS, assert_refused, load, write_tiff


def test_values_of_which_the_lowest_is_white_stay_and_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_tiff(tmp_path / "a.tif", photometric="miniswhite")
    for _ in range(2):
        assert np.array_equal(load(path).numpy(), STACK[None])
    assert [message.split(", which")[0] for message in caplog.messages] == [
        f"{path}: says that its lowest value is white"
    ]


class TestAxes:
    @pytest.mark.parametrize("options", TIFF_FLAVOURS.values(), ids=TIFF_FLAVOURS.keys())
    def test_a_stack_is_one_channel_of_z_y_x(self, tmp_path: Path, options: dict) -> None:
        image = load(write_tiff(tmp_path / "a.tif", **options))
        assert image.dtype == torch.float32
        assert np.array_equal(image.numpy(), STACK[None])

    @pytest.mark.parametrize("options", TIFF_FLAVOURS.values(), ids=TIFF_FLAVOURS.keys())
    def test_a_plane_is_one_channel_of_y_x(self, tmp_path: Path, options: dict) -> None:
        options = {**options, "metadata": {"axes": "YX"} if options.get("metadata", {}) else None}
        image = load(write_tiff(tmp_path / "a.tif", PLANE, **options))
        assert np.array_equal(image.numpy(), PLANE[None])
        assert image.affine.shape == (3, 3)

    def test_axes_of_length_one_are_dropped(self, tmp_path: Path) -> None:
        path = write_tiff(tmp_path / "a.tif", STACK[None, :, None], imagej=True, metadata={"axes": "TZCYX"})
        assert load(path).shape == (1, 3, 5, 7)

    def test_a_stack_of_one_plane_is_a_plane(self, tmp_path: Path) -> None:
        assert load(write_tiff(tmp_path / "a.ome.tif", STACK[:1], ome=True)).shape == (1, 5, 7)

    def test_a_narrow_image_keeps_y_and_x(self, tmp_path: Path) -> None:
        assert load(write_tiff(tmp_path / "a.tif", STACK[:, :1], metadata=None)).shape == (1, 3, 1, 7)

    def test_axes_in_another_order_are_reordered(self, tmp_path: Path) -> None:
        path = write_tiff(tmp_path / "a.tif", STACK.transpose(2, 0, 1).copy(), metadata={"axes": "XZY"})
        assert np.array_equal(load(path).numpy()[0], STACK)

    def test_planes_written_one_by_one_are_a_stack(self, tmp_path: Path) -> None:
        for index, plane in enumerate(STACK):
            write_tiff(tmp_path / "a.tif", plane, append=index > 0)
        assert np.array_equal(load(tmp_path / "a.tif").numpy()[0], STACK)

    def test_colours_become_channels(self, tmp_path: Path) -> None:
        colours = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
        image = load(write_tiff(tmp_path / "a.tif", colours, photometric="rgb"))
        assert np.array_equal(image.numpy(), colours.transpose(2, 0, 1))
        assert image.meta["spatial_shape"].tolist() == [5, 7]

    def test_channels_come_first_whatever_their_place_in_the_file(self, tmp_path: Path) -> None:
        channels = np.stack([STACK, STACK + 1000], axis=1)  # z, c, y, x
        image = load(write_tiff(tmp_path / "a.tif", channels, imagej=True, metadata={"axes": "ZCYX"}))
        assert np.array_equal(image.numpy(), channels.transpose(1, 0, 2, 3))

    def test_an_alpha_channel_is_left_out(self, tmp_path: Path) -> None:
        colours = np.arange(3 * 5 * 7 * 4, dtype=np.uint8).reshape(3, 5, 7, 4)
        image = load(write_tiff(tmp_path / "a.tif", colours, photometric="rgb"))
        assert np.array_equal(image.numpy(), colours[..., :3].transpose(3, 0, 1, 2))

    def test_the_last_of_four_planes_is_no_alpha_channel(self, tmp_path: Path) -> None:
        """tifffile, unless told otherwise, writes an array of four planes as colours and transparency."""
        planes = np.stack([PLANE, PLANE + 1000, PLANE + 2000, PLANE + 3000])
        image = load(write_tiff(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate"))
        assert np.array_equal(image.numpy(), planes)

    @pytest.mark.parametrize("axes", ["CZYX", "ZCYX", "ZYXC"])
    @pytest.mark.parametrize("flavour", [{}, {"ome": True}])
    def test_channels_of_a_volume(self, tmp_path: Path, axes: str, flavour: dict) -> None:
        channels = np.stack([STACK, STACK + 1000, STACK + 2000])  # c, z, y, x
        if flavour and axes == "ZYXC":
            axes, flavour = "ZYXS", {**flavour, "photometric": "rgb"}  # OME knows channels at the end as samples
        stored = np.moveaxis(channels, 0, axes.replace("S", "C").index("C")).copy()
        image = load(write_tiff(tmp_path / "a.tif", stored, **flavour, metadata={"axes": axes}))
        assert np.array_equal(image.numpy(), channels)
        assert image.meta["spatial_shape"].tolist() == [3, 5, 7]

    def test_a_palette_gives_its_indices(self, tmp_path: Path) -> None:
        palette = np.arange(3 * 256, dtype=np.uint16).reshape(256, 3).T[::-1] % 511
        path = write_tiff(tmp_path / "a.tif", PLANE.astype(np.uint8), photometric="palette", colormap=palette)
        assert np.array_equal(load(path).numpy()[0], PLANE)
        assert load(path).meta["has_palette"]

    def test_a_palette_that_only_shows_grey_values_is_none(self, tmp_path: Path) -> None:
        """Fiji saves images that it shows in green, or in any other such lookup table, with a palette."""
        green = np.zeros((3, 256), np.uint16)
        green[1] = np.arange(256) * 257
        path = write_tiff(tmp_path / "a.tif", PLANE.astype(np.uint8), photometric="palette", colormap=green)
        assert np.array_equal(load(path).numpy()[0], PLANE)
        assert not load(path).meta["has_palette"]

    def test_signed_values_of_imagej(self, tmp_path: Path) -> None:
        """It stores them 32768 higher: as they are, what nobody annotated would be one large object."""
        calibration = {"axes": "ZYX", "cf": 0, "c0": -32768.0, "c1": 1.0, "vunit": "gray value"}
        path = write_tiff(tmp_path / "a.tif", (STACK + 2**15).astype(np.uint16), imagej=True, metadata=calibration)
        assert np.array_equal(load(path).numpy()[0], STACK)

    @pytest.mark.parametrize("calibration", [{"cf": 0, "c0": 0.0, "c1": 0.5}, {"cf": 20, "c0": -32768.0, "c1": 1.0}])
    def test_other_calibrations_of_values_change_nothing(self, tmp_path: Path, calibration: dict) -> None:
        path = write_tiff(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "ZYX", **calibration})
        assert np.array_equal(load(path).numpy()[0], STACK)

    def test_a_pyramid_gives_its_full_resolution(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
            writer.write(STACK, subifds=1, photometric="minisblack", metadata={"axes": "ZYX"})
            writer.write(STACK[:, ::2, ::2], subfiletype=1, photometric="minisblack")
        assert np.array_equal(load(tmp_path / "a.ome.tif").numpy()[0], STACK)


def test_damaged_compressed_data(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", PLANE, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        start = tif.pages[0].dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[start : start + 20] = bytes(20)
    path.write_bytes(data)
    assert_refused(path, "data that cannot be decoded")
