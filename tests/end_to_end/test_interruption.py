"""A training that was killed goes on with the same command, as if nothing had happened."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tifffile
import torch
from bundle_runs import (
    TINY_TRAINING,
    TRAIN,
    nuclei,
    refusal_of,
    run_command,
    run_here,
    same,
    same_weights,
    shell_environment,
    write,
    write_pair,
)

EPOCHS, ITERATIONS = 3, 2
KILLED_AT = 5  # the first of two iterations of the third epoch
# all that a training is, when it ends
KEEP = (
    "$torch.save({'iteration': @train#trainer.state.iteration, 'random': torch.get_rng_state(), "
    "**{name: part.state_dict() for name, part in @resume_objects.items()}}, @output_dir + '/end.pt')"
)


def training(folder: Path, dataset: Path, metric: str) -> dict[str, Any]:
    """The ids of one training whose key metric is `Rising` or `Falling`, with its weights and output in `folder`."""
    return {
        **TINY_TRAINING,
        "epochs": EPOCHS,
        "iterations_per_epoch": ITERATIONS,
        "dataset_dir": dataset,
        "ckpt_dir": folder / "weights",
        "output_dir": folder / "output",
        "finalize": [KEEP],
        "validate#key_metric": {"annotated_iou": {"_target_": f"bundle_runs.{metric}"}},
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two volumes, so that the order in which they are drawn matters."""
    folder = tmp_path_factory.mktemp("data")
    write_pair(folder, *nuclei((16, 24, 20), seed=1), name="one.tif")
    return write_pair(folder, *nuclei((16, 24, 20), seed=2), name="other.tif")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """A training killed in the middle of its third epoch, whose best weights are those of its first."""
    folder = tmp_path_factory.mktemp("killed")
    overlay = folder / "killed.json"
    handlers = [{"_target_": "bundle_runs.KilledAt", "iteration": KILLED_AT}]
    overlay.write_text(json.dumps({"+train#handlers": handlers}), encoding="utf-8")
    command = run_command([*TRAIN, str(overlay)], "training", **training(folder, dataset, "Falling"))
    process = subprocess.run(command, cwd=folder, env=shell_environment(), capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert {path.name for path in (folder / "output").glob("*.pt")} == {"resume.pt", "resume_previous.pt"}
    return folder


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> dict[str, Path]:
    """The same training without interruption, for each metric."""
    folders = {metric: tmp_path_factory.mktemp(metric) for metric in ("Rising", "Falling")}
    for metric, folder in folders.items():
        run_here(TRAIN, **training(folder, dataset, metric))
    return folders


def assert_same_end(folder: Path, other: Path) -> None:
    """Two trainings ended with the same files, weights, optimiser, schedule, random state and best metric."""
    one, another = (torch.load(path / "output" / "end.pt", weights_only=True) for path in (folder, other))
    assert one["iteration"] == EPOCHS * ITERATIONS
    assert one.keys() == another.keys()
    assert [name for name in one if not same(one[name], another[name])] == []
    weights = {path.name for path in (folder / "weights").iterdir()}
    assert weights == {path.name for path in (other / "weights").iterdir()}
    for name in ("model.pt", "teacher.pt"):
        assert same_weights(folder / "weights" / name, other / "weights" / name), name
    assert {path.name for path in (folder / "output").glob("*.pt")} == {"end.pt"}


@pytest.mark.parametrize("metric", ["Rising", "Falling"])
def test_the_end_is_that_of_an_uninterrupted_training(
    metric: str, killed: Path, at_once: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    """`Rising` keeps the weights of the last epoch, `Falling` those of the first, before the interruption."""
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    run_here(TRAIN, **training(tmp_path, dataset, metric))
    assert_same_end(tmp_path, at_once[metric])


def test_so_it_is_when_the_newest_checkpoint_is_broken(
    killed: Path, at_once: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    """The training goes on from the previous one, an epoch earlier."""
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    newest = tmp_path / "output" / "resume.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    run_here(TRAIN, **training(tmp_path, dataset, "Falling"))
    assert_same_end(tmp_path, at_once["Falling"])


@pytest.mark.parametrize(
    "option",
    [
        {"learning_rate": 0.01},
        {"filters": [16, 32, 64]},
        {"spacing": [1, 1, 1]},
        {"num_workers": 1},
        {"merge_threshold": 4.0},
        {"border_weight": 1.0},
        {"data": "other"},
    ],
)
def test_another_training_does_not_go_on_from_it(
    option: dict[str, Any], killed: Path, dataset: Path, tmp_path: Path
) -> None:
    """Other options, a network of another size, other data: `output_dir` may have been forgotten."""
    shutil.copytree(killed / "output", tmp_path / "output")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (name,) = option
    if name == "data":
        option, dataset = {}, write_pair(tmp_path / "other data", *nuclei((16, 24, 20), seed=3))
    message = refusal_of(TRAIN, **{**training(tmp_path, dataset, "Falling"), **option})
    assert f"resume.pt: found an interrupted training with {name} " in message
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not (tmp_path / "weights").exists()


def test_nor_does_one_with_another_nested_id(killed: Path, dataset: Path, tmp_path: Path) -> None:
    """On the command line, where all is compared as it is written."""
    shutil.copytree(killed / "output", tmp_path / "output")
    options = {**training(tmp_path, dataset, "Falling"), "loss#delta_dist": 3.0}
    command = run_command([*TRAIN, str(killed / "killed.json")], "training", **options)
    process = subprocess.run(command, cwd=tmp_path, env=shell_environment(), capture_output=True, text=True)
    assert process.returncode == 1
    assert "resume.pt: found an interrupted training with given ids " in process.stderr
    assert '"loss#delta_dist": "3.0"' in process.stderr


def test_nor_does_one_from_other_weights_of_the_same_name(
    killed: Path, at_once: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    shutil.copytree(killed / "output", tmp_path / "output")
    weights = str(at_once["Rising"] / "weights" / "model.pt")
    state = torch.load(tmp_path / "output" / "resume.pt", weights_only=True)
    state["options"] |= {"pretrained_content": "another"}
    torch.save(state, tmp_path / "output" / "resume.pt")
    message = refusal_of(TRAIN, **{**training(tmp_path, dataset, "Falling"), "pretrained": weights})
    assert "found an interrupted training with pretrained_content another, " in message


def test_nor_does_one_on_other_labels_of_the_same_name(killed: Path, dataset: Path, tmp_path: Path) -> None:
    """Corrected in between, as annotators do."""
    shutil.copytree(killed / "output", tmp_path / "output")
    labels = dataset / "labels" / "one.tif"
    before = labels.read_bytes()
    try:
        write(labels, 2 * tifffile.imread(labels))  # the same objects, so that nothing else changes
        message = refusal_of(TRAIN, **training(tmp_path, dataset, "Falling"))
    finally:
        labels.write_bytes(before)
    assert f"found an interrupted training with the content of the label {labels.name}, " in message


@pytest.fixture
def with_own_weights(at_once: dict[str, Path], dataset: Path, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A training whose weights to start from lie where its own will, as the shipped ones do, and its ids."""
    folder = tmp_path / "own weights"
    shutil.copytree(at_once["Rising"] / "weights", folder / "weights")
    (folder / "weights" / "teacher.pt").unlink()
    pretrained = folder / "weights" / "model.pt"
    return folder, {**training(folder, dataset, "Rising"), "pretrained": pretrained, "foreground": "estimated"}


def test_its_own_weights_may_have_taken_the_place_of_those_it_started_from(
    with_own_weights: tuple[Path, dict[str, Any]], killed: Path, tmp_path: Path
) -> None:
    """The grid, the foreground and what is kept of it follow from those, in the second run as in the first."""
    folder, ids = with_own_weights
    shutil.copytree(folder, tmp_path / "before")
    run_here(TRAIN, **ids)
    shutil.move(folder, tmp_path / "at once")
    shutil.move(tmp_path / "before", folder)
    command = run_command([*TRAIN, str(killed / "killed.json")], "training", **ids)
    process = subprocess.run(command, cwd=tmp_path, env=shell_environment(), capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert (folder / "weights" / "model_before_1.pt").is_file()
    run_here(TRAIN, **ids)
    assert_same_end(folder, tmp_path / "at once")


def test_a_finished_training_leaves_nothing_to_resume(at_once: dict[str, Path], dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(at_once["Rising"], tmp_path, dirs_exist_ok=True)
    run_here(TRAIN, **training(tmp_path, dataset, "Rising"))  # a new training, which keeps the weights of the first
    assert same_weights(tmp_path / "weights" / "model_before_1.pt", tmp_path / "weights" / "model.pt")
