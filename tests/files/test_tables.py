"""The table of instances that lies beside each instance map."""

from pathlib import Path

import numpy as np
import pytest

from scripts.files.tables import instance_table, write_table


def plane() -> np.ndarray:
    """Instance 1 is an L of three pixels, 2 has vanished, 3 is one pixel."""
    return np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 3]], np.int32)


class TestInstanceTable:
    def test_in_2d(self) -> None:
        table = instance_table(plane(), [0.25, 0.5, 0.75], affine=np.diag([2.0, 3.0, 1.0]), unit="micrometre")
        assert {name: column.tolist() for name, column in table.items()} == {
            "id": [1, 3],
            "score": [0.25, 0.75],
            "voxels": [3, 1],
            "area_um2": [18, 6],
            "centroid_y_um": [pytest.approx(4 / 3), 4],
            "centroid_x_um": [1, 9],
            "centroid_y_voxel": [pytest.approx(2 / 3), 2],
            "centroid_x_voxel": [pytest.approx(1 / 3), 3],
            "min_y_voxel": [0, 2],
            "min_x_voxel": [0, 3],
            "max_y_voxel": [1, 2],
            "max_x_voxel": [1, 3],
        }

    def test_in_3d(self) -> None:
        volume = np.zeros((4, 5, 6), np.int32)
        volume[1:3, 2, 3:6] = 1
        table = instance_table(volume, [1.0], affine=np.diag([0.5, 0.25, 2.0, 1.0]), unit="millimetre")
        assert {name: column.tolist() for name, column in table.items()} == {
            "id": [1],
            "score": [1],
            "voxels": [6],
            "volume_mm3": [pytest.approx(1.5)],
            "centroid_z_mm": [0.75],
            "centroid_y_mm": [0.5],
            "centroid_x_mm": [8],
            "centroid_z_voxel": [1.5],
            "centroid_y_voxel": [2],
            "centroid_x_voxel": [4],
            "min_z_voxel": [1],
            "min_y_voxel": [2],
            "min_x_voxel": [3],
            "max_z_voxel": [2],
            "max_y_voxel": [2],
            "max_x_voxel": [5],
        }

    def test_a_sheared_pixel_is_a_parallelogram(self) -> None:
        """Edges (0, 2) and (3, 4), so of the lengths 2 and 5, at a height of 3: the area is 6, not 10."""
        sheared = np.array([[0, 3, 0], [2, 4, 0], [0, 0, 1]])
        table = instance_table(plane(), [1, 1, 1], sheared, "micrometre")
        assert table["area_um2"] == pytest.approx([18, 6])
        assert table["centroid_x_um"] == pytest.approx([5 / 3, 15])  # along the row

    @pytest.mark.parametrize("unit", ["pixel", "unknown", ""])
    def test_a_unit_that_is_not_stated_is_not_invented(self, unit: str) -> None:
        table = instance_table(plane(), [1, 1, 1], np.eye(3), unit)
        assert {"area_unit2", "centroid_y_unit", "centroid_x_unit"} < table.keys()

    @pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5)])
    def test_nothing_found_no_rows(self, shape: tuple[int, ...]) -> None:
        table = instance_table(np.zeros(shape, np.int32), [], np.eye(len(shape) + 1))
        assert {len(column) for column in table.values()} == {0}


class TestWriteTable:
    def test_a_header_and_a_line_for_each_instance(self, tmp_path: Path) -> None:
        columns = {"id": np.array([1, 3]), "score": np.array([0.123456789, 1.0]), "voxels": np.array([7, 12345678])}
        write_table(tmp_path / "a.csv", columns)
        assert (tmp_path / "a.csv").read_bytes() == b"id,score,voxels\n1,0.123457,7\n3,1,12345678\n"

    def test_small_numbers_keep_their_digits(self, tmp_path: Path) -> None:
        write_table(tmp_path / "a.csv", {"volume_m3": np.array([4.25e-18])})
        assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "volume_m3\n4.25e-18\n"

    def test_without_instances_a_header_alone(self, tmp_path: Path) -> None:
        write_table(tmp_path / "a.csv", instance_table(np.zeros((3, 4), np.int32), [], np.eye(3)))
        (header,) = (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()
        assert header.startswith("id,score,voxels,")

    def test_bytes_of_a_name_that_are_no_text_are_escaped(self, tmp_path: Path) -> None:
        name = b"zelle_\xe4".decode(errors="surrogateescape")  # as Python has the name of such a file
        write_table(tmp_path / "a.csv", {"image": np.array([name]), "rank": np.array([1])})
        assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "image,rank\nzelle_\\udce4,1\n"

    def test_an_old_table_is_replaced(self, tmp_path: Path) -> None:
        for value in (1, 2):
            write_table(tmp_path / "a.csv", {"id": np.array([value])})
        assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "id\n2\n"
        assert len(list(tmp_path.iterdir())) == 1
