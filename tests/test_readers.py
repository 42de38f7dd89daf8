"""What a TIFF, NIfTI or PNG file of any flavour looks like once it is loaded."""

from __future__ import annotations

import gzip
import io
import re
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import numpy as np
import pytest
import tifffile
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged
from PIL import Image

from scripts.image_files import describe_shape, split_suffix
from scripts.nifti_files import read_nifti
from scripts.readers import NiftiReader, TiffReader
from scripts.tiff_files import read_tiff
from scripts.tiff_headers import read_tiff_header

SHARED = Path(__file__).parents[2] / "shared" / "data"
STACK = np.arange(3 * 5 * 7, dtype=np.uint16).reshape(3, 5, 7)  # z, y, x
PLANE = STACK[1]


def write_tiff(path: Path, array: np.ndarray = STACK, **options: Any) -> Path:  # noqa: ANN401
    tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})
    return path


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write an array with axes (z, y, x) the way NIfTI has it, (x, y, z)."""
    nibabel.save(nibabel.Nifti1Image(array.transpose(), np.eye(4) if affine is None else affine), path)
    return path


def load(path: Path, **options: Any) -> MetaTensor:  # noqa: ANN401
    options = {"reader": "scripts.readers.VolumeReader", "ensure_channel_first": True, **options}
    return LoadImaged("image", **options)({"image": str(path)})["image"]


class TestTiffAxes:
    FLAVOURS = {
        "plain": {"metadata": None},
        "written by tifffile": {"metadata": {"axes": "ZYX"}},
        "written by tifffile without axes": {},
        "compressed": {"compression": "zlib"},
        "LZW": {"compression": "lzw", "predictor": True},
        "tiled": {"tile": (16, 16)},
        "BigTIFF": {"bigtiff": True},
        "big endian": {"byteorder": ">"},
        "ImageJ": {"imagej": True, "metadata": {"axes": "ZYX"}},
        "ImageJ, compressed": {"imagej": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
        "OME": {"ome": True, "metadata": {"axes": "ZYX"}},
    }

    @pytest.mark.parametrize("options", FLAVOURS.values(), ids=FLAVOURS.keys())
    def test_a_stack_is_one_channel_of_z_y_x(self, tmp_path: Path, options: dict) -> None:
        image = load(write_tiff(tmp_path / "a.tif", **options))
        assert image.dtype == torch.float32
        assert np.array_equal(image.numpy(), STACK[None])

    @pytest.mark.parametrize("options", FLAVOURS.values(), ids=FLAVOURS.keys())
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
        palette = np.arange(3 * 256, dtype=np.uint16).reshape(3, 256)
        path = write_tiff(tmp_path / "a.tif", PLANE.astype(np.uint8), photometric="palette", colormap=palette)
        assert np.array_equal(load(path).numpy()[0], PLANE)
        assert load(path).meta["has_palette"]

    def test_a_pyramid_gives_its_full_resolution(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
            writer.write(STACK, subifds=1, photometric="minisblack", metadata={"axes": "ZYX"})
            writer.write(STACK[:, ::2, ::2], subfiletype=1, photometric="minisblack")
        assert np.array_equal(load(tmp_path / "a.ome.tif").numpy()[0], STACK)


class TestTiffVoxelSize:
    """The affine is the voxel size in array order (z, y, x), in micrometres."""

    @pytest.mark.parametrize(("unit", "factor"), [("µm", 1), ("nm", 1e-3), ("mm", 1e3), ("Å", 1e-4)])
    def test_ome_states_a_length_and_a_unit(self, tmp_path: Path, unit: str, factor: float) -> None:
        sizes = {"PhysicalSizeZ": 3.0, "PhysicalSizeY": 2.0, "PhysicalSizeX": 0.5}
        units = {f"{name}Unit": unit for name in sizes}
        path = write_tiff(tmp_path / "a.ome.tif", ome=True, metadata={"axes": "ZYX", **sizes, **units})
        image = load(path)
        assert image.pixdim.tolist() == pytest.approx([3 * factor, 2 * factor, 0.5 * factor])
        assert image.meta["unit"] == "micrometre"
        assert image.meta["space"] == "RAS"

    @pytest.mark.parametrize("unit", ["micron", "um", r"\u00B5m", "microns"])
    def test_imagej_keeps_z_apart_from_y_and_x(self, tmp_path: Path, unit: str) -> None:
        metadata = {"axes": "ZYX", "spacing": 2.0, "unit": unit}
        path = write_tiff(tmp_path / "a.tif", imagej=True, metadata=metadata, resolution=(4, 8))
        assert load(path).pixdim.tolist() == pytest.approx([2.0, 1 / 8, 1 / 4])

    def test_imagej_lengths_in_nanometres(self, tmp_path: Path) -> None:
        metadata = {"axes": "ZYX", "spacing": 40.0, "unit": "nm"}
        path = write_tiff(tmp_path / "a.tif", imagej=True, metadata=metadata, resolution=(0.1, 0.1))
        assert load(path).pixdim.tolist() == pytest.approx([0.04, 0.01, 0.01])

    def test_imagej_lengths_in_pixels_still_say_how_anisotropic_the_grid_is(self, tmp_path: Path) -> None:
        metadata = {"axes": "ZYX", "spacing": 3.0, "unit": "pixel"}
        image = load(write_tiff(tmp_path / "a.tif", imagej=True, metadata=metadata, resolution=(72, 72)))
        assert image.pixdim.tolist() == [3.0, 1.0, 1.0]
        assert image.meta["unit"] == "pixel"

    def test_resolution_tags_of_a_plain_file_are_those_of_a_screen(self, tmp_path: Path) -> None:
        path = write_tiff(tmp_path / "a.tif", metadata=None, resolution=(72, 72), resolutionunit="INCH")
        assert load(path).pixdim.tolist() == [1.0, 1.0, 1.0]

    def test_what_is_not_stated_is_one(self, tmp_path: Path) -> None:
        metadata = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        path = write_tiff(tmp_path / "a.ome.tif", ome=True, metadata=metadata)
        assert load(path).pixdim.tolist() == [1.0, 0.5, 0.5]
        assert read_tiff_header(path).voxel_size == {"Y": 0.5, "X": 0.5}

    @pytest.mark.parametrize("stated", ["-0.5", "INF", "NaN"])
    def test_what_cannot_be_is_one_with_a_warning(
        self, tmp_path: Path, stated: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        image = load(self.with_size_x(tmp_path / "a.ome.tif", stated))
        assert image.pixdim.tolist() == [1.0, 2.0, 1.0]
        assert re.search(r"a\.ome\.tif: found the voxel size .* along X, which is taken for 1", caplog.text)

    def test_zero_is_one_as_many_programs_mean_by_it_that_they_know_none(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert load(self.with_size_x(tmp_path / "a.ome.tif", "0")).pixdim.tolist() == [1.0, 2.0, 1.0]
        assert caplog.text == ""

    def test_a_decimal_comma_is_refused(self, tmp_path: Path) -> None:
        message = r"a\.ome\.tif: found a voxel size that is no number \(.*'1,5 '\), expected one such as 0\.5\.$"
        with pytest.raises(ValueError, match=message):
            load(self.with_size_x(tmp_path / "a.ome.tif", "1,5"))

    def with_size_x(self, path: Path, stated: str) -> Path:
        metadata = {"axes": "ZYX", "PhysicalSizeY": 2.0, "PhysicalSizeX": 77.0}
        write_tiff(path, ome=True, metadata=metadata)
        path.write_bytes(path.read_bytes().replace(b'"77.0"', f'"{stated:4}"'.encode()))
        return path

    def test_a_real_ome_file(self) -> None:
        path = SHARED / "nuclei3d" / "1135_image.ome.tif"
        if not path.exists():
            pytest.skip("no development data")
        image = load(path)
        assert image.shape == (1, 100, 100, 100)
        assert image.pixdim.tolist() == pytest.approx([0.284, 0.127, 0.127])


class TestTiffRefusals:
    def refused(self, path: Path, message: str) -> None:
        with pytest.raises(ValueError, match=message) as error:
            load(path)
        assert str(error.value).startswith(f"{path}: found ")
        assert "\n" not in str(error.value)

    def test_time_series(self, tmp_path: Path) -> None:
        path = write_tiff(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "TYX"})
        self.refused(path, r"a time series of 3 frames \(axes TYX\), expected one time point, or a stack")

    def test_pages_of_unequal_shape(self, tmp_path: Path) -> None:
        write_tiff(tmp_path / "a.tif", PLANE, metadata=None)
        write_tiff(tmp_path / "a.tif", PLANE[:3], metadata=None, append=True)
        self.refused(tmp_path / "a.tif", "2 images of shape 5 x 7, 3 x 7, expected one image a file")

    def test_several_ome_images(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
            for _ in range(2):
                writer.write(STACK, photometric="minisblack")
        self.refused(tmp_path / "a.ome.tif", "2 images of shape 3 x 5 x 7, 3 x 5 x 7, expected one image")

    def test_more_axes_than_a_volume_has(self, tmp_path: Path) -> None:
        path = write_tiff(tmp_path / "a.tif", np.zeros((2, 3, 5, 7), np.uint8))
        self.refused(path, r"axes .* of length \(2, 3, 5, 7\), expected axes ZYX or YX")

    def test_no_tiff(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        path.write_bytes(b"not a TIFF at all")
        self.refused(path, "no readable TIFF header")

    def test_complex_values(self, tmp_path: Path) -> None:
        path = write_tiff(tmp_path / "a.tif", STACK.astype(np.complex64))
        self.refused(path, "values of type complex64, expected integers or floats")

    def test_ids_beyond_64_bits(self, tmp_path: Path) -> None:
        path = write_tiff(tmp_path / "a.tif", np.full((3, 5, 7), 2**63, np.uint64))
        self.refused(path, r"the value 9223372036854775808, expected integers below 2\*\*63")

    def test_damaged_compressed_data(self, tmp_path: Path) -> None:
        path = write_tiff(tmp_path / "a.tif", PLANE, compression="zlib")
        with tifffile.TiffFile(path) as tif:
            start = tif.pages[0].dataoffsets[0]
        data = bytearray(path.read_bytes())
        data[start : start + 20] = bytes(20)
        path.write_bytes(data)
        self.refused(path, "data that cannot be decoded")

    def test_ome_set_with_a_missing_plane(self, tmp_path: Path) -> None:
        path = write_tiff(tmp_path / "a.ome.tif", ome=True, metadata={"axes": "ZYX"})
        text = path.read_bytes().replace(b'SizeZ="3"', b'SizeZ="4"')
        path.write_bytes(text)
        self.refused(path, "3 of 4 planes, expected a complete file")

    def test_imagej_file_with_fewer_pages_than_it_says(self, tmp_path: Path) -> None:
        path = write_tiff(tmp_path / "a.tif", imagej=True, metadata={"axes": "ZYX"}, compression="zlib")
        path.write_bytes(path.read_bytes().replace(b"slices=3", b"slices=9"))
        self.refused(path, "3 of 9 planes, expected a complete file")

    @pytest.mark.parametrize(
        "options", TestTiffAxes.FLAVOURS.values(), ids=[str(name) for name in TestTiffAxes.FLAVOURS]
    )
    def test_a_file_cut_off_anywhere(self, tmp_path: Path, options: dict) -> None:
        whole = write_tiff(tmp_path / "whole.tif", **options).read_bytes()
        path = tmp_path / "a.tif"
        padding = 16  # tifffile fills up to a multiple of 16 bytes at the end of some files
        for length in range(0, len(whole) - padding, 29):
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"a\.tif: found .*, expected .*\."):
                read_tiff(path)


class TestNifti:
    # x is flipped and scaled by 2, y by 3, z by 4, and there is an origin
    AFFINE = np.array([[-2.0, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
    def test_a_volume_is_one_channel_of_z_y_x(self, tmp_path: Path, suffix: str) -> None:
        image = load(write_nifti(tmp_path / f"a{suffix}", STACK.astype(np.int16), self.AFFINE))
        assert np.array_equal(image.numpy(), STACK[None])
        assert image.meta["spatial_shape"].tolist() == [3, 5, 7]
        assert image.pixdim.tolist() == [4.0, 3.0, 2.0]

    def test_affine_and_array_agree(self, tmp_path: Path) -> None:
        affine = load(write_nifti(tmp_path / "a.nii", STACK.astype(np.int16), self.AFFINE)).affine.numpy()
        z, y, x = 2, 4, 6
        assert np.array_equal(affine @ [z, y, x, 1], self.AFFINE @ [x, y, z, 1])

    @pytest.mark.parametrize("trailing", [(), (1,), (1, 1)])
    def test_a_plane_is_one_channel_of_y_x(self, tmp_path: Path, trailing: tuple[int, ...]) -> None:
        array = PLANE.astype(np.int16).transpose().reshape(7, 5, *trailing)
        nibabel.save(nibabel.Nifti1Image(array, self.AFFINE), tmp_path / "a.nii.gz")
        image = load(tmp_path / "a.nii.gz")
        assert np.array_equal(image.numpy(), PLANE[None])
        assert image.pixdim.tolist() == [3.0, 2.0]

    def test_a_time_axis_of_length_one_is_dropped(self, tmp_path: Path) -> None:
        array = STACK.astype(np.int16).transpose()[..., None]
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii")
        assert load(tmp_path / "a.nii").shape == (1, 3, 5, 7)

    @pytest.mark.parametrize("shape", [(7, 5, 3, 2), (7, 5, 3, 1, 2)], ids=["fourth", "fifth"])
    def test_the_axis_after_the_spatial_ones_is_channels(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        channels = np.stack([STACK, STACK + 1]).astype(np.int16)  # c, z, y, x
        nibabel.save(nibabel.Nifti1Image(channels.transpose().reshape(shape), np.eye(4)), tmp_path / "a.nii")
        image = load(tmp_path / "a.nii")
        assert np.array_equal(image.numpy(), channels)
        assert image.meta["spatial_shape"].tolist() == [3, 5, 7]

    def test_channels_of_a_plane(self, tmp_path: Path) -> None:
        channels = np.stack([PLANE, PLANE + 1, PLANE + 2]).astype(np.int16)  # c, y, x
        nibabel.save(nibabel.Nifti1Image(channels.transpose()[:, :, None], np.eye(4)), tmp_path / "a.nii")
        assert np.array_equal(load(tmp_path / "a.nii").numpy(), channels)

    @pytest.mark.parametrize(("code", "unit"), [("mm", "millimetre"), ("micron", "micrometre")])
    def test_the_unit_is_that_of_the_file(self, tmp_path: Path, code: str, unit: str) -> None:
        image = nibabel.Nifti1Image(STACK.astype(np.int16).transpose(), self.AFFINE)
        image.header.set_xyzt_units(code)
        nibabel.save(image, tmp_path / "a.nii")
        assert load(tmp_path / "a.nii").meta["unit"] == unit

    def test_nifti_2(self, tmp_path: Path) -> None:
        nibabel.save(nibabel.Nifti2Image(STACK.astype(np.int32).transpose(), np.eye(4)), tmp_path / "a.nii")
        assert np.array_equal(load(tmp_path / "a.nii").numpy()[0], STACK)

    def test_a_tiff_image_and_a_nifti_label_of_one_volume_agree(self, tmp_path: Path) -> None:
        image = load(write_tiff(tmp_path / "a.tif", metadata={"axes": "ZYX"}))
        label = load(write_nifti(tmp_path / "a.nii.gz", STACK.astype(np.int32)), dtype=None)
        assert torch.equal(image.as_tensor(), label.as_tensor().float())

    def test_time_series_with_channels_are_refused(self, tmp_path: Path) -> None:
        nibabel.save(nibabel.Nifti1Image(np.zeros((7, 5, 3, 2, 4), np.int16), np.eye(4)), tmp_path / "a.nii")
        with pytest.raises(ValueError, match=r"a\.nii: found shape 7 x 5 x 3 x 2 x 4, expected one volume"):
            load(tmp_path / "a.nii")

    def test_colours_are_refused(self, tmp_path: Path) -> None:
        colours = np.zeros((7, 5, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
        nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "a.nii")
        with pytest.raises(ValueError, match="voxels of type .*, expected one integer or float a voxel"):
            load(tmp_path / "a.nii")

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_a_file_cut_off_anywhere_is_refused(self, tmp_path: Path, suffix: str) -> None:
        whole = write_nifti(tmp_path / f"whole{suffix}", STACK.astype(np.int16)).read_bytes()
        path = tmp_path / f"a{suffix}"
        for length in [*range(0, len(whole), 7), len(whole) - 1]:
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"a\.nii.*: found .*, expected .*\."):
                read_nifti(path)

    @pytest.mark.parametrize("size", [0.0, float("nan")])
    def test_voxels_of_no_size_are_refused(self, tmp_path: Path, size: float) -> None:
        image = nibabel.Nifti1Image(STACK.astype(np.int16).transpose(), np.eye(4))
        image.header["srow_x"][0] = size
        image.header["sform_code"] = 1
        (tmp_path / "a.nii").write_bytes(image.header.binaryblock + bytes(4) + STACK.astype(np.int16).tobytes())
        with pytest.raises(ValueError, match=r"a\.nii: found the affine \[.*\], expected finite numbers, and no voxel"):
            load(tmp_path / "a.nii")

    def test_a_wrong_checksum_is_refused(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 1000, (20, 20, 20), dtype=np.int16)
        whole = bytearray(write_nifti(tmp_path / "a.nii.gz", noise).read_bytes())
        whole[-6] ^= 1  # the last 8 bytes are checksum and length
        (tmp_path / "a.nii.gz").write_bytes(whole)
        with pytest.raises(ValueError, match="data that cannot be read .CRC check failed"):
            load(tmp_path / "a.nii.gz")

    def test_real_files(self) -> None:
        folder = SHARED / "neurites3d"
        if not folder.exists():
            pytest.skip("no development data")
        label = load(folder / "test_labels.nii.gz", dtype=None)
        assert label.shape == (1, 80, 250, 250)
        assert label.dtype == torch.int32
        assert label.pixdim.tolist() == pytest.approx([1e-5, 1e-5, 1e-5])  # 10 nm, in millimetres


class TestPng:
    COLOURS = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)

    def write(self, path: Path, array: np.ndarray) -> Path:
        path.write_bytes(imagecodecs.png_encode(array))
        return path

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_grey_values(self, tmp_path: Path, dtype: type) -> None:
        plane = PLANE.astype(dtype) * (1 if dtype == np.uint8 else 900)
        image = load(self.write(tmp_path / "a.PNG", plane))
        assert np.array_equal(image.numpy(), plane[None])
        assert image.affine.tolist() == np.eye(3).tolist()
        assert image.meta["spatial_shape"].tolist() == [5, 7]

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_colours_become_channels(self, tmp_path: Path, dtype: type) -> None:
        colours = self.COLOURS.astype(dtype) * (1 if dtype == np.uint8 else 600)
        image = load(self.write(tmp_path / "a.png", colours))
        assert np.array_equal(image.numpy(), colours.transpose(2, 0, 1))

    @pytest.mark.parametrize(("colours", "left"), [(COLOURS, 3), (COLOURS[..., :1], 1)])
    def test_an_alpha_channel_is_left_out(self, tmp_path: Path, colours: np.ndarray, left: int) -> None:
        alpha = np.full((5, 7, 1), 200, np.uint8)
        image = load(self.write(tmp_path / "a.png", np.concatenate([colours, alpha], axis=-1)))
        assert np.array_equal(image.numpy(), colours.transpose(2, 0, 1))
        assert image.shape[0] == left

    def test_a_palette_gives_its_indices_and_not_its_colours(self, tmp_path: Path) -> None:
        image = Image.fromarray(PLANE.astype(np.uint8), mode="L")
        image.putpalette([200, 100, 50] * 256)
        image.save(tmp_path / "a.png", transparency=0)
        label = load(tmp_path / "a.png", dtype=None)
        assert np.array_equal(label.numpy(), PLANE[None])
        assert label.dtype == torch.int32
        assert label.meta["has_palette"]

    def test_a_palette_of_few_colours(self, tmp_path: Path) -> None:
        image = Image.fromarray(PLANE.astype(np.uint8) % 3, mode="L")
        image.putpalette([200, 100, 50, 0, 0, 0, 9, 9, 9])
        image.save(tmp_path / "a.png", bits=2)
        assert np.array_equal(load(tmp_path / "a.png", dtype=None).numpy()[0], PLANE % 3)

    def test_a_file_cut_off_anywhere_is_refused(self, tmp_path: Path) -> None:
        grey = self.write(tmp_path / "whole.png", PLANE).read_bytes()
        image = Image.fromarray(PLANE.astype(np.uint8), mode="L")
        image.putpalette([200, 100, 50] * 256)
        image.save(tmp_path / "palette.png")
        end = 24  # two checksums and the last chunk hold no pixels
        for whole in (grey, (tmp_path / "palette.png").read_bytes()):
            for length in range(0, len(whole) - end, 5):
                (tmp_path / "a.png").write_bytes(whole[:length])
                with pytest.raises(ValueError, match=r"a\.png: found data that cannot be decoded .*, expected an un"):
                    load(tmp_path / "a.png")


class TestLabelTypes:
    """With ``dtype=None`` ids stay what they are."""

    @pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32, bool])
    def test_small_integers_become_int32(self, tmp_path: Path, dtype: type) -> None:
        ids = (STACK % 2).astype(dtype)
        label = load(write_tiff(tmp_path / "a.tif", ids, metadata=None), dtype=None)
        assert label.dtype == torch.int32
        assert np.array_equal(label.numpy()[0], ids)

    @pytest.mark.parametrize("dtype", [np.uint32, np.int64, np.uint64])
    def test_large_integers_become_int64(self, tmp_path: Path, dtype: type) -> None:
        ids = STACK.astype(dtype) + 2**24 + 1  # float32 cannot tell these from their neighbours
        label = load(write_tiff(tmp_path / "a.tif", ids, metadata=None), dtype=None)
        assert label.dtype == torch.int64
        assert np.array_equal(label.numpy()[0], ids)

    def test_nifti_ids_above_2_to_24(self, tmp_path: Path) -> None:
        ids = STACK.astype(np.int32) + 2**24 + 1
        assert np.array_equal(load(write_nifti(tmp_path / "a.nii.gz", ids), dtype=None).numpy()[0], ids)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.dtype(">f4")])
    def test_floats_stay_floats_so_that_the_check_sees_them(self, tmp_path: Path, dtype: np.dtype) -> None:
        label = load(write_tiff(tmp_path / "a.tif", STACK.astype(dtype), metadata=None), dtype=None)
        assert label.is_floating_point()


class TestAsMonaiReader:
    def test_named_in_a_config(self, tmp_path: Path) -> None:
        path = str(write_tiff(tmp_path / "a.tif", STACK.astype(np.uint32) + 2**24 + 1, metadata=None))
        common = {
            "_target_": "LoadImaged",
            "reader": "scripts.readers.VolumeReader",
            "ensure_channel_first": True,
        }
        parser = ConfigParser(
            {
                "preprocessing": {
                    "_target_": "Compose",
                    "transforms": [
                        {**common, "keys": "image"},
                        {**common, "keys": "label", "dtype": None},
                    ],
                }
            }
        )
        loaded = parser.get_parsed_content("preprocessing")({"image": path, "label": path})
        assert loaded["image"].dtype == torch.float32
        assert loaded["label"].dtype == torch.int64
        assert loaded["image"].meta["filename_or_obj"] == path

    def test_the_two_readers_side_by_side(self, tmp_path: Path) -> None:
        tiff = write_tiff(tmp_path / "a.tif", metadata=None)
        nifti = write_nifti(tmp_path / "a.nii", STACK.astype(np.int16))
        for readers in ([TiffReader, NiftiReader], [NiftiReader, TiffReader]):
            assert load(tiff, reader=readers).shape == load(nifti, reader=readers).shape == (1, 3, 5, 7)

    def test_a_refused_tiff_is_not_passed_on_to_a_reader_of_first_pages(self, tmp_path: Path) -> None:
        path = write_tiff(tmp_path / "a.tif", imagej=True, metadata={"axes": "TYX"})
        with pytest.raises(ValueError, match="time series"):
            load(path, reader=[TiffReader, NiftiReader])

    def test_compose_keeps_the_sentence_as_the_cause(self, tmp_path: Path) -> None:
        loader = LoadImaged("image", reader="scripts.readers.VolumeReader")
        with pytest.raises(RuntimeError) as error:
            Compose([loader])({"image": tmp_path / "missing.tif"})
        assert str(error.value.__cause__) == f"{tmp_path / 'missing.tif'}: no such file."

    @pytest.mark.parametrize("name", ["a.tif", "a.nii.gz", "a.png"])
    def test_a_missing_file(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(FileNotFoundError, match="no such file"):
            load(tmp_path / name)

    @pytest.mark.parametrize("name", ["a.tif", "a.nii.gz", "a.png"])
    def test_a_folder_in_the_place_of_a_file(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).mkdir()
        with pytest.raises(ValueError, match=f"{name}: found a folder, expected a file"):
            load(tmp_path / name)

    @pytest.mark.parametrize("name", ["a.tif", "a.nii", "a.nii.gz", "a.png"])
    def test_an_empty_file(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match=f"{name}: found .*, expected .*"):
            load(tmp_path / name)

    def test_another_format(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"a\.jpg: found the extension \.jpg, expected one of \.ome\.tiff"):
            load(tmp_path / "a.jpg")

    def test_metadata_survive_a_batch(self, tmp_path: Path) -> None:
        from monai.data import decollate_batch, list_data_collate

        image = load(write_tiff(tmp_path / "a.tif", metadata=None))
        batch = list_data_collate([{"image": image}, {"image": image}])
        assert decollate_batch(batch)[1]["image"].meta["filename_or_obj"] == str(tmp_path / "a.tif")


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


def test_reading_nifti_from_a_stream_closes_the_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with gzip.open(buffer, "wb") as stream:
        stream.write(nibabel.Nifti1Image(STACK.astype(np.int16).transpose(), np.eye(4)).to_bytes())
    path = tmp_path / "a.nii.gz"
    path.write_bytes(buffer.getvalue())
    read_nifti(path)
    path.unlink()  # fails on Windows while the file is open
