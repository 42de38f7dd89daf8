"""Instances of one class at a time."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.clustering.by_class import cluster_each_class


class TestClusterEachClass:
    MASK = np.array([[24, 24, 26, 26, 26, 7, 0]])

    def each_voxel(self, foreground: np.ndarray) -> np.ndarray:
        return np.where(foreground, foreground.cumsum(), 0).astype(np.int32)

    def test_one_class_after_the_other(self) -> None:
        instances = cluster_each_class(self.each_voxel, self.MASK, [26, 24, 33])
        assert instances.tolist() == [[4, 5, 1, 2, 3, 0, 0]]

    def test_without_classes_all_that_is_not_0_is_one_region(self) -> None:
        assert cluster_each_class(self.each_voxel, self.MASK, None).tolist() == [[1, 2, 3, 4, 5, 6, 0]]

    def test_of_more_than_1000_instances_the_largest_are_kept(self, caplog: pytest.LogCaptureFixture) -> None:
        mask = np.full((1, 1003), 26)
        instances = cluster_each_class(lambda inside: np.minimum(self.each_voxel(inside), 1002), mask, [26])
        assert instances.max() == 1000
        assert "instances of a class, which has 1000 ids; the smallest ones are left out" in caplog.text
        assert instances[0, -2:].tolist() == [1000, 1000]  # the last instance has two voxels, the others one
        assert (instances == 0).sum() == 2
