"""Training with `multi_gpu_train.json`: two processes, as two GPUs would be, but on CPUs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bundle_runs import TINY_TRAINING, nuclei, run_command, same_weights, shell_environment, write_pair

CONFIGS = ["train.json", "multi_gpu_train.json"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
# what each process ends with, written before the process group is left
KEEP = "$torch.save([@network.state_dict(), @teacher.state_dict()], @output_dir + '/rank_%d.pt' % @rank)"
LEAVE = "$torch.distributed.destroy_process_group()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs on two volumes, in two processes."""
    folder = tmp_path_factory.mktemp("several")
    for name, seed in (("one.tif", 1), ("other.tif", 2)):
        write_pair(folder / "data", *nuclei((16, 24, 20), seed=seed), name=name)
    (folder / "output").mkdir()
    ids = {"dataset_dir": folder / "data", "ckpt_dir": folder / "weights", "output_dir": folder / "output"}
    options = {**TINY_TRAINING, "epochs": 2, "finalize": [KEEP, LEAVE]}
    _, *module = run_command(CONFIGS, "training", **ids, **options)
    environment = {**shell_environment(), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *TORCHRUN, *module]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-2000:]
    return folder


def test_all_processes_end_with_the_same_network_and_teacher(folder: Path) -> None:
    (first, first_teacher), (second, second_teacher) = (
        torch.load(folder / "output" / f"rank_{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(first_teacher[name], second_teacher[name]) for name in first_teacher)
    assert any(not torch.equal(first[name], first_teacher[name]) for name in first)


def test_one_process_writes(folder: Path) -> None:
    assert {path.name for path in (folder / "weights").iterdir()} == {"model.pt", "teacher.pt", "model.json"}
    written = {path.name for path in (folder / "output").iterdir()}
    assert written == {"pictures", "tensorboard", "rank_0.pt", "rank_1.pt"}
    assert sorted(path.name for path in (folder / "output" / "pictures").iterdir()) == [
        "epoch_0001.png",
        "epoch_0002.png",
    ]


def test_the_weights_are_bare(folder: Path) -> None:
    """Inference on one GPU reads them: no `module.` before the names."""
    names = torch.load(folder / "weights" / "model.pt", weights_only=True)
    assert not [name for name in names if name.startswith("module.")]
    assert not same_weights(folder / "weights" / "model.pt", folder / "weights" / "teacher.pt")
