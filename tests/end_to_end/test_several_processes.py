"""Training with `multi_gpu_train.json`: two processes, as two GPUs would be, but on CPUs.

They are compared with one process that has twice the batch. For this all see whole volumes in a fixed order, as they
are, and no anchor is drawn at random. The optimiser is SGD, as AdamW makes whole steps of the rounding error of a
gradient near zero.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_runs import (
    BUNDLE,
    TINY_TRAINING,
    TRAIN,
    curves,
    nuclei,
    run_command,
    run_here,
    same,
    shell_environment,
    write_pair,
)

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
BACKGROUND, SIDE = 99, 16
SAME_PATCHES = {
    "train#preprocessing#transforms": [
        "@load",
        "@normalization",
        {"_target_": "CopyItemsd", "keys": "image", "names": "teacher_image"},
    ],
    "train#sampler": {
        "_target_": "torch.utils.data.DistributedSampler",
        "dataset": "@train#dataset",
        "num_replicas": "@processes",
        "rank": "@rank",
        "shuffle": False,
    },
}
SAME_ANCHORS = {"loss#_target_": "bundle_runs.LossWithOneAnchor"}
PLAIN_STEPS = {"optimizer": {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": 0.003}}
# what each process ends with, written before the process group is left
KEEP = (
    "$torch.save({'network': @network.state_dict(), 'teacher': @teacher.state_dict(), "
    "'metrics': @train#trainer.state.metrics, 'epoch': @train#trainer.state.epoch}, "
    "@output_dir + '/rank_%d.pt' % @rank)"
)
LEAVE = json.loads((BUNDLE / "configs" / "multi_gpu_train.json").read_text(encoding="utf-8"))["finalize"]
LAST_EPOCH = 4  # three validations of a falling metric after the first, the best one


def training(folder: Path, processes: int) -> dict[str, Any]:
    """The ids of a training with four volumes an iteration, wherever they are seen."""
    return {
        **TINY_TRAINING,
        **SAME_PATCHES,
        **SAME_ANCHORS,
        **PLAIN_STEPS,
        "device": "$torch.device('cpu')",
        "processes": processes,
        "precision": "float32",  # bfloat16 rounds a mean of two gradients otherwise than that of twice the batch
        "batch_size": 4 // processes,
        "epochs": 6,
        "early_stop_patience": LAST_EPOCH - 1,
        "validate#key_metric": {"annotated_iou": {"_target_": "bundle_runs.Falling"}},
        "background_label": BACKGROUND,
        "dataset_dir": folder / "data",
        "ckpt_dir": folder / f"weights of {processes}",
        "output_dir": folder / f"output of {processes}",
        "finalize": [KEEP, *LEAVE] if processes > 1 else [KEEP],
    }


def run_by_torchrun(processes: int, folder: Path, environment: dict[str, str], /, **ids: Any) -> None:
    _, *module = run_command(["train.json", "multi_gpu_train.json"], "training", **ids)
    command = [sys.executable, *TORCHRUN, str(processes), *module]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-2000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training in two processes and in one."""
    folder = tmp_path_factory.mktemp("several")
    for number in range(8):
        image, labels = nuclei((SIDE, SIDE, SIDE), seed=number)
        labels[: SIDE // 2][labels[: SIDE // 2] == 0] = BACKGROUND
        write_pair(folder / "data", image, labels, name=f"{number}.tif")
    environment = {**shell_environment(), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run_by_torchrun(2, folder, environment, **training(folder, 2))
    run_here(TRAIN, **training(folder, 1))
    return folder


def ends(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What the two processes, and the one, ended with."""
    return tuple(
        torch.load(folder / name, weights_only=True)
        for name in ("output of 2/rank_0.pt", "output of 2/rank_1.pt", "output of 1/rank_0.pt")
    )


class TestTheSameAsOneProcessWithTwiceTheBatch:
    """The tolerance is that of sums of float32 in another order, over eight steps; the weights are about 0.1."""

    def test_loss_and_all_its_terms_as_means_over_the_processes(self, folder: Path) -> None:
        several, one = (curves(folder / f"output of {processes}" / "tensorboard") for processes in (2, 1))
        names = [name for name in one if name == "epoch_loss" or name.startswith("terms/")]
        assert len(names) == 8
        for name in names:
            assert list(one[name]) == list(range(1, LAST_EPOCH + 1))
            if name == "terms/consistency":  # a small difference of two networks; up to 7e-4, as the processor is
                assert several[name] == pytest.approx(one[name], rel=2e-3, abs=1e-7)
            else:
                assert several[name] == pytest.approx(one[name], rel=5e-5), name
        assert one["terms/consistency"][LAST_EPOCH] > 1e-4  # or it would compare 0 with 0

    def test_network_and_teacher(self, folder: Path) -> None:
        first, _, one = ends(folder)
        for part in ("network", "teacher"):
            for name, tensor in one[part].items():
                torch.testing.assert_close(first[part][name], tensor, rtol=1e-5, atol=5e-5)

    def test_early_stopping(self, folder: Path) -> None:
        assert [end["epoch"] for end in ends(folder)] == [LAST_EPOCH] * 3


def test_all_processes_end_with_the_same_network_teacher_and_metrics(folder: Path) -> None:
    first, second, _ = ends(folder)
    assert same(first, second)
    assert not same(first["network"], first["teacher"])


def test_one_process_writes(folder: Path) -> None:
    assert {path.name for path in (folder / "weights of 2").iterdir()} == {"model.pt", "teacher.pt", "model.json"}
    output = folder / "output of 2"
    assert {path.name for path in output.iterdir()} == {"pictures", "tensorboard", "rank_0.pt", "rank_1.pt"}
    of_one = folder / "output of 1"
    for kind in ("pictures", "tensorboard"):
        assert len(list((output / kind).iterdir())) == len(list((of_one / kind).iterdir()))


def test_the_weights_are_bare(folder: Path) -> None:
    """Inference on one GPU reads them: no `module.` before the names."""
    several, one = (torch.load(folder / f"weights of {processes}" / "model.pt") for processes in (2, 1))
    assert several.keys() == one.keys()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_by_nccl(tmp_path: Path) -> None:
    """One process in half precision: NCCL wants a GPU for each."""
    dataset = write_pair(tmp_path / "data", *nuclei((32, 32, 32)))
    ids = {"dataset_dir": dataset, "ckpt_dir": tmp_path / "weights", "output_dir": tmp_path / "output"}
    options = {**TINY_TRAINING, "device": "$torch.device('cuda', 0)"}
    run_by_torchrun(1, tmp_path, shell_environment(), **options, **ids)
    assert (tmp_path / "weights" / "model.pt").is_file()
