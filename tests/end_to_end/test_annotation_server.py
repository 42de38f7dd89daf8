"""The generic app of MONAI Label 0.8.5 takes the configs apart: what it does with them, and what must come out.

MONAI Label itself asks for older packages than the bundle; `docs/README.md` says how it was tried.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from bundle_runs import (
    BUNDLE,
    EAGER_INFERENCE,
    INFERENCE,
    TINY_TRAINING,
    TRAIN,
    curves,
    nuclei,
    read_nifti,
    run_here,
    write,
)
from monai.bundle import ConfigParser
from monai.transforms import LoadImaged, SaveImaged

ROTATED = [[0.0, -0.5, 0.0, 5.0], [0.5, 0.0, 0.0, -2.0], [0.0, 0.0, 1.1, 7.0], [0.0, 0.0, 0.0, 1.0]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of a training on a grid of its own, as if a request had asked for it."""
    folder = tmp_path_factory.mktemp("trained")
    image, labels = nuclei()
    pair = {"image": str(write(folder / "image.nii.gz", image)), "label": str(write(folder / "label.nii.gz", labels))}
    # what it overrides: the images that have labels, a fifth of them to validate on, of one image none
    requested = {"train#trainer#max_epochs": 2, "train#dataset#data": [pair], "validate#dataset#data": []}
    options = {**TINY_TRAINING, "spacing": [1.0, 1.6, 1.3], "epochs": 7, "foreground": "everywhere"}
    run_here(TRAIN, **{**options, **requested, "ckpt_dir": folder, "output_dir": folder})
    return folder


def answer(image: Path, ckpt_dir: Path, **request: Any) -> tuple[np.ndarray, np.ndarray]:
    """What it answers a request with: the array that it writes, and the affine."""
    inference = ConfigParser()
    inference.read_config(str(BUNDLE / "configs" / "inference.json"))
    inference.update({"bundle_root": str(BUNDLE), "ckpt_dir": str(ckpt_dir), **EAGER_INFERENCE})
    request = {**inference.get_parsed_content("displayable_configs"), **request}  # clustering is a list of choices
    inference["displayable_configs"].update(request)
    inference.parse()
    data = {**request, "image": str(image), "image_path": str(image)}
    for transform in inference.get_parsed_content("preprocessing").transforms:
        if isinstance(transform, LoadImaged):  # it puts one of its own around each, which needs all keys
            assert all(key in data for key in transform.keys)
            transform._loader.image_only = False
        data = transform(data)
    network = inference.get_parsed_content("network")
    network.load_state_dict(torch.load(ckpt_dir / "model.pt", weights_only=True))
    with torch.no_grad():
        data["pred"] = inference.get_parsed_content("inferer")(data["image"][None], network.eval())[0]
    for transform in inference.get_parsed_content("postprocessing").transforms:
        if not isinstance(transform, SaveImaged):
            data = transform(data)
    # it would resize a result of another shape
    assert list(data["pred"].shape[1:]) == list(data["image"].meta["spatial_shape"])
    return data["pred"].numpy()[0], np.asarray(data["image_meta_dict"]["affine"])


def write_rotated(path: Path) -> Path:
    image = nuclei(seed=1)[0]
    nibabel.save(nibabel.Nifti1Image(image.transpose(), np.array(ROTATED)), path)
    return path


def test_it_answers_with_what_inference_writes(trained: Path, tmp_path: Path) -> None:
    image = write_rotated(tmp_path / "image.nii.gz")
    found, affine = answer(image, trained)
    run_here(INFERENCE, images=[str(image)], ckpt_dir=trained, output_dir=tmp_path / "out", **EAGER_INFERENCE)
    written = read_nifti(tmp_path / "out" / "image_instances.nii.gz")
    assert written.shape == (28, 40, 16)
    np.testing.assert_array_equal(found, written)
    np.testing.assert_allclose(affine, ROTATED, atol=1e-6)


