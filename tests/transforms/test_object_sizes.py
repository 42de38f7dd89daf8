"""How large objects are, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from peak_memory import peak_memory

from scripts.transforms.object_sizes import (
    LEAST_ERROR,
    ObjectSizes,
    extent_errors,
    measure_objects,
    typical_extents,
    typical_volume,
)


def test_a_large_volume_is_measured_in_little_more_than_its_own_memory() -> None:
    labels = np.zeros((64, 64, 64), np.int32)
    labels[10:14, 20:30, 5:40] = 70000
    assert peak_memory(lambda: measure_objects(labels)) < 3 * labels.nbytes


def extents(*label_maps: torch.Tensor) -> list[float]:
    return typical_extents([measure_objects(labels) for labels in label_maps])


class TestTypicalExtents:
    def test_of_a_ball_its_diameter(self) -> None:
        grid = torch.stack(torch.meshgrid(*[torch.arange(40.0) - 20] * 3, indexing="ij"))
        ball = (grid.square().sum(0) < 15**2).int() * 70000
        assert extents(ball) == pytest.approx([30] * 3, rel=0.03)

    def test_along_each_axis(self) -> None:
        labels = torch.zeros(20, 20, dtype=torch.int)
        labels[1:4, 2:7] = 1
        assert extents(labels) == pytest.approx([4 / math.pi * 3, 4 / math.pi * 5])

    def test_an_ignored_band_cuts_no_object(self) -> None:
        labels = torch.zeros(20, 20, dtype=torch.int)
        labels[1:15, 2:8] = 1
        ignored = torch.zeros(20, 20, dtype=torch.bool)
        ignored[7:9], labels[7:9] = True, 0
        along_first, along_second = measure_objects(labels, ignored).chords[0]
        assert along_first == 14 - 2  # one chord in each column, but for what is ignored of it
        assert along_second == 6
        assert measure_objects(labels).chords[0][0] == 6

    def test_an_ignored_band_between_two_objects_joins_none(self) -> None:
        labels = torch.tensor([0, 1, 1, 1, 0, 0, 2, 2, 2, 2, 0, 2, 2])
        ignored = torch.tensor([0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0], dtype=torch.bool)
        assert measure_objects(labels, ignored).chords[:, 0].tolist() == [3, 3]
        assert measure_objects([0, 5, 5], [True, False, False]).chords.tolist() == [[2]]

    def test_long_and_bent_objects_are_as_thick_as_they_are(self) -> None:
        straight, bent = torch.zeros(2, 30, 30, dtype=torch.int)
        straight[5:9, 2:28] = 1
        bent[5:9, 2:28] = 1
        bent[9:27, 2:6] = 1
        assert extents(straight)[0] == pytest.approx(4 / math.pi * 4)
        assert max(extents(bent)) < 4 / math.pi * 10  # the box around it measures 22 x 26

    def test_an_image_full_of_objects_counts_as_one(self) -> None:
        full = torch.zeros(40, 40, dtype=torch.int)
        for number in range(9):
            row, column = 13 * (number // 3), 13 * (number % 3)
            full[row : row + 12, column : column + 12] = number + 1
        sparse = torch.zeros(40, 40, dtype=torch.int)
        sparse[3:9, 3:9], sparse[3:9, 13:19] = 1, 2
        assert extents(full, sparse, sparse) == extents(sparse)
        images = [measure_objects(labels) for labels in (full, sparse, sparse)]
        assert typical_volume(images) == 6 * 6

    def test_of_two_images_that_say_as_much_the_middle(self) -> None:
        fine, coarse = torch.zeros(2, 40, 40, dtype=torch.int)
        for number, row in enumerate((2, 12, 22), start=1):
            fine[row : row + 8, 2:10], coarse[row : row + 9, 2:11] = number, number
        assert extents(fine, coarse) == extents(coarse, fine)
        assert extents(fine, coarse) == pytest.approx([4 / math.pi * (8 + 9) / 2] * 2)

    def test_an_image_with_a_chip_counts_less_than_one(self) -> None:
        whole, chip = torch.zeros(2, 40, 40, dtype=torch.int)
        for number, corner in enumerate((1, 14, 27), start=1):
            whole[corner : corner + 12, corner : corner + 12] = number
        chip[0, 5:8] = 1
        assert extents(whole, chip) == extents(whole)

    def test_images_without_objects_do_not_count(self) -> None:
        labels = torch.zeros(20, 20, dtype=torch.int)
        labels[2:8, 2:8] = 1
        assert extents(labels, torch.zeros_like(labels)) == extents(labels)
        assert typical_volume([measure_objects(labels), measure_objects(torch.zeros_like(labels))]) == 6 * 6

    def test_chips_count_little_and_one_giant_does_not_decide(self) -> None:
        labels = torch.zeros(60, 60, dtype=torch.int)
        for chip in range(5):
            labels[0, 3 * chip : 3 * chip + 2] = chip + 1
        for cell in range(6):
            labels[10:20, 10 * cell : 10 * cell + 10] = 10 + cell
        labels[30:60, :] = 99
        assert extents(labels) == pytest.approx([4 / math.pi * 10] * 2)

    def test_of_all_images_together_whatever_their_order(self) -> None:
        small, large = torch.zeros(2, 30, 30, dtype=torch.int)
        small[2:6, 2:6] = 1
        large[2:22, 2:22] = 1
        assert extents(small, large) == extents(large, small) == extents(large)

    def test_refuses_maps_without_objects(self) -> None:
        with pytest.raises(ValueError, match="no annotated object"):
            extents(torch.zeros(3, 3, dtype=torch.int))


def objects(*chords: float) -> ObjectSizes:
    """Of one image, equally large, so thick along the first axis, and all 10 voxels along the second one."""
    return ObjectSizes(np.full(len(chords), 100), np.stack([chords, np.full(len(chords), 10.0)], axis=1))


class TestExtentErrors:
    def test_objects_that_are_alike_say_the_more_the_more_they_are(self) -> None:
        assert extent_errors([objects(*[8.0] * 4)]) == pytest.approx([LEAST_ERROR / 2] * 2)
        assert extent_errors([objects(*[8.0] * 100)]) == pytest.approx([LEAST_ERROR / 10] * 2)

    def test_objects_that_differ_say_little_along_the_axis_in_which_they_do(self) -> None:
        along, across = extent_errors([objects(4.0, 4.0, 4.0, 4.0, 16.0, 16.0, 16.0, 16.0)])
        assert across == pytest.approx(LEAST_ERROR / 8**0.5)
        assert math.log(2) / 2 < along < math.log(4) / 2  # the median is one of the two, or seldom the mean

    def test_of_a_normal_distribution_that_of_its_median(self) -> None:
        sizes = np.exp(np.random.default_rng(1).normal(3, 0.8, 400))
        assert extent_errors([objects(*sizes)])[0] == pytest.approx(1.25 * 0.8 / 400**0.5, rel=0.3)

    def test_in_whatever_order_and_unit(self) -> None:
        sizes = [3.0, 5.0, 4.0, 9.0, 6.0]
        expected = extent_errors([objects(*sizes)])
        assert extent_errors([objects(*reversed(sizes))]) == expected
        assert extent_errors([objects(*sizes[:2]), objects(*sizes[2:])])[0] == pytest.approx(expected[0], rel=0.5)
        assert extent_errors([objects(*[7 * size for size in sizes])]) == pytest.approx(expected)

    def test_however_the_objects_are_numbered(self) -> None:
        labels = np.repeat([1, 0, 2, 0, 3, 0, 4], [1, 1, 4, 1, 16, 1, 64])
        renumbered = np.array([0, 3, 1, 4, 2])[labels]
        [error] = extent_errors([measure_objects(labels)])
        assert error > LEAST_ERROR / 2  # which any four objects have at least
        assert extent_errors([measure_objects(renumbered)]) == pytest.approx([error])
