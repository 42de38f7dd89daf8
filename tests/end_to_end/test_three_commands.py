"""Training, inference and evaluation as the README tells users to run them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from bundle_runs import (
    BUNDLE,
    DEVICE,
    EAGER_INFERENCE,
    EVALUATE,
    INFERENCE,
    TINY_TRAINING,
    TRAIN,
    nuclei,
    read_nifti,
    refusal_of,
    run_here,
    run_in_shell,
    write,
    write_pair,
)
from conftest import Training

from scripts.metrics.instances import METRIC_NAMES


class TestTraining:
    def test_it_succeeds_from_any_folder_and_leaves_nothing_there(self, trained: Training) -> None:
        assert trained.process.returncode == 0, trained.process.stderr
        assert list((trained.dataset.parent / "elsewhere").iterdir()) == []

    def test_ckpt_dir_gets_the_bare_weights_and_what_inference_must_know(self, trained: Training) -> None:
        assert {path.name for path in trained.ckpt_dir.iterdir()} == {"model.pt", "teacher.pt", "model.json"}
        state = torch.load(trained.ckpt_dir / "model.pt", weights_only=True)
        assert all(isinstance(value, torch.Tensor) for value in state.values())
        settings = json.loads((trained.ckpt_dir / "model.json").read_text(encoding="utf-8"))
        assert settings["filters"] == TINY_TRAINING["filters"]
        assert "roi_size" not in settings  # it is a matter of memory, not of the weights

    def test_output_dir_gets_everything_else(self, trained: Training) -> None:
        assert {path.name for path in trained.output_dir.iterdir()} == {"tensorboard", "pictures"}
        assert len(list((trained.output_dir / "pictures").glob("*.png"))) == 2

    def test_no_bar_floods_a_log_file(self, trained: Training) -> None:
        assert "\r" not in trained.process.stderr
        left = re.findall(r"epoch (\d) of 2, (\d\d:\d\d) left", trained.process.stdout)
        assert [epoch for epoch, _ in left] == ["1", "2"]
        assert left[-1] == ("2", "00:00")

    def test_the_bundle_itself_is_left_alone(self, trained: Training) -> None:
        assert not (BUNDLE / "output").exists()


class TestInference:
    @pytest.fixture(scope="class")
    def results(self, trained: Training, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("inference")
        ids = {"dataset_dir": trained.dataset, "ckpt_dir": trained.ckpt_dir, "output_dir": folder / "results"}
        process = run_in_shell(INFERENCE, folder, **ids, **EAGER_INFERENCE)
        assert process.returncode == 0, process.stderr
        assert "\r" not in process.stderr
        return folder / "results"

    def test_each_image_gets_its_instances(self, results: Path) -> None:
        names = {f"{name}_instances.{extension}" for name in ("first", "second") for extension in ("tif", "csv")}
        assert {path.name for path in results.iterdir()} == names

    def test_they_lie_on_the_grid_of_the_image(self, results: Path, trained: Training) -> None:
        for name in ("first", "second"):
            instances = tifffile.imread(results / f"{name}_instances.tif")
            assert instances.shape == tifffile.imread(trained.dataset / "images" / f"{name}.tif").shape
            assert instances.dtype == np.uint16
            assert instances.max() > 0

    def test_the_table_lists_the_instances_of_the_map(self, results: Path) -> None:
        for name in ("first", "second"):
            instances = tifffile.imread(results / f"{name}_instances.tif")
            table = np.genfromtxt(results / f"{name}_instances.csv", delimiter=",", names=True, ndmin=1)
            ids, voxels = np.unique(instances[instances > 0], return_counts=True)
            np.testing.assert_array_equal(table["id"], ids)
            np.testing.assert_array_equal(table["voxels"], voxels)
            assert ((table["score"] > 0) & (table["score"] <= 1)).all()

    def test_min_score_leaves_out_what_is_unsure(self, results: Path, trained: Training, tmp_path: Path) -> None:
        every = np.genfromtxt(results / "first_instances.csv", delimiter=",", names=True, ndmin=1)
        least = float(np.sort(every["score"])[len(every) // 2 - 1 :][:2].mean())  # between two scores, not on one
        ids = {"images": [str(trained.dataset / "images" / "first.tif")], "ckpt_dir": trained.ckpt_dir}
        run_here(INFERENCE, **ids, output_dir=tmp_path, min_score=least, **EAGER_INFERENCE)
        sure = np.genfromtxt(tmp_path / "first_instances.csv", delimiter=",", names=True, ndmin=1)
        np.testing.assert_array_equal(sure["voxels"], every["voxels"][every["score"] >= least])

    def test_consistency_clustering_asks_the_teacher(self, trained: Training, tmp_path: Path) -> None:
        write(tmp_path / "images" / "small.tif", nuclei((16, 20, 24))[0])
        ids = {"dataset_dir": tmp_path, "ckpt_dir": trained.ckpt_dir, "output_dir": tmp_path / "results"}
        run_here(INFERENCE, clustering="consistency", **ids, **EAGER_INFERENCE)
        assert tifffile.imread(tmp_path / "results" / "small_instances.tif").shape == (16, 20, 24)

    def test_images_in_any_place_are_given_as_a_list(self, trained: Training, tmp_path: Path) -> None:
        image = write(tmp_path / "scans" / "a.nii.gz", nuclei(seed=3)[0])
        ids = {"images": [str(image)], "ckpt_dir": trained.ckpt_dir, "output_dir": tmp_path / "results"}
        run_here(INFERENCE, **ids, **EAGER_INFERENCE)
        assert read_nifti(tmp_path / "results" / "a_instances.nii.gz").shape == (28, 40, 16)


class TestEvaluation:
    def test_it_writes_all_metrics_of_each_image_and_their_mean(self, trained: Training, tmp_path: Path) -> None:
        ids = {"dataset_dir": trained.dataset, "ckpt_dir": trained.ckpt_dir, "output_dir": tmp_path / "results"}
        process = run_in_shell(EVALUATE, tmp_path, **ids, **DEVICE)
        assert process.returncode == 0, process.stderr
        assert len(list((tmp_path / "results" / "pictures").glob("*.png"))) == 1
        metrics = json.loads((tmp_path / "results" / "metrics.json").read_text(encoding="utf-8"))
        assert metrics["images"].keys() == {"first", "second"}
        for values in [metrics["mean"], *metrics["images"].values()]:
            assert set(values) == set(METRIC_NAMES)

    def test_an_image_in_which_there_is_nothing_counts_what_is_found(self, trained: Training, tmp_path: Path) -> None:
        data = shutil.copytree(trained.dataset, tmp_path / "data")
        labels = data / "labels" / "first.tif"
        write(labels, np.zeros_like(tifffile.imread(labels)))
        ids = {"dataset_dir": data, "ckpt_dir": trained.ckpt_dir, "output_dir": tmp_path / "results"}
        run_here(EVALUATE, **ids, **DEVICE)
        metrics = json.loads((tmp_path / "results" / "metrics.json").read_text(encoding="utf-8"))
        assert metrics["images"]["first"]["ap50"] in (0, 1)  # by whether anything is found
        assert "no annotated object" in refusal_of(EVALUATE, sparse_truth=True, **ids, **DEVICE)

    def test_it_trains_nothing_and_touches_no_weights(self, trained: Training, tmp_path: Path) -> None:
        before = {path.name: path.read_bytes() for path in trained.ckpt_dir.iterdir()}
        ids = {"dataset_dir": trained.dataset, "ckpt_dir": trained.ckpt_dir, "output_dir": tmp_path}
        run_here(EVALUATE, **ids, **DEVICE, sparse_truth=True)
        assert {path.name: path.read_bytes() for path in trained.ckpt_dir.iterdir()} == before


class TestFolderNames:
    def test_numbers_and_brackets(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The shell's `--ckpt_dir 2024` reaches the configs as a number."""
        monkeypatch.chdir(tmp_path)
        dataset = write_pair(tmp_path / "[1]", *nuclei((16, 20, 24)), name="a[0].tif")
        ids = {"dataset_dir": dataset, "ckpt_dir": 2024, "output_dir": 2024}
        run_here(TRAIN, **TINY_TRAINING, **ids)
        run_here(INFERENCE, **ids, **EAGER_INFERENCE)
        run_here(EVALUATE, **ids, **EAGER_INFERENCE)
        results = {"model.pt", "a[0]_instances.tif", "metrics.json"}
        assert results <= {path.name for path in (tmp_path / "2024").iterdir()}


