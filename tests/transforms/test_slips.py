"""What the painting of objects is warned of, and what not."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from scripts.transforms.slips import EXPECTED, find_slips, warn_of_slips

BALL = np.sum(np.square(np.indices((13, 13, 13)) - 6), axis=0) <= 30
DISC = BALL[6]


def slips(labels: np.ndarray, ignored: np.ndarray | None = None) -> dict[str, list[int]]:
    """What is found in a label map, without what is not."""
    ignored = np.zeros(labels.shape, bool) if ignored is None else ignored
    found = find_slips(torch.from_numpy(labels.astype(np.int32)), torch.from_numpy(ignored))
    return {name: ids for name, ids in found.items() if ids}


@pytest.mark.parametrize("painted", [BALL, DISC])
def test_whole_objects_are_none(painted: np.ndarray) -> None:
    labels = np.concatenate([7 * painted, 300 * painted, np.full_like(painted, 2, int)], axis=-1)
    assert slips(labels) == {}
    assert slips(np.zeros_like(labels)) == {}


def test_one_id_for_two_objects_is_told() -> None:
    assert slips(np.concatenate([7 * DISC, 300 * DISC, 7 * DISC])) == {"in several pieces": [7]}


def test_slices_left_out_are_told() -> None:
    every_second = 7 * BALL
    every_second[1::2] = 0
    assert slips(every_second) == {"in several pieces": [7]}


def test_stray_voxels_are_told_where_they_are_far_away() -> None:
    stray = 7 * np.pad(DISC, 20)
    stray[19, 19] = 7
    assert slips(stray) == {}
    stray[0, 0] = 7
    assert slips(stray) == {"with stray voxels far away": [7]}


def test_what_may_go_on_where_nobody_sees_it_is_not_told() -> None:
    """Two pieces that both end at the border, or at ignored voxels, may be one object."""
    both_ends = np.zeros((9, 30), int)
    both_ends[3:6] = 7
    both_ends[:, 12:15] = 0
    assert slips(both_ends[:, 5:25]) == {}
    assert slips(np.pad(both_ends, 2)) == {"in several pieces": [7]}
    ignored = np.zeros((9, 30), bool)
    ignored[:, 12:15] = True
    assert slips(np.pad(both_ends, 2), np.pad(ignored, 2)) == {}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_outlines_are_told_in_whatever_slices_they_are_painted(axis: int) -> None:
    filled = np.pad(BALL, 2)
    outlines = np.stack([plane & ~binary_erosion(plane, iterations=2) for plane in filled])
    assert slips(np.moveaxis(7 * outlines, 0, axis)) == {"as outlines": [7]}
    assert slips(7 * outlines[8]) == {"as outlines": [7]}


def test_what_surrounds_another_object_is_no_outline() -> None:
    surrounding = np.pad(np.where(DISC, 3, 7), 2)
    assert slips(surrounding) == {}
    assert slips(np.where(surrounding == 3, 0, surrounding)) == {"as outlines": [7]}


def test_one_slice_of_an_object_is_told_unless_it_lies_at_the_border() -> None:
    one_slice = np.zeros((5, 13, 13), int)
    one_slice[2] = 7 * DISC
    assert slips(one_slice) == {"one voxel thick": [7]}
    assert slips(one_slice[2:]) == {}


def test_a_click_is_told() -> None:
    clicked = np.pad(7 * DISC, 5)
    clicked[2, 2] = 9
    assert slips(clicked) == {"one voxel thick": [9]}


def test_one_sentence_for_all_label_maps(caplog: pytest.LogCaptureFixture) -> None:
    pieces, outlines, nothing = "in several pieces", "as outlines", dict.fromkeys(EXPECTED, [])
    warn_of_slips(
        {
            "a.tif": nothing,
            "b.tif": {**nothing, pieces: [1, 2, 3, 4, 5, 6, 9], outlines: [7]},
            "c.tif": {**nothing, pieces: [1]},
        }
    )
    assert caplog.messages == [
        "b.tif: found ids in several pieces: 1, 2, 3, 4, 5 and 2 more, expected one whole object for each id; number "
        "the objects of a mask, paint all slices of one (other label maps with such ids: 1)",
        "b.tif: found ids as outlines: 7, expected filled objects, as 0 inside is unlabelled",
    ]
