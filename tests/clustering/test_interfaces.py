"""Jumps of embeddings between touching regions, by hand on strips of pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scripts.clustering import interfaces
from scripts.clustering.interfaces import (
    DISTANCE,
    DRIFT,
    WEIGHT,
    Interfaces,
    distant_jumps,
    jumps_along,
    measure_interfaces,
)
from scripts.geometry import voxels as voxels_module
from scripts.geometry.voxels import ForegroundVoxels


def row(*values: float) -> Tensor:
    """Embeddings (1, 1, N)."""
    return torch.tensor([[values]], dtype=torch.float32)


def voxels_and_regions(embeddings: Tensor, ids: Tensor) -> tuple[ForegroundVoxels, Tensor]:
    return ForegroundVoxels(embeddings, ids > 0), torch.cat([ids[ids > 0], ids.new_zeros(1)])


def joined(portions: Iterator[tuple[Tensor, ...]]) -> list[Tensor]:
    return [torch.cat(column) for column in zip(*portions, strict=True)]


def jumps(embeddings: Tensor, ids: list[int], axis: int = 1) -> list[float]:
    return joined(jumps_along(*voxels_and_regions(embeddings, torch.tensor([ids])), axis))[2].tolist()


def measured(embeddings: Tensor, ids: list[list[int]]) -> Interfaces:
    return measure_interfaces(*voxels_and_regions(embeddings, torch.tensor(ids)))


def test_a_jump_is_measured_between_the_means_of_three_voxels_on_both_sides() -> None:
    # (0 + 0 + 3) / 3 = 1 on the left of the border, (6 + 9 + 9) / 3 = 8 on its right
    assert jumps(row(7, 0, 0, 3, 6, 9, 9, 7), [1, 1, 1, 1, 2, 2, 2, 2]) == pytest.approx([7])


def test_a_side_ends_where_its_region_ends() -> None:
    # the middle region is one voxel wide, so only its own embedding counts
    assert jumps(row(0, 0, 0, 5, 1, 1, 1), [1, 1, 1, 2, 3, 3, 3]) == pytest.approx([5, 4])


def test_a_side_ends_where_another_region_comes_between() -> None:
    assert jumps(row(9, 0, 1, 1), [1, 2, 1, 1]) == [9, 1]


def test_a_jump_is_measured_at_the_voxels_of_a_face() -> None:
    voxels, ids = voxels_and_regions(row(0, 0, 4, 4, 8), torch.tensor([[1, 1, 2, 2, 3]]))
    first, second, jump = joined(jumps_along(voxels, ids, 1))
    assert first.tolist() == [1, 3]
    assert second.tolist() == [2, 4]
    assert jump.tolist() == [4, 4]


def test_a_side_ends_where_the_image_ends() -> None:
    assert jumps(row(0, 4), [1, 2]) == [4]


def test_an_axis_of_one_voxel_has_no_faces() -> None:
    assert jumps(row(0, 4), [1, 2], axis=0) == []


def test_a_jump_is_a_distance_in_all_dimensions() -> None:
    assert jumps(torch.tensor([[[0.0, 3]], [[0, 4]]]), [1, 2]) == [5]


def test_faces_are_summed() -> None:
    # two rows of the same: two faces across the border, with a jump of 4 each
    found = measured(row(0, 4).repeat(1, 2, 1), [[1, 2], [1, 2]])
    assert found.pairs.tolist() == [[1, 2]]
    assert found.jumps.tolist() == [8]
    assert found.weights.tolist() == found.faces.tolist() == [2]


def test_distant_pairs_are_so_many_voxels_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "DISTANCE", 3)
    voxels, ids = voxels_and_regions(row(0, 1, 2, 3, 6), torch.tensor([[1, 1, 1, 2, 2]]))
    first, second, jump = joined(distant_jumps(voxels, ids, 1))
    assert first.tolist() == [0, 1]
    assert second.tolist() == [3, 4]
    assert jump.tolist() == [3 * (1 - DRIFT), 5 * (1 - DRIFT)]


def test_there_are_no_distant_pairs_inside_a_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "DISTANCE", 2)
    voxels, ids = voxels_and_regions(row(0, 1, 2, 3), torch.tensor([[1, 2, 1, 2]]))
    first, second, _ = joined(distant_jumps(voxels, ids, 1))
    assert len(first) == len(second) == 0


def test_distant_pairs_do_not_look_across_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "DISTANCE", 2)
    voxels, ids = voxels_and_regions(row(0, 9, 4), torch.tensor([[1, 0, 2]]))
    assert len(joined(distant_jumps(voxels, ids, 1))[0]) == 0


def test_distant_pairs_stay_in_their_row(monkeypatch: pytest.MonkeyPatch) -> None:
    # the last pixel of a row lies beside the first one of the next only in memory
    monkeypatch.setattr(interfaces, "DISTANCE", 3)
    voxels, ids = voxels_and_regions(torch.zeros(1, 2, 3), torch.tensor([[1, 1, 1], [2, 2, 2]]))
    assert len(joined(distant_jumps(voxels, ids, 1))[0]) == 0


def test_regions_that_do_not_touch_have_distant_pairs_but_no_faces() -> None:
    # region 2 is one pixel thinner than distant pairs are wide: one pair leads from 1 to 3, one into it, one out of it
    found = measured(row(0, 0, *[1] * (DISTANCE - 1), 4, 4), [[1, 1, *[2] * (DISTANCE - 1), 3, 3]])
    assert found.pairs.tolist() == [[1, 2], [1, 3], [2, 3]]
    assert found.faces.tolist() == [1, 0, 1]
    assert found.weights.tolist() == pytest.approx([1 + WEIGHT, WEIGHT, 1 + WEIGHT])
    distant = WEIGHT * (1 - DRIFT)
    assert found.jumps.tolist() == pytest.approx([1 + distant, 4 * distant, 3 + 3 * distant])


def test_a_region_alone_has_no_interface() -> None:
    assert measured(row(0, 1, 2, 3, 4), [[1, 1, 1, 1, 1]]).pairs.shape == (0, 2)


def test_the_background_touches_nothing() -> None:
    found = measured(row(0, 9, 0), [[1, 0, 2]])
    assert found.pairs.shape == (0, 2)


def test_corners_do_not_touch() -> None:
    assert measured(torch.zeros(1, 2, 2), [[1, 0], [0, 2]]).pairs.shape == (0, 2)


def random_voxels() -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(0)
    embeddings = torch.from_numpy(random.normal(size=(3, 6, 7, 8)).astype(np.float32))
    return embeddings, torch.from_numpy(random.integers(0, 4, (6, 7, 8)))


def test_turning_the_image_changes_nothing() -> None:
    embeddings, ids = random_voxels()
    turned = measure_interfaces(*voxels_and_regions(embeddings.flip(1).swapaxes(2, 3), ids.flip(0).swapaxes(1, 2)))
    for found, expected in zip(turned, measure_interfaces(*voxels_and_regions(embeddings, ids)), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("jumps_of", [jumps_along, distant_jumps])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_portions_change_no_jump(jumps_of: Callable[..., Any], axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "DISTANCE", 3)
    voxels, ids = voxels_and_regions(*random_voxels())
    whole = joined(jumps_of(voxels, ids, axis))
    monkeypatch.setattr(interfaces, "PAIRS", 5)
    monkeypatch.setattr(voxels_module, "PORTION", 7)
    voxels, ids = voxels_and_regions(*random_voxels())
    for found, expected in zip(joined(jumps_of(voxels, ids, axis)), whole, strict=True):
        assert torch.equal(found, expected)


def test_portions_change_no_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    voxels, ids = voxels_and_regions(*random_voxels())
    whole = measure_interfaces(voxels, ids)
    monkeypatch.setattr(voxels_module, "PORTION", 7)
    voxels, ids = voxels_and_regions(*random_voxels())
    for found, expected in zip(measure_interfaces(voxels, ids), whole, strict=True):
        torch.testing.assert_close(found, expected)


def test_sums_are_of_double_precision() -> None:
    jumps, weights = measured(row(0, 0, 4, 4), [[1, 1, 2, 2]])[1:3]
    assert (jumps.dtype, weights.dtype) == (torch.float64, torch.float64)
