"""Asking the network to start from for the working grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from scripts.training import grid_probe
from scripts.training.grid_probe import FINEST, GridProbe, chosen_spacing, densest_window, smoothed
from scripts.transforms.survey import Survey

SUGGESTED = [2.0, 1.0, 1.0]
UNSURE = Survey(
    object_count=2,
    voxel_size=[1.0, 0.25, 0.25],
    object_extents=[32.0, 64.0, 64.0],
    extent_errors=[1.0, 1.0, 1.0],
    object_volume=1e5,
    smallest_sides=[100.0] * 3,
    stated_axes=[True] * 3,
)


def peak_at(best: Sequence[float], height: float = 0.9) -> Any:
    """Overlaps that fall off from a grid on all sides."""
    return each(
        lambda spacing: height * math.exp(-sum(math.log2(a / b) ** 2 for a, b in zip(spacing, best, strict=True)))
    )


def each(overlap: Callable[[Sequence[float]], float]) -> Callable[[Sequence[Sequence[float]]], list[float]]:
    """On all grids, from that on one."""
    return lambda spacings: [overlap(spacing) for spacing in spacings]


def never(spacings: Sequence[Sequence[float]]) -> list[float]:
    raise AssertionError(f"asked for {spacings}")


class TestChoice:
    def test_where_the_objects_say_little_the_grid_on_which_they_are_found_best(self) -> None:
        best = [2 * 2**0.5, 0.5, 0.5]
        assert chosen_spacing("objects", SUGGESTED, UNSURE, peak_at(best)) == pytest.approx(best)

    def test_where_they_say_much_nobody_is_asked(self) -> None:
        sure = replace(UNSURE, extent_errors=[0.1] * 3)
        assert chosen_spacing("objects", SUGGESTED, sure, never) == SUGGESTED

    def test_who_says_how_large_objects_are_is_believed(self) -> None:
        told = replace(UNSURE, extent_errors=[0.0] * 3)
        assert chosen_spacing("objects", SUGGESTED, told, never) == SUGGESTED

    def test_only_along_the_axes_of_which_they_say_little(self) -> None:
        sure_in_the_plane = replace(UNSURE, extent_errors=[1.0, 0.1, 0.1])
        the_coarser_the_better = each(lambda spacing: (spacing[0] + spacing[1]) / 6)
        assert chosen_spacing("objects", SUGGESTED, sure_in_the_plane, the_coarser_the_better) == [4.0, 1.0, 1.0]

    def test_in_between_it_must_be_worth_the_distance(self) -> None:
        unsure, rather_sure = (replace(UNSURE, extent_errors=[error] * 3) for error in (0.5, 0.18))
        overlap = each(lambda spacing: 0.6 if spacing[0] > SUGGESTED[0] else 0.55)
        assert chosen_spacing("objects", SUGGESTED, unsure, overlap)[0] > SUGGESTED[0]
        assert chosen_spacing("objects", SUGGESTED, rather_sure, overlap) == SUGGESTED

    def test_objects_that_are_found_as_well_everywhere_are_believed(self) -> None:
        assert chosen_spacing("objects", SUGGESTED, UNSURE, each(lambda spacing: 0.5)) == SUGGESTED

    def test_weights_that_hardly_find_the_objects_have_no_say(self) -> None:
        assert chosen_spacing("objects", SUGGESTED, UNSURE, peak_at([4.0, 1.0, 1.0], height=0.39)) == SUGGESTED
        assert chosen_spacing("objects", SUGGESTED, UNSURE, peak_at([4.0, 1.0, 1.0], height=0.5)) != SUGGESTED

    def test_a_grid_whose_neighbours_alone_are_good_is_not_chosen(self) -> None:
        def good_but_there(spacing: Sequence[float]) -> float:
            return 0.55 if spacing[0] == pytest.approx(2 * 2**0.5) else 0.9 if spacing[0] > 3 else 0.6

        assert chosen_spacing("objects", SUGGESTED, UNSURE, each(good_but_there))[0] == 4.0

    def test_one_good_grid_among_bad_ones_says_less_than_two_neighbours(self) -> None:
        sure_in_the_plane = replace(UNSURE, extent_errors=[1.0, 0.1, 0.1])  # grids along z: 1, 1.4, 2, 2.8 and 4
        overlap = each(lambda spacing: 0.9 if spacing[0] < 1.2 else 0.85 if spacing[0] > 2.5 else 0.4)
        assert chosen_spacing("objects", SUGGESTED, sure_in_the_plane, overlap) == [4.0, 1.0, 1.0]

    @pytest.mark.parametrize("spacing", ["image", [3.0, 2.0, 2.0], None])
    def test_who_gives_a_grid_gets_it(self, spacing: Any) -> None:
        assert chosen_spacing(spacing, SUGGESTED, UNSURE, never) == SUGGESTED

    def test_the_two_axes_of_a_slice_stay_alike(self) -> None:
        chosen = chosen_spacing("objects", [2.0, 0.8, 1.25], UNSURE, peak_at([2.0, 2.0, 2.0]))
        assert chosen == pytest.approx([2.0, 2.0, 2.0])
        assert chosen_spacing("objects", [2.0, 0.8, 1.25], UNSURE, peak_at([4.0, 1.0, 1.0]))[1:] == [0.8, 1.25]

    def test_in_2d_both_axes_together(self) -> None:
        flat = replace(UNSURE, voxel_size=[0.25] * 2, object_extents=[64.0] * 2, extent_errors=[1.0] * 2)
        assert chosen_spacing("objects", [1.0, 1.0], flat, peak_at([2.0, 2.0])) == pytest.approx([2.0, 2.0])

    def test_no_grid_has_many_more_voxels_than_the_suggested_one(self) -> None:
        asked: list[float] = []

        def noting(spacings: Sequence[Sequence[float]]) -> list[float]:
            asked.extend(math.prod(spacing) for spacing in spacings)
            return [0.5] * len(spacings)

        chosen_spacing("objects", SUGGESTED, UNSURE, noting)
        assert min(asked) == pytest.approx(math.prod(SUGGESTED) / FINEST)

    def test_the_images_own_voxels_stay_where_they_are_near(self) -> None:
        near = replace(UNSURE, voxel_size=[3.0, 0.25, 0.25])
        chosen = chosen_spacing("objects", SUGGESTED, near, peak_at([2 * 2**0.5, 1.0, 1.0]))
        assert chosen == [3.0, 1.0, 1.0]

    def test_a_grid_that_no_image_can_have_is_not_chosen(self) -> None:
        assert chosen_spacing("objects", SUGGESTED, UNSURE, each(lambda spacing: math.nan)) == SUGGESTED
        fine = each(lambda spacing: math.nan if spacing[0] > SUGGESTED[0] else 0.5)
        assert chosen_spacing("objects", SUGGESTED, UNSURE, fine) == SUGGESTED


class TestSmoothing:
    def test_equals_stay(self) -> None:
        assert smoothed(np.full((3, 4), 0.3)) == pytest.approx(np.full((3, 4), 0.3))

    def test_a_single_good_look_counts_less_than_several(self) -> None:
        overlaps = np.array([0.9, 0.0, 0.0, 0.8, 0.8])
        assert smoothed(overlaps).argmax() == 4

    def test_what_was_not_looked_at_does_not_count(self) -> None:
        overlaps = np.array([[0.4, math.nan], [0.4, 0.4]])
        assert smoothed(overlaps) == pytest.approx(overlaps, nan_ok=True)


def squares(side: int = 48, voxel: float = 1.0) -> dict[str, MetaTensor]:
    """Two annotated squares of 12 x 12 voxels, another one, and an id of painted background."""
    labels = torch.zeros(1, side, side, dtype=torch.int32)
    labels[0, 2:14, 2:14], labels[0, 2:14, 34:46] = 70000, 3
    image = (labels > 0).float()
    image[0, 34:46, 2:14] = 1.0
    labels[0, 46:] = 9
    affine = torch.diag(torch.tensor([voxel, voxel, 1.0]))
    return {"image": MetaTensor(image, affine=affine), "label": MetaTensor(labels, affine=affine)}


def embed(image: Tensor, network: nn.Module) -> Tensor:
    """Embeddings (1, 3, *spatial): the foreground's axis, and in which thirds of the image a square lies."""
    foreground = torch.where(image > 0.5, 1.0, -1.0)
    rows, columns = (torch.arange(n) * 3 // n for n in image.shape[2:])
    place = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None] * 10.0
    return torch.cat([foreground, place.float() * (image > 0.5)], dim=1)


