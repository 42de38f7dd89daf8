"""Small objects against fragments of the background."""

import numpy as np
import pytest
from peak_memory import peak_memory

from scripts.clustering.fragments import LARGEST_SPREAD, SMALL, drop_fragments, relative_spread

SCALE = 0.25


def instances() -> np.ndarray:
    """Two rows of 9 pixels (ids 1 and 2), far from each other, and one pixel (id 3)."""
    result = np.zeros((12, 9), np.int32)
    result[1], result[6], result[11, 4] = 1, 2, 3
    return result


def embeddings(*shares: float) -> np.ndarray:
    """(3, 12, 9): a constant, and positions, of which the network has left this share of instances 1, 2, ..."""
    axes = np.meshgrid(np.arange(12.0), np.arange(9.0), indexing="ij")
    result = np.stack([np.ones((12, 9)), *axes]).astype(np.float32) * SCALE
    for id_, share in enumerate(shares, start=1):
        member = instances() == id_
        middle = result[:, member].mean(1, keepdims=True)
        result[:, member] = middle + share * (result[:, member] - middle)
    return result


class TestRelativeSpread:
    def test_the_share_of_the_extent_that_is_left(self) -> None:
        assert relative_spread(instances(), embeddings(1.0, 0.25), SCALE) == pytest.approx([0, 1, 0.25, 0])

    def test_where_an_instance_lies_does_not_matter(self) -> None:
        moved = embeddings(1.0, 0.5) + np.float32(100)
        assert relative_spread(instances(), moved, SCALE) == pytest.approx([0, 1, 0.5, 0], abs=1e-4)

    def test_in_three_dimensions(self) -> None:
        box = np.ones((3, 4, 5), np.int32)
        positions = np.stack(np.meshgrid(*map(np.arange, box.shape), indexing="ij")).astype(np.float32)
        assert relative_spread(box, positions * SCALE, SCALE) == pytest.approx([0, 1])

    def test_many_dimensions_need_no_more_memory_than_few(self) -> None:
        found = np.ones((100, 100), np.int32)
        few, many = (
            peak_memory(lambda dim=dim: relative_spread(found, np.zeros((dim, 100, 100), np.float32), SCALE))
            for dim in (2, 32)
        )
        embeddings_alone = 30 * found.size * np.float32().nbytes
        assert many < few + 1.5 * embeddings_alone


class TestDropFragments:
    BELOW, ABOVE = LARGEST_SPREAD - 0.1, LARGEST_SPREAD + 0.1

    def test_what_was_not_drawn_together_goes(self) -> None:
        kept = drop_fragments(instances(), embeddings(self.ABOVE, self.BELOW), SCALE, min_size=2)
        assert np.array_equal(kept, np.where(instances() > 1, instances() - 1, 0))  # ids stay consecutive

    def test_large_instances_are_not_judged(self) -> None:
        found = instances()
        assert found[1].size > SMALL * 1
        assert np.array_equal(drop_fragments(found, embeddings(self.ABOVE, self.ABOVE), SCALE, min_size=1), found)

    def test_without_positions_nothing_is_known(self) -> None:
        assert np.array_equal(drop_fragments(instances(), embeddings(1.0, 1.0), 0, min_size=2), instances())

    def test_nothing_found_nothing_dropped(self) -> None:
        empty = np.zeros((12, 9), np.int32)
        assert np.array_equal(drop_fragments(empty, embeddings(), SCALE, min_size=2), empty)
