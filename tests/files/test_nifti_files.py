"""What a NIfTI file looks like once it is loaded."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from image_samples import PLANE, SHARED, STACK, load, write_nifti, write_tiff

from scripts.files.nifti_files import read_nifti
from scripts.files.writers import write_instances


class TestNifti:
    # x is flipped and scaled by 2, y by 3, z by 4, and there is an origin
    AFFINE = np.array([[-2.0, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
    def test_a_volume_is_one_channel_of_z_y_x(self, tmp_path: Path, suffix: str) -> None:
        image = load(write_nifti(tmp_path / f"a{suffix}", STACK.astype(np.int16), self.AFFINE))
        assert np.array_equal(image.numpy(), STACK[None])
        assert image.meta["spatial_shape"].tolist() == [3, 5, 7]
        assert image.pixdim.tolist() == [4.0, 3.0, 2.0]

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_the_case_of_the_suffix_does_not_matter(self, tmp_path: Path, suffix: str) -> None:
        path = write_nifti(tmp_path / f"a{suffix}", STACK.astype(np.int16)).rename(tmp_path / f"b{suffix.title()}")
        assert np.array_equal(load(path).numpy(), STACK[None])
        write_instances(STACK, path, path.with_name(f"c{suffix.title()}"))
        assert np.array_equal(load(path.with_name(f"c{suffix.title()}")).numpy(), STACK[None])

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

    @pytest.mark.parametrize("across", [0, 1, 2])
    def test_a_plane_across_any_axis(self, tmp_path: Path, across: int) -> None:
        array = np.expand_dims(PLANE.astype(np.int16).transpose(), across)
        nibabel.save(nibabel.Nifti1Image(array, self.AFFINE), tmp_path / "a.nii")
        image = load(tmp_path / "a.nii")
        assert np.array_equal(image.numpy(), PLANE[None])
        assert image.pixdim.tolist() == [length for axis, length in enumerate([2.0, 3.0, 4.0]) if axis != across][::-1]

    def test_pixels_of_a_plane_are_as_long_as_the_affine_says(self, tmp_path: Path) -> None:
        """As voxels of a volume: programs that set an affine do not always set the sizes in the header as well."""
        image = nibabel.Nifti1Image(PLANE.astype(np.int16).transpose(), np.eye(4))
        image.header.set_sform(self.AFFINE, 2)
        image.header["qform_code"] = 0
        nibabel.Nifti1Image(image.dataobj, None, image.header).to_filename(tmp_path / "a.nii")
        assert load(tmp_path / "a.nii").pixdim.tolist() == [3.0, 2.0]

    def test_the_thickness_of_a_plane_does_not_matter(self, tmp_path: Path) -> None:
        flat = self.AFFINE.copy()
        flat[:, 2] = 0
        image = nibabel.Nifti1Image(PLANE.astype(np.int16).transpose()[..., None], None)
        image.header.set_sform(flat, 1)
        nibabel.save(image, tmp_path / "a.nii")
        assert load(tmp_path / "a.nii").pixdim.tolist() == [3.0, 2.0]

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


def test_reading_nifti_from_a_stream_closes_the_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with gzip.open(buffer, "wb") as stream:
        stream.write(nibabel.Nifti1Image(STACK.astype(np.int16).transpose(), np.eye(4)).to_bytes())
    path = tmp_path / "a.nii.gz"
    path.write_bytes(buffer.getvalue())
    read_nifti(path)
    path.unlink()  # fails on Windows while the file is open
