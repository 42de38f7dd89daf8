"""The affine of a TIFF is the voxel size in array order (z, y, x), in micrometres."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from image_samples import SHARED, load, write_tiff

from scripts.files.tiff_headers import read_tiff_header


class TestTiffVoxelSize:
    @pytest.mark.parametrize(("unit", "factor"), [("µm", 1), ("nm", 1e-3), ("mm", 1e3), ("Å", 1e-4)])
    def test_ome_states_a_length_and_a_unit(self, tmp_path: Path, unit: str, factor: float) -> None:
        sizes = {"PhysicalSizeZ": 3.0, "PhysicalSizeY": 2.0, "PhysicalSizeX": 0.5}
        units = {f"{name}Unit": unit for name in sizes}
        path = write_tiff(tmp_path / "a.ome.tif", ome=True, metadata={"axes": "ZYX", **sizes, **units})
        image = load(path)
        assert image.pixdim.tolist() == pytest.approx([3 * factor, 2 * factor, 0.5 * factor])
        assert image.meta["unit"] == "micrometre"
        assert image.meta["space"] == "RAS"

    def test_a_length_in_pixels_says_nothing_beside_others(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        sizes = {"PhysicalSizeZ": 1.0, "PhysicalSizeZUnit": "pixel", "PhysicalSizeY": 0.5, "PhysicalSizeX": 0.5}
        path = write_tiff(tmp_path / "a.ome.tif", ome=True, metadata={"axes": "ZYX", **sizes})
        assert read_tiff_header(path).voxel_size == {"Y": 0.5, "X": 0.5}
        assert load(path).meta["unit"] == "micrometre"
        assert not caplog.records  # one pixel states nothing
        path = write_tiff(tmp_path / "b.ome.tif", ome=True, metadata={"axes": "ZYX", **sizes, "PhysicalSizeZ": 3.0})
        assert read_tiff_header(path).voxel_size == {"Y": 0.5, "X": 0.5}
        assert re.search(r"b\.ome\.tif: found the voxel size 3 pixel along Z, which does not fit", caplog.text)

    @pytest.mark.parametrize("unit", [r"\u00C5", "nanometers", "parsec"])
    def test_imagej_keeps_proportions_in_any_unit(self, tmp_path: Path, unit: str) -> None:
        metadata = {"axes": "ZYX", "spacing": 2.0, "unit": unit}
        path = write_tiff(tmp_path / "a.tif", imagej=True, metadata=metadata, resolution=(2, 2))
        sizes = load(path).pixdim
        assert (sizes / sizes[0]).tolist() == pytest.approx([1, 0.25, 0.25])

    @pytest.mark.parametrize("unit", ["micron", "um", r"\u00B5m", r"\u03BCm", "microns", "micrometers"])
    def test_imagej_keeps_z_apart_from_y_and_x(self, tmp_path: Path, unit: str) -> None:
        metadata = {"axes": "ZYX", "spacing": 2.0, "unit": unit}
        path = write_tiff(tmp_path / "a.tif", imagej=True, metadata=metadata, resolution=(4, 8))
        assert load(path).pixdim.tolist() == pytest.approx([2.0, 1 / 8, 1 / 4])

    @pytest.mark.parametrize(("unit", "length"), [("micron", 1.0), ("nm", 1e-3)])
    def test_imagej_leaves_out_a_distance_of_slices_of_one(self, tmp_path: Path, unit: str, length: float) -> None:
        metadata = {"axes": "ZYX", "unit": unit}
        path = write_tiff(tmp_path / "a.tif", imagej=True, metadata=metadata, resolution=(4, 4))
        sizes = read_tiff_header(path).voxel_size
        assert sizes == pytest.approx({"Z": length, "Y": length / 4, "X": length / 4})

    def test_imagej_inches_are_the_dots_of_a_screen(self, tmp_path: Path) -> None:
        metadata = {"axes": "ZYX", "unit": "inch"}
        image = load(write_tiff(tmp_path / "a.tif", imagej=True, metadata=metadata, resolution=(96, 96)))
        assert image.pixdim.tolist() == [1.0, 1.0, 1.0]
        assert image.meta["unit"] == "pixel"

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
