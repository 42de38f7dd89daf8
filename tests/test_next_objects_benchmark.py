"""The benchmark of the list: which true objects its places stand for, and which label maps follow."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from datasets import Pair
from next_objects import Images, Pool, main

from scripts.files.readers import read_volume


@pytest.fixture
def pool(tmp_path) -> Pool:
    """Two images of 4 x 6: the first has the objects 3 and 7, the second has 7."""
    pairs = []
    for name, row in (("a", [3, 3, 0, 0, 7, 7]), ("b", [0, 0, 0, 0, 7, 7])):
        pairs.append(Pair(tmp_path / f"{name}_image.tif", tmp_path / f"{name}_labels.tif"))
        for path in pairs[-1]:
            tifffile.imwrite(path, np.tile(np.array(row, np.uint16), (4, 1)), metadata={"axes": "YX"})
    return Pool(pairs)


def write_list(path: Path, *places: tuple[str, int, int]) -> Path:
    lines = [f"{rank},{image},1,{y},{x}" for rank, (image, y, x) in enumerate(places, start=1)]
    path.write_text("\n".join(["rank,image,score,y_voxel,x_voxel", *lines]))
    return path


def test_objects_are_numbered_by_image(pool):
    assert pool.objects == [(0, 3), (0, 7), (1, 7)]


def test_places_on_background_or_on_known_objects_cost_a_look(pool, tmp_path):
    listed = write_list(
        tmp_path / "list.csv", ("b_image", 0, 0), ("a_image", 0, 5), ("b_image", 1, 4), ("a_image", 0, 0)
    )
    assert pool.at_places(listed, 1, without={(0, 7)}) == ({(1, 7)}, 3)
    assert pool.at_places(listed, 9, without=set()) == ({(0, 7), (1, 7), (0, 3)}, 4)


def test_random_objects_are_new_ones(pool):
    assert pool.draw(9, {(0, 3)}, np.random.default_rng(0)) == {(0, 7), (1, 7)}


def test_only_images_with_annotated_objects_get_a_label_map(pool, tmp_path):
    (pair,) = pool.annotate({(0, 7)}, tmp_path / "labels")
    assert pair.image.name == "a_image.tif"
    assert np.unique(read_volume(pair.labels).array).tolist() == [0, 7]


def test_generated_images_are_two_and_tell_what_is_rare(tmp_path):
    images = Images.generated("granular2d", 3, tmp_path)
    (train,), (test,) = images.train, images.test
    assert images.spatial_dims == 2
    for pair, rare in zip((train, test), images.rare, strict=True):
        sizes = np.bincount(read_volume(pair.labels).array.ravel())[1:]
        assert sizes[:rare].min() > np.median(sizes)  # the granular cells are the large ones
    assert not np.array_equal(read_volume(train.image).array, read_volume(test.image).array)
    again = Images.generated("granular2d", 3, tmp_path / "again")
    assert np.array_equal(read_volume(train.image).array, read_volume(again.train[0].image).array)


def test_a_picture_is_of_generated_sets_only(capsys):
    with pytest.raises(SystemExit):
        main(["nuclei2d", "--picture"])
    assert "found --picture with nuclei2d, expected one of granular2d" in capsys.readouterr().err
