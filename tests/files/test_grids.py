"""Which label files are refused because their grid is not that of the image, and which lack a grid and are not."""

from __future__ import annotations

import re
from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import pytest
import tifffile
from monai.data import MetaTensor
from monai.transforms import LoadImaged

from scripts.files.grids import stated_axes
from scripts.transforms.checks import CheckLabelsd

IDS = np.zeros((4, 4, 4), np.uint16)  # a cube, so that permuted axes do not show in the shape
IDS[1:3, 1:3, 1:3] = 7
PLACED = np.array([[-2.0, 0, 0, 10], [0, 1, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])


def nifti(path: Path, affine: np.ndarray | None, unit: str = "unknown", code: int = 1, ids: np.ndarray = IDS) -> Path:
    image = nibabel.Nifti1Image(ids.transpose(), affine)
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


def tiff(path: Path, voxel_size: tuple[float, ...] = (), unit: str = "µm") -> Path:
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", voxel_size, strict=False)}
    units = {f"{name}Unit": unit for name in sizes}
    metadata = {"axes": "ZYX", **sizes, **units}
    tifffile.imwrite(path, IDS, photometric="minisblack", ome=bool(sizes), metadata=metadata)
    return path


def check(image: Path, label: Path) -> None:
    load = LoadImaged(
        ["image", "label"], reader="scripts.files.readers.VolumeReader", ensure_channel_first=True, dtype=None
    )
    CheckLabelsd("label", "image")(load({"image": str(image), "label": str(label)}))


def refused(image: Path, label: Path, found: str, expected: str) -> None:
    sentence = f"{label}: found a grid of {found}, expected that of {image}, {expected}; resample the labels onto it"
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        check(image, label)


class TestVoxelSizes:
    def test_other_sizes_are_refused(self, tmp_path: Path) -> None:
        refused(
            nifti(tmp_path / "image.nii", np.diag([1.0, 1, 4, 1])),
            nifti(tmp_path / "label.nii", np.diag([4.0, 1, 1, 1])),
            "voxels of 4 x 1 x 1 (x, y, z), unit unknown, axes RAS, origin (0, 0, 0)",
            "voxels of 1 x 1 x 4 (x, y, z), unit unknown, axes RAS, origin (0, 0, 0)",
        )
        refused(
            tiff(tmp_path / "image.ome.tif", (2, 1, 1)),
            tiff(tmp_path / "label.ome.tif", (4, 2, 2)),
            "voxels of 4 x 2 x 2 (z, y, x), unit micrometre",
            "voxels of 2 x 1 x 1 (z, y, x), unit micrometre",
        )

    def test_other_proportions_are_refused_whatever_the_units(self, tmp_path: Path) -> None:
        image = tiff(tmp_path / "image.ome.tif", (2, 1, 1))
        for unit in ("unknown", "micron", "mm"):
            with pytest.raises(ValueError, match=r"label\.nii: found a grid of voxels of 2 x 1 x 1 \(x, y, z\), unit"):
                check(image, nifti(tmp_path / "label.nii", np.diag([2.0, 1, 1, 1]), unit))

    @pytest.mark.parametrize(
        ("unit", "length"), [("mm", 1e-3), ("micron", 1), ("mm", 1), ("unknown", 1), ("unknown", 7)]
    )
    def test_one_size_in_two_units(self, tmp_path: Path, unit: str, length: float) -> None:
        """ITK calls every length millimetres, many programs name no unit."""
        label = nifti(tmp_path / "label.nii", np.diag([length, length, 2 * length, 1]), unit)
        check(tiff(tmp_path / "image.ome.tif", (2, 1, 1)), label)

    def test_another_size_in_a_known_unit(self, tmp_path: Path) -> None:
        label = nifti(tmp_path / "label.nii", np.diag([7.0, 7, 14, 1]), "micron")
        with pytest.raises(ValueError, match="found a grid of voxels of 7 x 7 x 14"):
            check(tiff(tmp_path / "image.ome.tif", (2, 1, 1)), label)

    def test_rounded_sizes(self, tmp_path: Path) -> None:
        check(tiff(tmp_path / "image.ome.tif", (0.284, 0.127, 0.127)), tiff(tmp_path / "b.ome.tif", (0.28, 0.13, 0.13)))


class TestNoGridOfItsOwn:
    """Many programs write the voxels alone: they are those of the image."""

    @pytest.fixture(params=["tif", "ome.tif", "nii"])
    def image(self, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
        path = tmp_path / f"image.{request.param}"
        return (
            nifti(path, PLACED, "mm") if request.param == "nii" else tiff(path, (2, 1, 1)[: 3 * ("ome" in path.name)])
        )

    def test_a_plain_tiff(self, image: Path, tmp_path: Path) -> None:
        check(image, tiff(tmp_path / "label.tif"))

    def test_an_ome_tiff_whose_voxels_are_ones(self, image: Path, tmp_path: Path) -> None:
        check(image, tiff(tmp_path / "label.ome.tif", (1, 1, 1)))

    @pytest.mark.parametrize("axes", [[1, 1, 1], [-1, -1, 1]], ids=["nibabel", "ITK"])
    def test_a_nifti_file_with_the_affine_of_an_array(self, image: Path, tmp_path: Path, axes: list[int]) -> None:
        check(image, nifti(tmp_path / "label.nii", np.diag([*axes, 1.0]), "mm"))

    def test_a_nifti_file_without_codes(self, image: Path, tmp_path: Path) -> None:
        check(image, nifti(tmp_path / "label.nii", np.eye(4), code=0))

    def test_an_image_without_a_grid(self, tmp_path: Path) -> None:
        check(tiff(tmp_path / "image.tif"), nifti(tmp_path / "label.nii", PLACED))

    def test_a_png_file(self, tmp_path: Path) -> None:
        (tmp_path / "label.png").write_bytes(imagecodecs.png_encode(IDS[1]))
        tifffile.imwrite(
            tmp_path / "a.ome.tif", IDS[1], metadata={"axes": "YX", "PhysicalSizeX": 2, "PhysicalSizeY": 1}
        )
        check(tmp_path / "a.ome.tif", tmp_path / "label.png")


class TestPlace:
    @pytest.fixture
    def image(self, tmp_path: Path) -> Path:
        return nifti(tmp_path / "image.nii", PLACED, "mm")

    def test_the_same(self, image: Path, tmp_path: Path) -> None:
        check(image, nifti(tmp_path / "label.nii", PLACED, "mm"))

    def test_a_voxel_counted_from_its_corner(self, image: Path, tmp_path: Path) -> None:
        corner = PLACED.copy()
        corner[:3, 3] -= PLACED[:3, :3].sum(1) / 2
        check(image, nifti(tmp_path / "label.nii", corner, "mm"))

    def test_an_origin_that_nobody_set(self, image: Path, tmp_path: Path) -> None:
        check(image, nifti(tmp_path / "label.nii", np.diag([2.0, 1, 4, 1]), "mm"))

    def test_a_flipped_axis(self, image: Path, tmp_path: Path) -> None:
        flipped = PLACED.copy()
        flipped[0] = [2, 0, 0, 10 - 3 * 2]  # the same place, walked through from the other end
        refused(
            image,
            nifti(tmp_path / "label.nii", flipped, "mm"),
            "voxels of 2 x 1 x 4 (x, y, z), unit millimetre, axes RAS, origin (4, 20, 30)",
            "voxels of 2 x 1 x 4 (x, y, z), unit millimetre, axes LAS, origin (10, 20, 30)",
        )

    def test_permuted_axes(self, tmp_path: Path) -> None:
        image = nifti(tmp_path / "image.nii", np.diag([2.0, 2, 2, 1]))
        label = nifti(tmp_path / "label.nii", np.diag([2.0, 2, 2, 1])[[2, 1, 0, 3]])
        with pytest.raises(
            ValueError, match=r"label\.nii: found .*, axes SAR, origin \(0, 0, 0\), expected .*axes RAS"
        ):
            check(image, label)

    def test_axes_turned_to_their_usual_order_by_another_program(self, tmp_path: Path) -> None:
        """The image was written by ITK, which places nothing; the label map was turned, and placed accordingly."""
        turned = np.diag([1.0, 1, 1, 1])
        turned[:2, 3] = -3
        label = nifti(tmp_path / "label.nii", turned)
        with pytest.raises(ValueError, match=r"axes RAS, origin \(-3, -3, 0\), expected that of .*axes LPS"):
            check(nifti(tmp_path / "image.nii", np.diag([-1.0, -1, 1, 1])), label)

    def test_a_shift_by_more_than_a_voxel(self, image: Path, tmp_path: Path) -> None:
        shifted = PLACED.copy()
        shifted[2, 3] += 5  # voxels are 4 long
        with pytest.raises(ValueError, match=r"origin \(10, 20, 35\), expected that of .*origin \(10, 20, 30\)"):
            check(image, nifti(tmp_path / "label.nii", shifted, "mm"))

    @pytest.mark.parametrize(("degrees", "is_alike"), [(0.5, True), (1.5, False), (2.5, False)])
    def test_axes_that_are_a_little_oblique(self, tmp_path: Path, degrees: float, is_alike: bool) -> None:
        """Of 60 voxels the last one is half a voxel away, one and a half, or more than two."""
        turned, angle = PLACED.copy(), np.deg2rad(degrees)
        turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]] @ np.diag([-2.0, 2.0])
        placed = PLACED.copy()
        placed[1, 1] = 2
        ids = np.zeros((2, 60, 60), np.uint16)
        ids[0, 3:5, 3:5] = 1
        image, label = nifti(tmp_path / "image.nii", placed, ids=ids), nifti(tmp_path / "label.nii", turned, ids=ids)
        if is_alike:
            check(image, label)
        else:
            with pytest.raises(ValueError, match=r"label\.nii: found a grid of"):
                check(image, label)

    def test_rounded_sizes_of_a_large_volume_are_not_oblique(self, tmp_path: Path) -> None:
        ids = np.zeros((2, 100, 100), np.uint16)
        ids[0, 0, 0] = 1
        check(
            nifti(tmp_path / "image.nii", PLACED, ids=ids),
            nifti(tmp_path / "label.nii", PLACED @ np.diag([1.04, 1.04, 1, 1]), ids=ids),
        )

    def test_turns_that_cancel_each_other_at_a_corner(self, tmp_path: Path) -> None:
        """About y and about z: 0.6 voxels each at the end of an axis, and no corner is farther away."""
        placed = np.eye(4)
        placed[:3, 3] = 5
        turned = placed.copy()
        turned[:3, :3] += np.array([[0, -1, 1], [1, 0, 0], [-1, 0, 0]]) * 0.6 / 59
        ids = np.zeros((60, 60, 60), np.uint16)
        ids[0, 0, 0] = 1
        check(nifti(tmp_path / "image.nii", placed, ids=ids), nifti(tmp_path / "label.nii", turned, ids=ids))

    @pytest.mark.parametrize("degrees", [0.05, 0.1])
    def test_directions_that_are_rounded(self, tmp_path: Path, degrees: float) -> None:
        """A quaternion in single precision, near half a turn, moves the far end of 2000 voxels by more than one."""
        angle = np.deg2rad(degrees)
        turned = PLACED.copy()
        turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]] @ PLACED[:2, :2]
        ids = np.zeros((2, 2, 2000), np.uint16)
        ids[0, 0, 0] = 1
        image, label = nifti(tmp_path / "image.nii", PLACED, ids=ids), nifti(tmp_path / "label.nii", turned, ids=ids)
        if degrees < 0.07:
            check(image, label)
        else:
            with pytest.raises(ValueError, match=r"label\.nii: found a grid of"):
                check(image, label)


