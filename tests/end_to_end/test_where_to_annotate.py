"""`next_objects.json` over `inference.json`: a list for all images and a map in the format of each."""

import csv

import nibabel
import numpy as np
import tifffile
from bundle_runs import EAGER_INFERENCE, INFERENCE, refusal_of, run_here, write

from scripts.files.readers import read_volume

NEXT_OBJECTS = [*INFERENCE, "next_objects.json"]


def test_places_lie_beside_the_annotated_objects(trained, tmp_path):
    """Of two images one is annotated, in part."""
    dataset = tmp_path / "data"
    for name in ("first", "second"):
        image = read_volume(next((trained.dataset / "images").glob(f"{name}.*"))).array
        write(dataset / "images" / (f"{name}.tif" if name == "first" else f"{name}.nii.gz"), image.astype(np.uint16))
    labels = read_volume(trained.dataset / "labels" / "first.tif").array
    kept = np.where(labels <= np.median(labels[labels > 0]), labels, 0)
    write(dataset / "labels" / "first.tif", kept.astype(np.uint16))

    ids = {"dataset_dir": dataset, "ckpt_dir": trained.ckpt_dir, "output_dir": tmp_path, "places": 5}
    run_here(NEXT_OBJECTS, **ids, **EAGER_INFERENCE)

    lines = list(csv.DictReader((tmp_path / "next_objects.csv").open()))
    assert [int(line["rank"]) for line in lines] == list(range(1, len(lines) + 1))
    assert lines
    places = [(line["image"], *(int(line[f"{axis}_voxel"]) for axis in "zyx")) for line in lines]
    assert len(set(places)) == len(places)
    assert all(kept[place[1:]] == 0 for place in places if place[0] == "first")
    heat = tifffile.imread(tmp_path / "first_next_objects.tif")
    assert (heat.shape, heat.max() <= 100) == (kept.shape, True)
    assert nibabel.load(tmp_path / "second_next_objects.nii.gz").shape == kept.shape[::-1]


def test_a_training_without_its_teacher_is_refused(trained, tmp_path):
    (tmp_path / "weights").mkdir()
    for name in ("model.pt", "model.json"):
        (tmp_path / "weights" / name).write_bytes((trained.ckpt_dir / name).read_bytes())
    ids = {"dataset_dir": trained.dataset, "ckpt_dir": tmp_path / "weights", "output_dir": tmp_path}
    assert "teacher.pt: found no such file" in refusal_of(NEXT_OBJECTS, **ids, **EAGER_INFERENCE)


def test_a_blank_image_is_not_worth_annotating(trained, tmp_path):
    dataset = tmp_path / "data"
    image = read_volume(next((trained.dataset / "images").glob("first.*"))).array.astype(np.uint16)
    write(dataset / "images" / "blank.tif", np.zeros_like(image))
    write(dataset / "images" / "first.tif", image)
    ids = {"dataset_dir": dataset, "ckpt_dir": trained.ckpt_dir, "output_dir": tmp_path}
    run_here(NEXT_OBJECTS, **ids, **EAGER_INFERENCE)
    assert {line["image"] for line in csv.DictReader((tmp_path / "next_objects.csv").open())} == {"first"}
    assert tifffile.imread(tmp_path / "blank_next_objects.tif").max() == 0