class TestConsistencyClustering:
    def test_training_and_evaluation_ask_the_teacher_too(self, tmp_path: Path) -> None:
        dataset = write_pair(tmp_path / "data", *nuclei((16, 20, 24)))
        ids = {"dataset_dir": dataset, "ckpt_dir": tmp_path, "output_dir": tmp_path, "clustering": "consistency"}
        run_here(TRAIN, **TINY_TRAINING, **ids)
        run_here(EVALUATE, **ids, **EAGER_INFERENCE)
        assert (tmp_path / "metrics.json").is_file()
        (tmp_path / "teacher.pt").unlink()
        assert "teacher.pt: found no such file" in refusal_of(EVALUATE, **ids, **EAGER_INFERENCE)


class TestTwoDimensions:
    """The same three commands with the overlay `2d.json`."""

    def test_training_inference_and_evaluation(self, tmp_path: Path) -> None:
        dataset = write_pair(tmp_path / "data", *nuclei((64, 56), seed=1), name="plane.tif")
        ids = {
            "dataset_dir": dataset,
            "ckpt_dir": tmp_path / "weights",
            "output_dir": tmp_path / "output",
            **DEVICE,
        }
        run_here([*TRAIN, "2d.json"], **{**TINY_TRAINING, **ids, "patch_size": [32, 32], "batch_size": 2})
        run_here([*INFERENCE, "2d.json"], **{**EAGER_INFERENCE, **ids, "output_dir": tmp_path / "results"})
        run_here([*EVALUATE, "2d.json"], **{**ids, "output_dir": tmp_path / "results"})
        instances = tifffile.imread(tmp_path / "results" / "plane_instances.tif")
        assert instances.shape == (64, 56)
        assert instances.max() > 0
        assert (tmp_path / "results" / "metrics.json").is_file()


