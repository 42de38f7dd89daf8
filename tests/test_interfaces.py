"""Jumps of embeddings between touching regions, by hand on strips of pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scripts.interfaces import Interfaces, jumps_along, measure_interfaces


def row(*values: float) -> NDArray[np.float32]:
    """Embeddings (1, 1, N)."""
    return np.array([[values]], np.float32)


def regions(*ids: int) -> NDArray[np.int32]:
    return np.array([ids], np.int32)


def test_a_jump_is_measured_between_the_means_of_three_voxels_on_both_sides() -> None:
    # (0 + 0 + 3) / 3 = 1 on the left of the border, (6 + 9 + 9) / 3 = 8 on its right
    jumps = jumps_along(row(7, 0, 0, 3, 6, 9, 9, 7), regions(1, 1, 1, 1, 2, 2, 2, 2), axis=1)
    assert jumps[0, 3] == 7


def test_a_side_ends_where_its_region_ends() -> None:
    # the middle region is one voxel wide, so only its own embedding counts
    jumps = jumps_along(row(0, 0, 0, 5, 1, 1, 1), regions(1, 1, 1, 2, 3, 3, 3), axis=1)
    assert jumps[0].tolist()[2:4] == [5, 4]


def test_a_side_ends_where_the_image_ends() -> None:
    assert jumps_along(row(0, 4), regions(1, 2), axis=1).tolist() == [[4]]


def test_an_axis_of_one_voxel_has_no_faces() -> None:
    assert jumps_along(row(0, 4), regions(1, 2), axis=0).shape == (0, 2)


def test_a_jump_is_a_distance_in_all_dimensions() -> None:
    embeddings = np.array([[[0, 3]], [[0, 4]]], np.float32)
    assert jumps_along(embeddings, regions(1, 2), axis=1).tolist() == [[5]]


def test_faces_are_summed_between_and_inside_regions() -> None:
    # two rows of the same: two faces across the border, with a jump of 4 each, and inside three along x or y
    embeddings = np.tile(row(0, 4), (1, 2, 1))
    found = measure_interfaces(embeddings, np.array([[1, 2], [1, 2]], np.int32))
    assert found.pairs.tolist() == [[1, 2]]
    assert found.jumps.tolist() == [8]
    assert found.faces.tolist() == [2]
    assert found.inner_jumps.tolist() == [0, 0, 0]
    assert found.inner_faces.tolist() == [0, 1, 1]


def test_drift_is_a_change_inside() -> None:
    # one region of five voxels that drifts by 1 a voxel; the sides have 1, 2, 2, 1 and 1, 2, 3, ... voxels
    found = measure_interfaces(row(0, 1, 2, 3, 4), regions(1, 1, 1, 1, 1))
    assert found.inner_faces.tolist() == [0, 4]
    assert found.inner_jumps[1] == 2 + 2.5 + 2.5 + 2  # |0 - 2|, |0.5 - 3|, |1 - 3.5|, |2 - 4|


def test_the_background_touches_nothing() -> None:
    found = measure_interfaces(row(0, 9, 0), regions(1, 0, 2))
    assert found.pairs.shape == (0, 2)
    assert found.inner_faces.tolist() == [0, 0, 0]


def test_corners_do_not_touch() -> None:
    found = measure_interfaces(np.zeros((1, 2, 2), np.float32), np.array([[1, 0], [0, 2]], np.int32))
    assert found.pairs.shape == (0, 2)


def test_turning_the_image_changes_nothing() -> None:
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(3, 6, 7, 8)).astype(np.float32)
    labels = random.integers(0, 4, (6, 7, 8)).astype(np.int32)
    turned = measure_interfaces(embeddings[:, ::-1].swapaxes(2, 3), labels[::-1].swapaxes(1, 2))
    for found, expected in zip(turned, measure_interfaces(embeddings, labels), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert isinstance(turned, Interfaces)