class TestPlaceOfASlice:
    PLANE = IDS[1:2]

    @pytest.fixture
    def image(self, tmp_path: Path) -> Path:
        return nifti(tmp_path / "image.nii", PLACED, ids=self.PLANE)

    def test_the_same(self, image: Path, tmp_path: Path) -> None:
        check(image, nifti(tmp_path / "label.nii", PLACED, ids=self.PLANE))
        check(image, nifti(tmp_path / "unplaced.nii", PLACED, ids=self.PLANE, code=0))
        check(image, nifti(tmp_path / "usual.nii", np.diag([-2.0, -1, 1, 1]), ids=self.PLANE))

    @pytest.mark.parametrize("across", [0, 1, 2])
    @pytest.mark.parametrize("axes", [[1, 1, 1], [-1, -1, 1]], ids=["nibabel", "ITK"])
    def test_an_affine_that_nobody_set(self, tmp_path: Path, across: int, axes: list[int]) -> None:
        ids = np.take(IDS, [1], 2 - across)
        label = nifti(tmp_path / "label.nii", np.diag([*axes, 1.0]), ids=ids)
        check(nifti(tmp_path / "image.nii", PLACED, ids=ids), label)
        assert stated_axes(TestStatedAxes.read(label)) == [False] * 2

    def test_a_file_of_two_dimensions_cannot_say_across_where_it_lies(self, image: Path, tmp_path: Path) -> None:
        """As ITK writes a 2D image."""
        flat = PLACED.copy()
        flat[2, 3] = 0
        check(image, nifti(tmp_path / "label.nii", flat, ids=self.PLANE[0]))

    def test_a_flipped_axis(self, image: Path, tmp_path: Path) -> None:
        flipped = PLACED.copy()
        flipped[0] = [2, 0, 0, 10 - 3 * 2]
        refused(
            image,
            nifti(tmp_path / "label.nii", flipped, ids=self.PLANE),
            "voxels of 2 x 1 (x, y), unit unknown, axes RA, origin (4, 20, 30)",
            "voxels of 2 x 1 (x, y), unit unknown, axes LA, origin (10, 20, 30)",
        )

    def test_another_slice(self, image: Path, tmp_path: Path) -> None:
        shifted = PLACED.copy()
        shifted[2, 3] += 4
        with pytest.raises(ValueError, match=r"origin \(10, 20, 34\), expected that of .*origin \(10, 20, 30\)"):
            check(image, nifti(tmp_path / "label.nii", shifted, ids=self.PLANE))


class TestStatedAxes:
    """Whether a file says how long a voxel is."""

    @staticmethod
    def read(path: Path) -> MetaTensor:
        return LoadImaged("image", reader="scripts.files.readers.VolumeReader", ensure_channel_first=True)(
            {"image": path}
        )["image"]

    @pytest.mark.parametrize(
        ("voxel_size", "stated"),
        [((), [False] * 3), ((2.0, 0.5, 0.5), [True] * 3), ((1.0, 1.0, 1.0), [True] * 3)],
    )
    def test_tiff(self, tmp_path: Path, voxel_size: tuple[float, ...], stated: list[bool]) -> None:
        assert stated_axes(self.read(tiff(tmp_path / "a.tif", voxel_size))) == stated

    def test_nifti(self, tmp_path: Path) -> None:
        assert stated_axes(self.read(nifti(tmp_path / "a.nii", PLACED))) == [True] * 3
        assert stated_axes(self.read(nifti(tmp_path / "b.nii", np.eye(4)))) == [False] * 3  # as any array is written