def probe(samples: Sequence[dict[str, MetaTensor]], inferer: Any = embed, **options: Any) -> GridProbe:
    return GridProbe(
        data=[{"index": index} for index in range(len(samples))],
        suggested=[1.0, 1.0],
        read=lambda entry: samples[entry["index"]],
        network=options.pop("network", nn.Identity()),
        inferer=inferer,
        device="cpu",
        embedding_dim=3,
        background_label=9,
        **options,
    )


class TestProbe:
    def test_objects_that_are_found_as_they_are(self) -> None:
        assert probe([squares()])([[1.0, 1.0]])[0] == 1.0

    def test_on_a_coarse_grid_they_are_found_less_well(self) -> None:
        overlaps = probe([squares()])([[16.0, 16.0], [3.0, 3.0], [1.0, 1.0]])
        assert overlaps == sorted(overlaps)
        assert overlaps[0] < overlaps[2]

    def test_objects_that_vanish_on_a_grid_are_not_found(self) -> None:
        sample = squares()
        sample["label"][0, 22:23, 22:23] = 5
        assert probe([sample])([[1.0, 1.0]])[0] == pytest.approx(2 / 3)
        assert probe([sample])([[2.0, 2.0]])[0] == pytest.approx(2 / 3, abs=0.01)

    def test_where_the_foreground_is_wrong_without_it(self) -> None:
        def everywhere(image: Tensor, network: nn.Module) -> Tensor:
            found = embed(image, network)
            found[:, 0] = -1.0
            return found

        assert 0.5 < probe([squares()], everywhere)([[1.0, 1.0]])[0] <= 1.0

    def test_with_and_without_background(self) -> None:
        found = probe([squares()]).overlaps([[1.0, 1.0]])[0]
        assert found["estimated"] == 1.0
        assert found["everywhere"] < 1.0  # the background between two squares joins one of them

    def test_processes_that_find_them_differently_get_the_mean(self, monkeypatch: pytest.MonkeyPatch) -> None:
        grids = [[1.0, 1.0], [16.0, 16.0]]
        alone = probe([squares()]).overlaps(grids)
        monkeypatch.setattr(grid_probe.idist, "get_world_size", lambda: 3)
        monkeypatch.setattr(grid_probe.idist, "all_reduce", lambda own: own + 1.2)  # the sum of the two others
        for found, other in zip(alone, probe([squares()]).overlaps(grids), strict=True):
            assert other == pytest.approx({name: (overlap + 1.2) / 3 for name, overlap in found.items()})

    def test_images_count_by_their_objects(self) -> None:
        blank = squares()
        blank["label"][:] = 9
        assert probe([blank, squares()])([[1.0, 1.0]])[0] == 1.0
        assert probe([blank])([[1.0, 1.0]])[0] == 0.0

    def test_of_a_large_image_the_part_with_most_annotation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[Any] = []

        def noting(image: Tensor, network: nn.Module) -> Tensor:
            seen.append(image.shape[2:])
            return embed(image, network)

        monkeypatch.setattr(grid_probe, "SAMPLED_VOXELS", 48 * 48)
        assert probe([squares(side=96)] * 2, noting)([[1.0, 1.0]])[0] > 0.9
        assert seen == [(48, 48)]

    def test_a_grid_that_an_image_cannot_have(self) -> None:
        assert math.isnan(probe([squares()])([[100.0, 100.0]])[0])

    def test_the_network_is_left_as_it_was(self) -> None:
        network = nn.BatchNorm2d(1).train()

        def in_evaluation(image: Tensor, network: nn.Module) -> Tensor:
            assert not network.training
            return embed(image, network)

        probe([squares()], in_evaluation, network=network)([[1.0, 1.0]])[0]
        assert network.training


def test_the_window_with_most_annotation() -> None:
    labels = torch.zeros(20, 30, dtype=torch.int32)
    labels[15:, 20:] = 1
    assert densest_window(labels, [8, 10]) == (slice(12, 20), slice(20, 30))
    assert densest_window(labels, [20, 30]) == (slice(0, 20), slice(0, 30))
