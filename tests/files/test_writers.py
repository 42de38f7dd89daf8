"""An instance map is written on the grid and in the format of the image it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from image_samples import STACK, write_tiff
from monai.bundle import ConfigParser
from monai.transforms import LoadImaged, SaveImaged
from PIL import Image

from scripts.files.nifti_files import read_nifti
from scripts.files.png_files import read_png
from scripts.files.tiff_files import read_tiff
from scripts.files.tiff_headers import TiffHeader, read_tiff_header
from scripts.files.writers import SaveInstancesd, check_targets, write_instances

INSTANCES = STACK[::-1].astype(np.int32).copy()

MICROMETRES = {f"PhysicalSize{axis}Unit": "µm" for axis in "ZYX"}
FLAVOURS = {
    "plain": {"metadata": None},
    "written by tifffile": {"metadata": {"axes": "ZYX"}},
    "BigTIFF": {"metadata": {"axes": "ZYX"}, "bigtiff": True},
    "ImageJ": {
        "imagej": True,
        "metadata": {"axes": "ZYX", "spacing": 2.0, "unit": "micron"},
        "resolution": (4, 8),
    },
    "OME": {
        "ome": True,
        "metadata": {
            "axes": "ZYX",
            "PhysicalSizeZ": 0.284,
            "PhysicalSizeY": 0.127,
            "PhysicalSizeX": 0.13,
            **MICROMETRES,
        },
    },
    "OME without sizes": {"ome": True, "metadata": {"axes": "ZYX"}},
}


def grid_of(header: TiffHeader) -> tuple:
    sizes = {axis: pytest.approx(size, rel=1e-5) for axis, size in header.voxel_size.items()}
    return header.axes, header.shape, sizes, header.unit, header.flavour, header.is_bigtiff


class TestTiff:
    @pytest.mark.parametrize("options", FLAVOURS.values(), ids=FLAVOURS.keys())
    def test_flavour_axes_and_voxel_size_are_the_sources(self, tmp_path: Path, options: dict) -> None:
        source, target = write_tiff(tmp_path / "a.tif", **options), tmp_path / "b.tif"
        write_instances(INSTANCES, source, target)
        assert np.array_equal(read_tiff(target).array, INSTANCES)
        assert grid_of(read_tiff_header(source)) == grid_of(read_tiff_header(target))

    @pytest.mark.parametrize("options", FLAVOURS.values(), ids=FLAVOURS.keys())
    def test_planes(self, tmp_path: Path, options: dict) -> None:
        metadata = {**options["metadata"], "axes": "YX"} if options["metadata"] else None
        source = write_tiff(tmp_path / "a.tif", STACK[0], **{**options, "metadata": metadata})
        write_instances(INSTANCES[0], source, tmp_path / "b.tif")
        assert np.array_equal(read_tiff(tmp_path / "b.tif").array, INSTANCES[0])

    @pytest.mark.parametrize("metadata", [None, {"axes": "ZYX"}])
    def test_resolution_tags_are_the_sources(self, tmp_path: Path, metadata: dict | None) -> None:
        tags = {"resolution": (300, 150), "resolutionunit": "centimeter"}
        source = write_tiff(tmp_path / "a.tif", metadata=metadata, **tags)
        write_instances(INSTANCES, source, tmp_path / "b.tif")
        header = read_tiff_header(tmp_path / "b.tif")
        assert (header.resolution, header.resolution_unit) == ((300, 150), tifffile.RESUNIT.CENTIMETER)
        assert header.voxel_size == {}

    def test_axis_order_is_the_sources(self, tmp_path: Path) -> None:
        source = write_tiff(tmp_path / "a.tif", STACK.transpose(2, 0, 1).copy(), metadata={"axes": "XZY"})
        write_instances(INSTANCES, source, tmp_path / "b.tif")
        assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), INSTANCES.transpose(2, 0, 1))

    def test_a_colour_image_gives_one_id_a_pixel(self, tmp_path: Path) -> None:
        source = write_tiff(tmp_path / "a.tif", np.zeros((5, 7, 3), np.uint8), photometric="rgb")
        write_instances(INSTANCES[0], source, tmp_path / "b.tif")
        assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), INSTANCES[0])

    @pytest.mark.parametrize(("largest", "dtype"), [(65535, np.uint16), (65536, np.uint32), (2**31, np.uint32)])
    def test_the_type_is_as_wide_as_the_largest_id(self, tmp_path: Path, largest: int, dtype: type) -> None:
        source = write_tiff(tmp_path / "a.tif", metadata=None)
        instances = INSTANCES.astype(np.int64)
        instances[0, 0, 0] = largest
        write_instances(instances, source, tmp_path / "b.tif")
        written = tifffile.imread(tmp_path / "b.tif")
        assert written.dtype == dtype
        assert np.array_equal(written, instances)

    def test_imagej_cannot_hold_large_ids_so_they_become_ome(self, tmp_path: Path) -> None:
        source = write_tiff(tmp_path / "a.tif", **FLAVOURS["ImageJ"])
        write_instances(INSTANCES + 70000, source, tmp_path / "b.tif")
        header = read_tiff_header(tmp_path / "b.tif")
        assert header.flavour == "ome"
        assert header.voxel_size == pytest.approx({"Z": 2.0, "Y": 1 / 8, "X": 1 / 4})
        assert np.array_equal(read_tiff(tmp_path / "b.tif").array, INSTANCES + 70000)

    def test_imagej_cannot_state_pixels_of_unequal_edges_so_they_become_ome(self, tmp_path: Path) -> None:
        metadata = {"axes": "ZYX", "spacing": 2.0, "unit": "parsec"}
        source = write_tiff(tmp_path / "a.tif", imagej=True, metadata=metadata, resolution=(4, 8))
        write_instances(INSTANCES, source, tmp_path / "b.tif")
        header = read_tiff_header(tmp_path / "b.tif")
        assert (header.flavour, header.unit) == ("ome", "pixel")
        assert header.voxel_size == pytest.approx(read_tiff_header(source).voxel_size)

    def test_the_flavour_does_not_depend_on_the_name(self, tmp_path: Path) -> None:
        source = write_tiff(tmp_path / "a.ome.tif", ome=False, metadata=None)
        write_instances(INSTANCES, source, tmp_path / "b.ome.tif")
        assert read_tiff_header(tmp_path / "b.ome.tif").flavour == "plain"

    def test_data_are_compressed(self, tmp_path: Path) -> None:
        source = write_tiff(tmp_path / "a.tif", metadata=None)
        write_instances(INSTANCES, source, tmp_path / "b.tif")
        with tifffile.TiffFile(tmp_path / "b.tif") as tif:
            assert tif.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE


class TestNifti:
    AFFINE = np.array([[-2.0, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])

    def source(self, path: Path, shape: tuple[int, ...] = (7, 5, 3)) -> Path:
        image = nibabel.Nifti1Image(np.zeros(shape, np.int16), self.AFFINE)
        image.set_qform(self.AFFINE, code=1)
        image.set_sform(self.AFFINE, code=2)
        image.header.set_xyzt_units("micron")
        nibabel.save(image, path)
        return path

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
    def test_affine_codes_and_unit_are_the_sources(self, tmp_path: Path, suffix: str) -> None:
        source, target = self.source(tmp_path / f"a{suffix}"), tmp_path / f"b{suffix}"
        write_instances(INSTANCES + 2**24, source, target)
        written = nibabel.load(target)
        assert written.get_data_dtype() == np.int32
        assert np.array_equal(np.asarray(written.dataobj), INSTANCES.transpose() + 2**24)
        assert np.array_equal(written.affine, self.AFFINE)
        assert (int(written.header["qform_code"]), int(written.header["sform_code"])) == (1, 2)
        assert written.header.get_xyzt_units()[0] == "micron"
        assert np.array_equal(read_nifti(target).meta["affine"], read_nifti(source).meta["affine"])

    @pytest.mark.parametrize("shape", [(7, 5), (7, 5, 1)])
    def test_a_plane_keeps_its_third_axis_if_it_has_one(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        source = self.source(tmp_path / "a.nii", shape)
        write_instances(INSTANCES[0], source, tmp_path / "b.nii")
        assert nibabel.load(tmp_path / "b.nii").shape == shape
        assert np.array_equal(read_nifti(tmp_path / "b.nii").array, INSTANCES[0])

    @pytest.mark.parametrize("shape", [(7, 5, 3, 2), (7, 5, 3, 1, 2), (7, 5, 1, 2)])
    def test_an_image_of_several_channels_gives_one_id_a_voxel(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        instances = INSTANCES if shape[2] == 3 else INSTANCES[0]
        write_instances(instances, self.source(tmp_path / "a.nii", shape), tmp_path / "b.nii")
        assert nibabel.load(tmp_path / "b.nii").shape == shape[:3]
        assert np.array_equal(read_nifti(tmp_path / "b.nii").array, instances)

    def test_grey_values_of_the_source_do_not_rescale_the_ids(self, tmp_path: Path) -> None:
        image = nibabel.Nifti1Image(np.zeros((7, 5, 3), np.int16), np.eye(4))
        image.header.set_slope_inter(0.5, 10)
        nibabel.save(image, tmp_path / "a.nii")
        write_instances(INSTANCES, tmp_path / "a.nii", tmp_path / "b.nii")
        assert np.array_equal(read_nifti(tmp_path / "b.nii").array, INSTANCES)

    def test_nor_do_they_tell_a_viewer_which_ids_to_show(self, tmp_path: Path) -> None:
        image = nibabel.Nifti1Image(np.zeros((7, 5, 3), np.int16), np.eye(4))
        image.header["cal_min"], image.header["cal_max"] = 100, 2000
        nibabel.save(image, tmp_path / "a.nii")
        write_instances(INSTANCES, tmp_path / "a.nii", tmp_path / "b.nii")
        written = nibabel.load(tmp_path / "b.nii").header
        assert (written["cal_min"], written["cal_max"]) == (0, 0)

    def test_nor_what_the_voxels_are(self, tmp_path: Path) -> None:
        """Of a map of z-scores, or of colours: the result is a label map."""
        image = nibabel.Nifti1Image(np.zeros((7, 5, 3), np.float32), np.eye(4))
        image.header.set_intent("z score", name="activation")
        nibabel.save(image, tmp_path / "a.nii")
        write_instances(INSTANCES, tmp_path / "a.nii", tmp_path / "b.nii")
        assert nibabel.load(tmp_path / "b.nii").header.get_intent() == ("label", (), "")

    def test_ids_beyond_32_bits_are_refused(self, tmp_path: Path) -> None:
        source = self.source(tmp_path / "a.nii")
        with pytest.raises(ValueError, match="found the id 2147483648, expected ids up to 2147483647"):
            write_instances(INSTANCES * 0 + np.int64(2**31), source, tmp_path / "b.nii")


class TestPng:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        Image.fromarray(np.zeros((5, 7, 3), np.uint8)).save(tmp_path / "a.png")
        return tmp_path / "a.png"

    def test_ids_are_grey_values_of_16_bits(self, source: Path, tmp_path: Path) -> None:
        write_instances(INSTANCES[0] + 60_000, source, tmp_path / "b.png")
        assert np.array_equal(read_png(tmp_path / "b.png").array, INSTANCES[0] + 60_000)
        assert np.asarray(Image.open(tmp_path / "b.png")).dtype == np.uint16

    def test_ids_beyond_16_bits_are_refused(self, source: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="found the id 70104, expected ids up to 65535"):
            write_instances(INSTANCES[0] + 70_000, source, tmp_path / "b.png")

    def test_another_shape_is_refused(self, source: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"shape 5 x 6 \(y, x\), expected the shape 5 x 7"):
            write_instances(INSTANCES[0, :, 1:], source, tmp_path / "b.png")


def test_the_same_volume_in_both_formats_stays_the_same(tmp_path: Path) -> None:
    tiff = write_tiff(tmp_path / "a.tif", metadata={"axes": "ZYX"})
    nibabel.save(nibabel.Nifti1Image(STACK.astype(np.int16).transpose(), np.eye(4)), tmp_path / "a.nii.gz")
    write_instances(read_nifti(tmp_path / "a.nii.gz").array, tiff, tmp_path / "b.tif")
    write_instances(read_tiff(tiff).array, tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")
    assert np.array_equal(read_tiff(tmp_path / "b.tif").array, STACK)
    assert np.array_equal(read_nifti(tmp_path / "b.nii.gz").array, STACK)


class TestRefusals:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return write_tiff(tmp_path / "a.tif", metadata=None)

    def test_floats(self, source: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"b\.tif: found instances of type float32, expected integer ids"):
            write_instances(INSTANCES.astype(np.float32), source, tmp_path / "b.tif")

    def test_negative_ids(self, source: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="found the negative id -1, expected ids from 0"):
            write_instances(INSTANCES - 1, source, tmp_path / "b.tif")

    def test_another_shape(self, source: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"shape 3 x 5 x 6 \(z, y, x\), expected the shape 3 x 5 x 7"):
            write_instances(INSTANCES[..., 1:], source, tmp_path / "b.tif")

    def test_missing_source(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"a\.tif: no such file"):
            write_instances(INSTANCES, tmp_path / "a.tif", tmp_path / "b.tif")

    def test_a_failed_write_leaves_the_old_file_and_nothing_else(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "out"
        write_instances(INSTANCES, source, folder / "b.tif")
        before = (folder / "b.tif").read_bytes()

        def fail_half_way(path: Path, *_: object, **__: object) -> None:
            Path(path).write_bytes(b"half a file")
            raise OSError("disk full")

        monkeypatch.setattr(tifffile, "imwrite", fail_half_way)
        with pytest.raises(OSError, match="disk full"):
            write_instances(INSTANCES, source, folder / "b.tif")
        assert [path.name for path in folder.iterdir()] == ["b.tif"]
        assert (folder / "b.tif").read_bytes() == before


class TestTargets:
    """No result takes the place of an input."""

    def test_beside_the_images(self, tmp_path: Path) -> None:
        check_targets([{"image": f"{tmp_path}/a.tif"}, {"image": f"{tmp_path}/b.nii.gz"}], tmp_path, tmp_path)

    def test_an_image_with_the_name_of_a_result(self, tmp_path: Path) -> None:
        data = [{"image": f"{tmp_path}/a.tif"}, {"image": f"{tmp_path}/a_instances.tif"}]
        sentence = (
            r"a_instances\.tif: found an input in the place of the result of .*a\.tif, expected another output_dir"
        )
        with pytest.raises(ValueError, match=sentence):
            check_targets(data, tmp_path / "new" / "..", tmp_path)
        check_targets(data, tmp_path / "new", tmp_path)
        check_targets(data, tmp_path, tmp_path, postfix="next_objects")

    def test_a_mask_with_the_name_of_a_result(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"a_instances\.tif: found an input"):
            check_targets([{"image": "images/a.tif", "mask": f"{tmp_path}/a_instances.tif"}], tmp_path, tmp_path)

    def test_two_names_of_one_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data = [{"image": "b/A.tif"}, {"image": "a/b.tif"}, {"image": "a/a.nii"}]
        check_targets(data, tmp_path, tmp_path)  # on a file system that tells them apart
        assert not list(tmp_path.iterdir())
        monkeypatch.setattr("scripts.files.writers.tells_case_apart", lambda folder: False)
        check_targets(data[:2], tmp_path, tmp_path)
        with pytest.raises(ValueError, match=r"a/a\.nii: found a name that differs from that of b/A\.tif in its case"):
            check_targets(data, tmp_path, tmp_path)

    def test_ids_that_the_format_cannot_hold(self, tmp_path: Path) -> None:
        data = [{"image": "a.tif"}, {"image": "b.PNG"}]
        check_targets(data, tmp_path, tmp_path, largest_id=65000)
        with pytest.raises(
            ValueError, match=r"b\.PNG: found a PNG, and ids such as 66000 .*, expected ids up to 65535"
        ):
            check_targets(data, tmp_path, tmp_path, largest_id=66000)

    @pytest.mark.parametrize("name", ["images", "labels"])
    def test_a_folder_of_inputs_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).mkdir()
        with pytest.raises(ValueError, match=rf"{name}/\.\./{name}, a folder of inputs, expected another"):
            check_targets([], tmp_path / name / ".." / name, tmp_path)


class TestSaveInstancesd:
    def data(self, source: Path) -> dict[str, Any]:
        loader = LoadImaged("image", reader="scripts.files.readers.VolumeReader", ensure_channel_first=True)
        return {**loader({"image": str(source)}), "pred": torch.from_numpy(INSTANCES)[None]}

    @pytest.mark.parametrize(
        ("source", "target"),
        [
            ("a.b.ome.tif", "a.b_instances.ome.tif"),
            ("a.b.TIF", "a.b_instances.TIF"),
            ("x.tiff", "x_instances.tiff"),
        ],
    )
    def test_output_name(self, tmp_path: Path, source: str, target: str) -> None:
        saver = SaveInstancesd("pred", output_dir=tmp_path / "new" / "folder")
        saver(self.data(write_tiff(tmp_path / source, metadata={"axes": "ZYX"})))
        assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [target]

    def test_nifti_output_name(self, tmp_path: Path) -> None:
        nibabel.save(nibabel.Nifti1Image(np.zeros((7, 5, 3), np.int16), np.eye(4)), tmp_path / "x.nii.gz")
        SaveInstancesd("pred", output_dir=tmp_path / "out")(self.data(tmp_path / "x.nii.gz"))
        assert np.array_equal(read_nifti(tmp_path / "out" / "x_instances.nii.gz").array, INSTANCES)

    @pytest.mark.parametrize(("source", "table"), [("a.b.ome.tif", "a.b_instances.csv"), ("x.TIF", "x_instances.csv")])
    def test_scores_are_written_beside_the_map(self, tmp_path: Path, source: str, table: str) -> None:
        data = self.data(write_tiff(tmp_path / source, **FLAVOURS["OME"]))
        last = int(INSTANCES.max())
        data["pred_scores"] = torch.linspace(0, 1, last)
        SaveInstancesd("pred", output_dir=tmp_path / "out")(data)
        header, *lines = (tmp_path / "out" / table).read_text(encoding="utf-8").splitlines()
        assert len(lines) == last
        row = dict(zip(header.split(","), map(float, lines[-1].split(",")), strict=True))
        assert (row["id"], row["score"], row["voxels"]) == (last, 1, 1)
        assert row["volume_um3"] == pytest.approx(0.284 * 0.127 * 0.13)
        assert [row[f"centroid_{axis}_voxel"] for axis in "zyx"] == np.argwhere(last == INSTANCES)[0].tolist()
        assert row["centroid_x_um"] == pytest.approx(6 * 0.13)

    def test_voxel_size_and_unit_of_nifti(self, tmp_path: Path) -> None:
        source = TestNifti().source(tmp_path / "a.nii")  # voxels of 2 x 3 x 4 (x, y, z) micrometres
        SaveInstancesd("pred", output_dir=tmp_path)({**self.data(source), "pred_scores": np.ones(INSTANCES.max())})
        table = np.genfromtxt(tmp_path / "a_instances.csv", delimiter=",", names=True)
        assert set(table["volume_um3"]) == {24}
        z, y, x = np.argwhere(INSTANCES == 1)[0]
        assert [table[0][f"centroid_{axis}_um"] for axis in "zyx"] == [4 * z, 3 * y, 2 * x]

    def test_an_instance_that_is_not_in_the_map_is_not_in_the_table(self, tmp_path: Path) -> None:
        data = self.data(write_tiff(tmp_path / "a.tif", metadata=None))
        data["pred"] = torch.where(data["pred"] == 2, data["pred"], 0)
        data["pred_scores"] = torch.tensor([0.1, 0.2, 0.3])
        SaveInstancesd("pred", output_dir=tmp_path)(data)
        (line,) = (tmp_path / "a_instances.csv").read_text(encoding="utf-8").splitlines()[1:]
        assert line.startswith("2,0.2,1,")

    def test_a_map_that_was_corrected_is_kept(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        data = {
            **self.data(write_tiff(tmp_path / "a.ome.tif", **FLAVOURS["OME"])),
            "pred_scores": np.ones(INSTANCES.max()),
        }
        save = SaveInstancesd("pred", output_dir=tmp_path / "out")
        for largest in (3, 2, 1):  # each corrected by hand before the next run
            save(data)
            written = tmp_path / "out" / "a_instances.ome.tif"
            tifffile.imwrite(written, np.minimum(tifffile.imread(written), largest))
        assert "changed since it was written" in caplog.text
        kept = [tifffile.imread(tmp_path / "out" / f"a_instances_before_{number}.ome.tif").max() for number in (1, 2)]
        assert kept == [3, 2]
        assert not (tmp_path / "out" / "a_instances_before_3.ome.tif").exists()

    def test_a_correction_that_leaves_all_sizes_is_one(self, tmp_path: Path) -> None:
        data = {**self.data(write_tiff(tmp_path / "a.tif")), "pred_scores": np.ones(INSTANCES.max())}
        save = SaveInstancesd("pred", output_dir=tmp_path / "out")
        save(data)
        written = tmp_path / "out" / "a_instances.tif"
        tifffile.imwrite(written, np.flip(tifffile.imread(written), axis=-1))
        corrected = written.read_bytes()
        save(data)
        assert (tmp_path / "out" / "a_instances_before_1.tif").read_bytes() == corrected

    def test_one_that_is_as_it_was_written_is_replaced(self, tmp_path: Path) -> None:
        data = {**self.data(write_tiff(tmp_path / "a.tif")), "pred_scores": np.ones(INSTANCES.max())}
        save = SaveInstancesd("pred", output_dir=tmp_path / "out")
        save(data)
        save({**data, "pred": (data["pred"] > 0).int()})  # as with another threshold
        save({**data, "pred": 0 * data["pred"]})
        save(data)
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"a_instances.tif", "a_instances.csv"}

    @pytest.mark.parametrize("content", [b"", b"some text"])
    def test_nor_is_anything_else_of_that_name_lost(self, content: bytes, tmp_path: Path) -> None:
        data = {**self.data(write_tiff(tmp_path / "a.tif")), "pred_scores": np.ones(INSTANCES.max())}
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "a_instances.tif").write_bytes(content)
        SaveInstancesd("pred", output_dir=tmp_path / "out")(data)
        assert (tmp_path / "out" / "a_instances_before_1.tif").read_bytes() == content

    def test_named_in_a_config(self, tmp_path: Path) -> None:
        config = {"_target_": "scripts.files.writers.SaveInstancesd", "keys": "pred", "output_dir": "@output_dir"}
        parser = ConfigParser({"output_dir": str(tmp_path / "out"), "saver": config})
        parser.get_parsed_content("saver")(self.data(write_tiff(tmp_path / "a.tif", metadata=None)))
        assert np.array_equal(read_tiff(tmp_path / "out" / "a_instances.tif").array, INSTANCES)

    def test_monai_label_finds_it_as_a_saver(self, tmp_path: Path) -> None:
        assert isinstance(SaveInstancesd("pred", output_dir=tmp_path), SaveImaged)

    def test_errors_are_not_swallowed(self, tmp_path: Path) -> None:
        data = self.data(write_tiff(tmp_path / "a.tif", metadata=None))
        data["pred"] = data["pred"].float()
        with pytest.raises(ValueError, match=r"a_instances\.tif: found instances of type float32"):
            SaveInstancesd("pred", output_dir=tmp_path)(data)

    def test_several_channels_are_refused(self, tmp_path: Path) -> None:
        data = self.data(write_tiff(tmp_path / "a.tif", metadata=None))
        data["pred"] = torch.zeros(2, 3, 5, 7, dtype=torch.int32)
        with pytest.raises(ValueError, match=r"shape \(2, 3, 5, 7\), expected one channel"):
            SaveInstancesd("pred", output_dir=tmp_path)(data)

    def test_an_image_without_a_file_is_refused(self, tmp_path: Path) -> None:
        data = {"image": torch.zeros(1, 3, 5, 7), "pred": torch.from_numpy(INSTANCES)[None]}
        with pytest.raises(ValueError, match="without filename_or_obj"):
            SaveInstancesd("pred", output_dir=tmp_path)(data)
