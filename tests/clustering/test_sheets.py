"""Sheets between two objects are given to them; thin objects stay, as far as they can be told from sheets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from scripts.clustering import sheets
from scripts.clustering.methods import cluster_embeddings
from scripts.clustering.sheets import find_sheets, give_sheets_to_neighbors, thin_crossings

Labels = NDArray[np.int32]
GRADUAL = (0.0, 0.0, 0.0, 1.0, 3.0, 5.0, 6.0, 6.0, 6.0)  # the sheet is the voxel in the middle
SHARP = (0.0, 0.0, 0.0, 0.0, 3.0, 6.0, 6.0, 6.0, 6.0)
IN_THREE = (1, 1, 1, 1, 2, 3, 3, 3, 3)


def plane(ids: tuple[int, ...], height: int = 5) -> Labels:
    """(height, N), the same in each row."""
    return np.tile(np.array(ids, np.int32), (height, 1))


def along(*values: float, height: int = 5) -> Tensor:
    """Embeddings (2, height, N) on a line through both dimensions, the same in each row."""
    return torch.tensor(values).repeat(2, height, 1)


def bent(embeddings: Tensor, column: int, by: float) -> Tensor:
    """The same, with one column moved off the line."""
    moved = embeddings.clone()
    moved[:, :, column] += torch.tensor([[by], [-by]])
    return moved


class TestFindSheets:
    def test_what_goes_over_from_one_side_to_the_other_is_a_sheet(self) -> None:
        assert find_sheets(plane(IN_THREE), along(*GRADUAL)).tolist() == [False, False, True, False]

    def test_what_jumps_at_its_two_faces_is_an_object(self) -> None:
        assert not find_sheets(plane(IN_THREE), along(*SHARP)).any()

    @pytest.mark.parametrize(("before_and_behind", "expected"), [(0.2, False), (0.4, True)])
    def test_a_tenth_of_the_change_must_be_elsewhere(self, before_and_behind: float, expected: bool) -> None:
        values = np.array(SHARP, np.float32)
        values[3], values[5] = before_and_behind, 6 - before_and_behind
        assert find_sheets(plane(IN_THREE), along(*values))[2] == expected

    def test_the_sides_are_looked_at_three_voxels_deep(self) -> None:
        assert find_sheets(plane(IN_THREE), along(0, 0, 0.4, 0.4, 3, 5.6, 5.6, 6, 6))[2]

    def test_what_lies_off_the_line_is_an_object(self) -> None:
        embeddings = along(*GRADUAL)
        assert find_sheets(plane(IN_THREE), bent(embeddings, 4, 1.0)).any()  # 1 of 6 off the line
        assert not find_sheets(plane(IN_THREE), bent(embeddings, 4, 1.5)).any()

    @pytest.mark.parametrize("value", [-1, 7])
    def test_what_lies_beyond_one_side_is_an_object(self, value: float) -> None:
        assert not find_sheets(plane(IN_THREE), along(0, 0, 0, 1, value, 5, 6, 6, 6)).any()

    @pytest.mark.parametrize(("thickness", "expected"), [(1, True), (2, True), (3, False)])
    def test_three_voxels_are_an_object(self, thickness: int, expected: bool) -> None:
        ids = (1,) * 4 + (2,) * thickness + (3,) * 4
        values = np.clip(np.arange(len(ids)) - 2, 0, len(ids) - 5)
        assert find_sheets(plane(ids), along(*values))[2] == expected

    def test_two_layers_one_behind_the_other_are_sheets(self) -> None:
        ids = (1, 1, 1, 1, 2, 4, 3, 3, 3, 3)
        found = find_sheets(plane(ids), along(0, 0, 0, 1, 2, 4, 5, 6, 6, 6))
        assert found.tolist() == [False, False, True, False, True]

    def test_what_lies_between_thin_objects_is_an_object(self) -> None:
        assert not find_sheets(plane((1, 1, 2, 3, 3)), along(0, 1, 3, 5, 6)).any()

    def test_what_touches_background_on_one_side_is_an_object(self) -> None:
        assert not find_sheets(plane((1, 1, 1, 1, 2, 0, 3, 3, 3)), along(*GRADUAL)).any()

    def test_what_an_object_surrounds_is_an_object(self) -> None:
        assert not find_sheets(plane((1, 1, 1, 1, 2, 1, 1, 1, 1)), along(*GRADUAL)).any()

    @pytest.mark.parametrize(("rows", "expected"), [(1, True), (2, False)])
    def test_half_of_the_instance_must_go_over(self, rows: int, expected: bool) -> None:
        # one voxel of the instance lies between two others, the rest in background
        ids = np.zeros((1 + rows, 9), np.int32)
        ids[0] = IN_THREE
        ids[1:, 4] = 2
        assert find_sheets(ids, along(*GRADUAL, height=1 + rows))[2] == expected

    def test_along_every_axis(self) -> None:
        ids, embeddings = plane(IN_THREE), along(*GRADUAL)
        for axis in range(3):
            volume = np.moveaxis(np.broadcast_to(ids, (4, *ids.shape)), -1, axis)
            vectors = torch.movedim(embeddings.unsqueeze(1).expand(2, 4, *ids.shape), -1, axis + 1)
            assert find_sheets(np.ascontiguousarray(volume), vectors).tolist() == [False, False, True, False]

    def test_a_portion_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sheets, "PAIRS", 2)
        grown = give_sheets_to_neighbors(plane(IN_THREE), along(*GRADUAL))
        assert 2 not in grown

    def test_equal_embeddings_make_none(self) -> None:
        assert not find_sheets(plane(IN_THREE), along(*[1.0] * 9)).any()

    def test_the_largest_embeddings(self) -> None:
        assert find_sheets(plane(IN_THREE), along(*GRADUAL) * 1e14)[2]


class TestThinCrossings:
    def test_places_in_the_image(self) -> None:
        (crossings,) = thin_crossings(plane(IN_THREE, height=2), axis=1)
        assert crossings.stride == 1
        assert crossings.first.tolist() == [4, 13]
        assert crossings.lengths.tolist() == [1, 1]

    def test_lines_do_not_go_on_in_the_next_row(self) -> None:
        assert list(thin_crossings(np.array([[1, 1, 1, 2], [3, 3, 3, 3]], np.int32), axis=1)) == []

    def test_along_the_first_axis(self) -> None:
        (crossings,) = thin_crossings(plane(IN_THREE, height=2).T.copy(), axis=0)
        assert crossings.stride == 2
        assert crossings.first.tolist() == [8, 9]


class TestGiveSheetsToNeighbors:
    def test_both_sides_grow_until_they_meet(self) -> None:
        ids = plane((1, 1, 1, 1, 2, 2, 3, 3, 3, 3))
        grown = give_sheets_to_neighbors(ids, along(0, 0, 0, 0.5, 2, 4, 5.5, 6, 6, 6))
        assert np.array_equal(grown, plane((1, 1, 1, 1, 1, 3, 3, 3, 3, 3)))

    def test_without_sheets_nothing_changes(self) -> None:
        ids = plane(IN_THREE)
        assert np.array_equal(give_sheets_to_neighbors(ids, along(*SHARP)), ids)

    def test_background_stays_background(self) -> None:
        ids = plane(IN_THREE)
        ids[0] = 0
        assert not give_sheets_to_neighbors(ids, along(*GRADUAL))[0].any()

    def test_where_there_are_only_sheets_they_stay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sheets, "find_sheets", lambda *_: np.array([False, True, True, True]))
        assert np.array_equal(give_sheets_to_neighbors(plane(IN_THREE), along(*GRADUAL)), plane(IN_THREE))


def layers(widths: list[int], apart: float, blur: float = 0.0, drift: float = 0.0, dim: int = 8) -> NDArray[np.float32]:
    """Embeddings (dim, N, 16, 16) of flat objects, one behind the other, that lie on a line in embedding space."""
    owner = np.repeat(np.arange(len(widths)), widths)
    position = np.arange(len(owner))
    middle = np.array([position[owner == one].mean() for one in range(len(widths))])
    profile = apart * owner + drift * (position - middle[owner])
    embeddings = np.random.default_rng(0).normal(0, 0.35 / dim**0.5, (dim, len(owner), 16, 16))
    embeddings[0] += (gaussian_filter1d(profile, blur) if blur else profile)[:, None, None]
    return embeddings.astype(np.float32)


@pytest.mark.parametrize("dim", [2, 8])
@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("blur", [0.0, 0.5])
def test_a_stack_of_thin_objects_stays(width: int, blur: float, dim: int) -> None:
    assert cluster_embeddings(layers([width] * 12, 4, blur, dim=dim)).max() == 12


@pytest.mark.parametrize("dim", [1, 8])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_a_thin_object_between_thick_ones_whose_embeddings_drift_stays(width: int, dim: int) -> None:
    assert cluster_embeddings(layers([12, width, 12], 4, drift=0.1, dim=dim), min_size=5).max() == 3


@pytest.mark.parametrize("width", [3, 4])
def test_so_does_one_with_blurred_borders_if_it_is_not_too_thin(width: int) -> None:
    assert cluster_embeddings(layers([12, width, 12], 4, blur=0.7), min_size=5).max() == 3


def test_of_two_objects_far_apart_with_a_blurred_border_nothing_is_left_over() -> None:
    profile = np.array([0, 0, 0, 0, 0.02, 0.16, 0.5, 0.84, 0.98, 1, 1, 1, 1], np.float32)
    embeddings = np.zeros((8, 12, 12, 13), np.float32)
    embeddings[:3] = 8 * profile
    instances = cluster_embeddings(embeddings, min_size=5)
    assert instances.max() == 2
    assert (instances[..., :6] == instances[0, 0, 0]).all()
    assert (instances[..., 7:] == instances[0, 0, -1]).all()