class TestOverrides:
    def test_images_and_labels_in_any_place(self, tmp_path: Path) -> None:
        image, labels = nuclei(seed=1)
        ids = {
            "images": [str(write(tmp_path / "scans" / "monday.tif", image))],
            "labels": [str(write(tmp_path / "annotated by Ada" / "done.nii", labels))],
            "ckpt_dir": tmp_path / "weights",
            "output_dir": tmp_path / "output",
        }
        run_here(TRAIN, **TINY_TRAINING, **ids)
        assert (tmp_path / "weights" / "model.pt").is_file()

    def test_a_second_round_is_reminded_of_the_background_of_the_first(
        self, trained: Training, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Else what was painted as background would become an object in silence."""
        shutil.copytree(trained.ckpt_dir, tmp_path / "first")
        settings = json.loads((tmp_path / "first" / "model.json").read_text(encoding="utf-8"))
        (tmp_path / "first" / "model.json").write_text(
            json.dumps({**settings, "background_label": 7}), encoding="utf-8"
        )
        ids = {"dataset_dir": trained.dataset, "ckpt_dir": tmp_path / "weights", "output_dir": tmp_path / "output"}
        run_here(TRAIN, **{**TINY_TRAINING, "pretrained": str(tmp_path / "first" / "model.pt")}, **ids)
        assert "trained with background_label 7, which is not given now: 7 is an object" in caplog.text

    def test_weights_that_are_there_already_are_kept(self, trained: Training, tmp_path: Path) -> None:
        shutil.copytree(trained.ckpt_dir, tmp_path / "weights")
        ids = {"dataset_dir": trained.dataset, "ckpt_dir": tmp_path / "weights", "output_dir": tmp_path / "output"}
        run_here(TRAIN, **{**TINY_TRAINING, "pretrained": str(tmp_path / "weights" / "model.pt")}, **ids)
        for name in ("model.pt", "teacher.pt", "model.json"):
            kept = tmp_path / "weights" / name.replace(".", "_before_1.")
            assert kept.read_bytes() == (trained.ckpt_dir / name).read_bytes()
        assert (tmp_path / "weights" / "model.pt").is_file()
