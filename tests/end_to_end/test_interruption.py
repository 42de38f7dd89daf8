"""A training that was killed goes on with the same command, as if nothing had happened."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from bundle_runs import TINY_TRAINING, TRAIN, nuclei, run_command, run_here, same_weights, shell_environment, write_pair

EPOCHS = 3
DEADLINE = 120.0  # seconds, for a busy machine


def training(folder: Path, dataset: Path, metric: str) -> dict[str, Any]:
    """The ids of one training whose key metric is `Rising` or `Falling`, with its weights and output in `folder`."""
    return {
        **TINY_TRAINING,
        "epochs": EPOCHS,
        "dataset_dir": dataset,
        "ckpt_dir": folder / "weights",
        "output_dir": folder / "output",
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
    """A training killed after its first epoch, whose weights are the best of a falling metric."""
    folder = tmp_path_factory.mktemp("killed")
    checkpoint = folder / "output" / "resume.pt"
    command = run_command(TRAIN, "training", **training(folder, dataset, "Falling"))
    process = subprocess.Popen(command, cwd=folder, env=shell_environment(), stdout=subprocess.DEVNULL)
    started = time.monotonic()
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < started + DEADLINE:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    return folder


@pytest.mark.parametrize("metric", ["Rising", "Falling"])
def test_the_result_is_that_of_an_uninterrupted_training(
    metric: str, killed: Path, dataset: Path, tmp_path: Path
) -> None:
    """`Rising` keeps the weights of the last epoch, `Falling` those of the first, before the interruption."""
    shutil.copytree(killed, tmp_path / "resumed")
    run_here(TRAIN, **training(tmp_path / "resumed", dataset, metric))
    run_here(TRAIN, **training(tmp_path / "at once", dataset, metric))
    resumed, at_once = tmp_path / "resumed" / "weights", tmp_path / "at once" / "weights"
    assert {path.name for path in resumed.iterdir()} == {path.name for path in at_once.iterdir()}
    for name in ("model.pt", "teacher.pt"):
        assert same_weights(resumed / name, at_once / name), name


def test_a_finished_training_leaves_nothing_to_resume(dataset: Path, tmp_path: Path) -> None:
    ids = {**training(tmp_path, dataset, "Rising"), "epochs": 1}
    run_here(TRAIN, **ids)
    assert not (tmp_path / "output" / "resume.pt").exists()
    run_here(TRAIN, **ids)  # a new training, which keeps the weights of the first
    assert same_weights(tmp_path / "weights" / "model_before_1.pt", tmp_path / "weights" / "model.pt")