def test_a_request_changes_the_clustering(trained: Path, tmp_path: Path) -> None:
    image = write_rotated(tmp_path / "image.nii.gz")
    few, many = (answer(image, trained, merge_threshold=threshold)[0].max() for threshold in (1e3, 1e-3))
    assert few < many


def test_without_a_request_the_threshold_is_the_one_that_training_chose(trained: Path, tmp_path: Path) -> None:
    """It knows the defaults from when it was started; trainings since then have written other settings."""
    image = write_rotated(tmp_path / "image.nii.gz")
    settings = json.loads((trained / "model.json").read_text(encoding="utf-8"))
    asked = answer(image, trained, merge_threshold=settings["merge_threshold"])[0]
    np.testing.assert_array_equal(answer(image, trained)[0], asked)
    (tmp_path / "model.pt").symlink_to(trained / "model.pt")
    (tmp_path / "model.json").write_text(json.dumps({**settings, "merge_threshold": 1e-3}), encoding="utf-8")
    assert answer(image, tmp_path)[0].max() > asked.max()


def test_of_one_image_the_training_validates_on_that(trained: Path) -> None:
    assert (trained / "model.pt").is_file()
    assert json.loads((trained / "model.json").read_text(encoding="utf-8"))["merge_threshold"] > 0


def test_the_learning_rate_falls_within_the_epochs_that_it_asks_for(trained: Path) -> None:
    rates = curves(trained / "tensorboard")["learning_rate"]
    quarters = [math.cos(math.pi * quarter / 8) ** 2 for quarter in range(4)]  # the cosine of four iterations
    np.testing.assert_allclose(list(rates.values()), np.array(quarters) * 0.001, rtol=1e-6)


@pytest.fixture
def in_monai_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monailabel", ModuleType("monailabel"))


def request_training(folder: Path, run_id: str, epochs: int) -> None:
    """As it does with all label maps in the folder, without the steps before and after."""
    labels = sorted(folder.glob("label*.nii.gz"))
    pairs = [{"image": str(path.with_name(path.name.replace("label", "image"))), "label": str(path)} for path in labels]
    overrides = {"train#dataset#data": pairs, "validate#dataset#data": [], "train#trainer#max_epochs": epochs}
    run_here(TRAIN, run_id, **TINY_TRAINING, ckpt_dir=folder / "models", output_dir=folder / "output", **overrides)


@pytest.mark.usefixtures("in_monai_label")
def test_a_request_may_name_no_part_of_the_config(trained: Path, tmp_path: Path) -> None:
    """3D Slicer sends an empty one, and all is evaluated: a folder of data that is not there, and each way to train."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    request_training(tmp_path, run_id="", epochs=2)
    assert (tmp_path / "models" / "model.pt").is_file()
    assert not (tmp_path / "models" / "model_before_1.pt").exists()  # of a second training


@pytest.mark.usefixtures("in_monai_label")
def test_a_training_that_was_stopped_is_forgotten(trained: Path, tmp_path: Path) -> None:
    """Who stops one and corrects the labels wants a new one."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    request_training(tmp_path, run_id="run", epochs=2)
    checkpoint = {"options": {"data": "other images"}, "objects": {}, "epoch": 1, "iteration": 2}
    for name in ("resume.pt", "resume_previous.pt"):
        torch.save(checkpoint, tmp_path / "output" / name)
    request_training(tmp_path, run_id="run", epochs=1)
    assert (tmp_path / "models" / "model_before_1.pt").is_file()
    assert not list((tmp_path / "output").glob("resume*.pt"))


@pytest.mark.usefixtures("in_monai_label")
def test_a_label_map_that_was_sent_in_empty_hinders_nothing(trained: Path, tmp_path: Path) -> None:
    """Nobody there can leave it out."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    image, labels = nuclei(seed=2)
    write(tmp_path / "image_2.nii.gz", image)
    write(tmp_path / "label_2.nii.gz", np.zeros_like(labels))
    request_training(tmp_path, run_id="run", epochs=1)
    assert (tmp_path / "models" / "model.pt").is_file()
