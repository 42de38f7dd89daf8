"""Instances of one class at a time."""

from __future__ import annotations

import numpy as np

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
