"""What cannot be trained on or segmented is refused in one sentence: the file, what was found, what was expected."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from bundle_runs import (
    EAGER_INFERENCE,
    EVALUATE,
    INFERENCE,
    TINY_TRAINING,
    TRAIN,
    nuclei,
    refusal_of,
    run_here,
    run_in_shell,
    write,
    write_pair,
)
from conftest import Training

IMAGE, LABELS = nuclei(seed=1)
Damage = Callable[[Path], object]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_pair(tmp_path / "data", IMAGE, LABELS)


def with_image(image: np.ndarray) -> Damage:
    return lambda dataset: write(dataset / "images" / "nuclei.tif", image)


def with_labels(labels: np.ndarray) -> Damage:
    return lambda dataset: write(dataset / "labels" / "nuclei.tif", labels)


def with_a_hole(image: np.ndarray) -> np.ndarray:
    result = image.astype(np.float32)
    result[3, 4, 5] = np.nan
    return result


def colour_image(dataset: Path) -> None:
    tifffile.imwrite(dataset / "images" / "nuclei.tif", np.stack([IMAGE] * 3, axis=-1), photometric="rgb")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_off_nifti(dataset: Path) -> None:
    (dataset / "images" / "nuclei.tif").unlink()
    cut_off(write(dataset / "images" / "nuclei.nii.gz", IMAGE))


def nothing_inside(dataset: Path) -> None:
    for folder in ("images", "labels"):
        shutil.rmtree(dataset / folder)
        (dataset / folder).mkdir()


# What is wrong -> what was done to a good dataset, and what the sentence must say (a pattern).
BAD_DATASETS: dict[str, tuple[Damage, str]] = {
    "no folder": (shutil.rmtree, r"data/images: no such folder, expected the folders images and labels"),
    "empty folders": (nothing_inside, r"data/images: found no volume, expected files that end in \.ome\.tiff, "),
    "an image without labels": (
        lambda dataset: write(dataset / "images" / "other.tif", IMAGE),
        r"data/labels: found no label for the image other\.tif, expected one of the same name",
    ),
    "labels of another shape": (
        with_labels(LABELS[:, :-1]),
        r"labels/nuclei\.tif: found a label map of shape 16 x 39 x 28 .*, expected the shape 16 x 40 x 28",
    ),
    "float labels": (
        with_labels(LABELS.astype(np.float32)),
        r"labels/nuclei\.tif: found a label map of type float32, expected integer ids",
    ),
    "negative labels": (
        with_labels(LABELS.astype(np.int16) - 1),
        r"labels/nuclei\.tif: found the negative id -1, expected 0 \(unlabelled\) and ids from 1",
    ),
    "nothing annotated": (
        with_labels(np.zeros_like(LABELS)),
        r"labels/nuclei\.tif: found no annotated object, .*, expected at least one object id",
    ),
    "not a number": (
        with_image(with_a_hole(IMAGE)),
        r"images/nuclei\.tif: found 1 values that are infinite or not a number, expected finite values",
    ),
    "a constant image": (
        with_image(np.full_like(IMAGE, 7)),
        r"images/nuclei\.tif: found the value 7 everywhere, expected an image with contrast",
    ),
    "a colour image": (colour_image, r"images/nuclei\.tif: found 3 channels, expected 1, the n"),
    "a plane under the 3D config": (
        lambda dataset: write_pair(dataset, IMAGE[0], LABELS[0]),
        r"images/nuclei\.tif: found a 2D image, .*, expected a 3D image \(add configs/2d\.json",
    ),
    "a truncated TIFF": (
        lambda dataset: cut_off(dataset / "images" / "nuclei.tif"),
        r"images/nuclei\.tif: found .*, expected .*(complete|cut off)",
    ),
    "a truncated NIfTI": (cut_off_nifti, r"images/nuclei\.nii\.gz: found .*, expected an undamaged NIfTI file"),
}


class TestTraining:
    @pytest.mark.parametrize(("damage", "sentence"), BAD_DATASETS.values(), ids=BAD_DATASETS)
    def test_a_bad_dataset(self, damage: Damage, sentence: str, dataset: Path) -> None:
        damage(dataset)
        self.assert_refused(dataset, sentence)

    def test_a_patch_larger_than_the_image(self, dataset: Path) -> None:
        sentence = (
            r"images/nuclei\.tif: found .* fewer than patch_size \[16, 64, 16\], expected patch_size up to \[16, 40, "
        )
        self.assert_refused(dataset, sentence, patch_size=[16, 64, 16])

    def test_a_patch_that_the_network_cannot_halve(self, dataset: Path) -> None:
        sentence = r"patch_size must be a multiple of \[8, 8, 8\], got \[12, 12, 12\]"
        self.assert_refused(dataset, sentence, patch_size=[12, 12, 12], filters=[8, 16, 32, 64])

    def test_weights_that_are_there_already_stay_where_they_are(self, dataset: Path) -> None:
        weights = dataset.parent / "weights" / "model.pt"
        weights.parent.mkdir()
        weights.write_bytes(b"precious")
        refusal_of(
            TRAIN,
            **{**TINY_TRAINING, "patch_size": [64, 64, 64]},
            dataset_dir=dataset,
            ckpt_dir=weights.parent,
            output_dir=dataset.parent,
        )
        assert weights.read_bytes() == b"precious"

    @pytest.mark.parametrize(
        ("option", "value", "sentence"),
        [
            ("epochs", 2.5, r"^epochs: found 2\.5, expected a whole number of at least 1\.$"),
            ("device", "cuda:99", r"^device: found 'cuda:99', expected a device of this machine"),
            ("ckpt_dir", 0.1, r"^ckpt_dir: found 0\.1, expected a path; write \./NAME where"),
        ],
    )
    def test_a_wrong_option(self, option: str, value: Any, sentence: str, dataset: Path) -> None:
        """Found before any image is read."""
        shutil.rmtree(dataset)
        self.assert_refused(dataset, sentence, **{option: value})

    @pytest.mark.parametrize("option", ["ckpt_dir", "output_dir"])
    def test_a_file_in_the_way_of_a_folder(self, option: str, dataset: Path) -> None:
        """Found before any image is read."""
        shutil.rmtree(dataset)
        (dataset.parent / "notes").touch()
        sentence = r"notes/new: found that no file can be made there \(.*\), expected a folder, or place for one"
        self.assert_refused(dataset, sentence, **{option: dataset.parent / "notes" / "new"})

    @pytest.mark.parametrize(("option", "value"), [("patch_size", "abc"), ("min_size", -1), ("foreground", "nowhere")])
    def test_a_wrong_option_that_a_training_chooses_by_itself(self, option: str, value: Any, dataset: Path) -> None:
        self.assert_refused(dataset, rf"^{option}: found {value!r}, expected ", **{option: value})

    def test_weights_to_start_from_that_are_not_there(self, dataset: Path) -> None:
        """Found before any image is read."""
        shutil.rmtree(dataset)
        self.assert_refused(
            dataset, r"typo\.pt: found no such file, expected weights to start from", pretrained="typo.pt"
        )

    def test_a_volume_under_the_2d_config(self, dataset: Path) -> None:
        sentence = (
            r"images/nuclei\.tif: found a 3D image, .*, expected a 2D image \(leave out configs/2d\.json for stacks"
        )
        self.assert_refused(dataset, sentence, configs=[*TRAIN, "2d.json"], patch_size=[16, 16])

    def assert_refused(self, dataset: Path, sentence: str, configs: list[str] = TRAIN, **ids: Any) -> None:
        outputs = {"ckpt_dir": dataset.parent / "weights", "output_dir": dataset.parent / "output"}
        message = refusal_of(configs, **{**TINY_TRAINING, "dataset_dir": dataset, **outputs, **ids})
        assert re.search(sentence, message), message
        assert "\n" not in message
        assert list(dataset.parent.rglob("*.pt")) == []


class TestInference:
    """A network refuses the same images when it segments them, and weights that are not its own."""

    @pytest.mark.parametrize("wrong", ["not a number", "a colour image", "a truncated NIfTI"])
    def test_a_bad_image(self, wrong: str, dataset: Path, trained: Training) -> None:
        damage, sentence = BAD_DATASETS[wrong]
        damage(dataset)
        self.assert_refused(dataset, sentence, trained.ckpt_dir)

    def test_a_blank_tile_among_others_has_no_instances(self, dataset: Path, trained: Training) -> None:
        write(dataset / "images" / "blank.tif", np.full_like(IMAGE, 7))
        results = dataset.parent / "results"
        run_here(INFERENCE, dataset_dir=dataset, ckpt_dir=trained.ckpt_dir, output_dir=results, foreground="everywhere")
        assert not tifffile.imread(results / "blank_instances.tif").any()
        assert len((results / "blank_instances.csv").read_text(encoding="utf-8").splitlines()) == 1  # the header
        assert tifffile.imread(results / "nuclei_instances.tif").any()

    def test_nor_is_anything_expected_there(self, dataset: Path, trained: Training) -> None:
        write(dataset / "images" / "blank.tif", np.full_like(IMAGE, 7))
        write(dataset / "labels" / "blank.tif", np.zeros(IMAGE.shape, np.uint16))
        outputs = {"ckpt_dir": trained.ckpt_dir, "output_dir": dataset.parent / "evaluation"}
        run_here(EVALUATE, dataset_dir=dataset, **outputs)
        metrics = json.loads((outputs["output_dir"] / "metrics.json").read_text(encoding="utf-8"))["images"]
        assert metrics["blank"]["ap50"] == 1.0

    def test_no_weights(self, dataset: Path, tmp_path: Path) -> None:
        self.assert_refused(dataset, r"none/model\.pt: found no such file, expected the weights", tmp_path / "none")

    def test_a_broken_file_of_weights(self, dataset: Path, tmp_path: Path) -> None:
        (tmp_path / "model.pt").write_bytes(b"no weights")
        self.assert_refused(
            dataset, r"model\.pt: found a file that torch cannot read .*, expected a state_dict", tmp_path
        )

    def test_weights_of_another_network(self, dataset: Path, tmp_path: Path) -> None:
        torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "model.pt")
        sentence = r"model\.pt: found weights of another architecture \(no entry .*\), expected this network's"
        self.assert_refused(dataset, sentence, tmp_path)

    @pytest.mark.parametrize(
        ("option", "value"), [("overlap", 1), ("ckpt_dir", 0.1), ("device", "cuda:99"), ("device", "gpu")]
    )
    def test_a_wrong_option(self, option: str, value: Any, dataset: Path, trained: Training) -> None:
        output_dir = dataset.parent / "results"
        ids = {"dataset_dir": dataset, "ckpt_dir": trained.ckpt_dir, "output_dir": output_dir, option: value}
        assert refusal_of(INFERENCE, **ids).startswith(f"{option}: found {value!r}, expected ")

    def test_a_result_that_would_take_the_place_of_an_image(self, dataset: Path, trained: Training) -> None:
        images = dataset / "images"
        precious = write(images / "nuclei_instances.tif", IMAGE).read_bytes()
        listed = [str(images / "nuclei.tif"), str(images / "nuclei_instances.tif")]
        ids = {"images": listed, "ckpt_dir": trained.ckpt_dir, "output_dir": images}
        assert "nuclei_instances.tif: found an input in the place of" in refusal_of(INFERENCE, **ids, **EAGER_INFERENCE)
        ids = {"dataset_dir": dataset, "ckpt_dir": trained.ckpt_dir, "output_dir": images}
        assert "images, a folder of inputs, expected another one" in refusal_of(INFERENCE, **ids, **EAGER_INFERENCE)
        assert (images / "nuclei_instances.tif").read_bytes() == precious

    def test_consistency_clustering_without_a_teacher(self, dataset: Path, trained: Training, tmp_path: Path) -> None:
        weights = shutil.copytree(trained.ckpt_dir, tmp_path / "weights", ignore=shutil.ignore_patterns("teacher.pt"))
        sentence = r"weights/teacher\.pt: found no such file, expected the momentum network that a training writes"
        self.assert_refused(dataset, sentence, weights, clustering="consistency")

    def assert_refused(self, dataset: Path, sentence: str, ckpt_dir: Path, **ids: Any) -> None:
        output_dir = dataset.parent / "results"
        paths = {"dataset_dir": dataset, "ckpt_dir": ckpt_dir, "output_dir": output_dir}
        message = refusal_of(INFERENCE, **paths, **EAGER_INFERENCE, **ids)
        assert re.search(sentence, message), message
        assert "\n" not in message
        assert not list(output_dir.glob("*"))


class TestInTheShell:
    """The sentence stands alone on standard error, and the exit status says that it failed."""

    def test_training(self, dataset: Path) -> None:
        damage, sentence = BAD_DATASETS["float labels"]
        damage(dataset)
        self.assert_fails(dataset, sentence, TRAIN, **TINY_TRAINING)

    def test_evaluation(self, dataset: Path) -> None:
        self.assert_fails(dataset, r"weights/model\.pt: found no such file, expected the weights", EVALUATE)

    def assert_fails(self, dataset: Path, sentence: str, configs: list[str], **ids: Any) -> None:
        folder = dataset.parent
        paths = {"dataset_dir": dataset, "ckpt_dir": folder / "weights", "output_dir": folder / "output"}
        process = run_in_shell(configs, folder, **paths, **ids)
        assert process.returncode == 1
        assert re.match(rf"error: .*{sentence}", process.stderr.splitlines()[-1])
        assert "Traceback" not in process.stderr
        assert [path.name for path in folder.rglob("*") if path.suffix in (".pt", ".json")] == []
