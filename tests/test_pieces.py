"""Long objects come in pieces, by hand and as properties of random cuts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scripts.pieces import RandCutLongObjectsd, unused_ids


def tube(length: int, id_: int = 7) -> Tensor:
    """A label map (1, 3, length + 2) with an object of one row."""
    labels = torch.zeros(1, 3, length + 2, dtype=torch.int64)
    labels[0, 1, 1:-1] = id_
    return labels


def cut(labels: Tensor, seed: int = 0, size: float = 10, **special: int) -> Tensor:
    step = RandCutLongObjectsd("label", size=size, **special)
    step.set_random_state(seed)
    return step({"label": labels.clone()})["label"]


@pytest.mark.parametrize("seed", range(5))
class TestCut:
    def test_short_objects_stay_whole(self, seed: int) -> None:
        assert torch.equal(cut(tube(10), seed), tube(10))

    def test_long_ones_fall_into_connected_pieces(self, seed: int) -> None:
        row = cut(tube(100), seed)[0, 1, 1:-1]
        borders = int((row[1:] != row[:-1]).sum())
        assert borders + 1 == len(row.unique())
        assert 4 <= len(row.unique()) <= 10  # middles are 10 to 20 apart

    def test_no_voxel_leaves_or_enters_an_object(self, seed: int) -> None:
        assert torch.equal(cut(tube(100), seed) > 0, tube(100) > 0)

    def test_pieces_of_two_objects_have_different_ids(self, seed: int) -> None:
        labels = torch.cat([tube(60, id_=1), tube(60, id_=2)], dim=1)
        pieces = cut(labels, seed)
        assert not set(pieces[labels == 1].tolist()) & set(pieces[labels == 2].tolist())

    def test_special_labels_are_not_cut(self, seed: int) -> None:
        labels = torch.cat([tube(60, id_=1), tube(60, id_=2)], dim=1)
        assert torch.equal(cut(labels, seed, background_label=1, ignore_label=2), labels)

    def test_special_labels_are_not_given_away(self, seed: int) -> None:
        assert 8 not in cut(tube(100, id_=7), seed, background_label=8)


def test_each_time_elsewhere() -> None:
    assert not torch.equal(cut(tube(100), seed=0), cut(tube(100), seed=1))


def test_the_same_seed_cuts_alike() -> None:
    assert torch.equal(cut(tube(100), seed=3), cut(tube(100), seed=3))


def test_three_dimensions() -> None:
    labels = torch.ones(1, 40, 4, 4, dtype=torch.int32)
    pieces = cut(labels)
    assert len(pieces.unique()) > 1
    assert pieces.dtype == torch.int32


def test_nothing_annotated() -> None:
    assert not cut(torch.zeros(1, 5, 5, dtype=torch.int64)).any()


def test_unused_ids() -> None:
    ids = unused_ids({2, 3})
    assert [next(ids) for _ in range(3)] == [1, 4, 5]


def test_the_largest_id_of_its_type() -> None:
    labels = tube(100).int() // 7 * (2**31 - 1)
    assert torch.equal(cut(labels) > 0, labels > 0)


def test_a_size_of_nothing() -> None:
    with pytest.raises(ValueError, match="size must be positive, got 0"):
        RandCutLongObjectsd("label", size=0)
