"""The picture of what was missed: which objects it takes, and where it looks."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from missed_objects import RED, draw, main, missed_objects

FOUND, HALF, LOST = 3, 5, 9


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A volume of 4 x 30 x 40 with an object that was found, one of which half was found, and one that was lost."""
    labels = np.zeros((4, 30, 40), np.uint16)
    labels[:, 2:6, 2:6], labels[:, 10:20, 10:20], labels[3, 25:28, 30:38] = FOUND, HALF, LOST
    instances = np.where(labels == FOUND, 1, 0).astype(np.uint16)
    instances[:, 10:20, 10:15] = 2
    dataset, output = tmp_path / "dataset", tmp_path / "output"
    files = {
        dataset / "images" / "cells.tif": labels * 10,
        dataset / "labels" / "cells.tif": labels,
        output / "cells_instances.tif": instances,
    }
    for path, array in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, array, photometric="minisblack", metadata={"axes": "ZYX"})
    (output / "cells_instances.csv").write_text("id,score\n1,0.5\n2,0.5\n")
    return dataset, output


def test_an_object_is_missed_up_to_an_iou_of_a_half(folders: tuple[Path, Path]) -> None:
    found = {one.id: (one.voxels, one.best_iou) for one in missed_objects(*folders)}
    assert found == {HALF: (400, 0.5), LOST: (24, 0.0)}


def test_of_an_image_in_colour(folders: tuple[Path, Path]) -> None:
    dataset, output = folders
    for path in [*dataset.rglob("*.tif"), *output.glob("*.tif")]:
        array = tifffile.imread(path)[-1]
        if path.parent.name == "images":
            array = array[..., None].repeat(3, axis=-1).astype(np.uint8)
        path.unlink()
        Image.fromarray(array).save(path.with_suffix(".png"))
    lost = next(one for one in missed_objects(*folders) if one.id == LOST)
    assert lost.image.shape == lost.labels.shape == (30, 40)
    assert draw(lost, side=40, thickness=2).shape == (30, 3 * 40 + 2 * 4, 3)


def test_it_is_drawn_in_the_slice_that_shows_it(folders: tuple[Path, Path]) -> None:
    """40 pixels around it are the whole image: above y and x, and below a slice that is 2 pixels thick."""
    (lost,) = (one for one in missed_objects(*folders) if one.id == LOST)
    picture = draw(lost, side=40, thickness=2)
    assert picture.shape == (30 + 4 + 8, 3 * 40 + 2 * 4, 3)
    red = (picture == RED).all(-1)
    truth = slice(44, 84)
    assert red[25:28, truth][:, 30:38].any()
    assert red[34:, truth].any()
    red[24:29, truth] = red[34:, truth] = False  # an outline is two pixels wide
    assert not red.any()


def test_the_picture_has_the_largest(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, output = folders
    picture = tmp_path / "missed.png"
    main(["--dataset_dir", str(dataset), "--instances", str(output), "--picture", str(picture), "--count", "1"])
    assert capsys.readouterr().out == "cells: object 5, 400 voxels, best IoU 0.50\n"
    assert Image.open(picture).width > 3 * 40


def test_a_folder_without_instances_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"found no \*_instances"):
        list(missed_objects(folders[0], tmp_path))
