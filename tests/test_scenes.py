"""Generated images of the benchmarks: what their truth and their annotation must be."""

import sys
from pathlib import Path

import numpy as np
import pytest

from scripts.files.readers import read_volume

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from scenes import RARE_KINDS, SCENES, Ellipsoids, joined, touching_cells


class TestScenes:
    @pytest.mark.parametrize("kind", SCENES)
    def test_ten_objects_are_annotated_wholly(self, kind: str, tmp_path: Path) -> None:
        scene = SCENES[kind](np.random.default_rng(3))
        scene.write(tmp_path, annotated=10)
        annotation = read_volume(tmp_path / "labels" / "generated.tif")
        image = read_volume(tmp_path / "images" / "generated.tif")
        kept = np.unique(annotation.array)[1:]
        assert len(kept) == 10
        assert (annotation.array[np.isin(scene.labels, kept)] > 0).all()
        assert image.array.shape == scene.labels.shape
        assert image.meta["stated_voxel_size"] == pytest.approx(scene.voxel_size)

    @pytest.mark.parametrize("kind", ["rods", "hollow"])
    def test_the_same_seed_gives_the_same(self, kind: str) -> None:
        first, again, other = (SCENES[kind](np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert np.array_equal(first.image, again.image)
        assert not np.array_equal(first.image, other.image)


class TestRareKinds:
    @pytest.mark.parametrize("kind", RARE_KINDS)
    def test_one_object_of_ten_to_twenty_is_rare(self, kind: str) -> None:
        for seed in range(3):
            scene = RARE_KINDS[kind](np.random.default_rng(seed))
            ids = np.unique(scene.labels)
            assert ids.tolist() == list(range(len(ids)))
            assert 1 / 20 < scene.rare / ids.max() < 1 / 10

    @pytest.mark.parametrize("kind", RARE_KINDS)
    def test_the_same_seed_gives_the_same(self, kind: str) -> None:
        first, again, other = (RARE_KINDS[kind](np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert np.array_equal(first.image, again.image)
        assert not np.array_equal(first.labels, other.labels)

    def test_a_common_object_that_meets_a_rare_one_is_left_out(self) -> None:
        rare, common = np.array([0, 2, 2, 0, 0, 1, 0, 0, 0]), np.array([0, 0, 1, 1, 0, 0, 0, 3, 2])
        assert joined(rare, common).tolist() == [0, 2, 2, 0, 0, 1, 0, 4, 3]


class TestObjects:
    def test_an_ellipsoid_has_the_volume_of_its_ball(self) -> None:
        """Radius 8 micrometres on voxels of 2 x 1 x 1: 4 / 3 pi 8^3 / 2 voxels, where it lies inside."""
        one = Ellipsoids((48, 96, 96), 1, (8, 8), (2, 1, 1))
        volumes = [np.count_nonzero(one.place(np.random.default_rng(seed))) for seed in range(12)]
        assert max(volumes) == pytest.approx(4 / 3 * np.pi * 8**3 / 2, rel=0.02)

    def test_cells_fill_the_image_and_are_thinnest_at_their_faces(self) -> None:
        labels, to_face = touching_cells((40, 40), 12, (1, 1), np.random.default_rng(0))
        assert labels.min() == 1
        at_face = np.diff(labels, axis=0) != 0
        assert to_face[1:][at_face].mean() < 0.5 * to_face.mean()
