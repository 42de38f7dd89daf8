"""Training, inference, evaluation and the choice of what to annotate on a pretended GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_runs import EAGER_INFERENCE, EVALUATE, INFERENCE, TINY_TRAINING, TRAIN, nuclei, run_here, write_pair
from pretend_gpu import OnGpu

from scripts.clustering.methods import METHODS

PRETEND = {"_target_": "pretend_gpu.PretendGpu"}
ON_CPU = {"device": "$torch.device('cpu')"}  # with SPOCO_TEST_DEVICE=cuda, too: here a GPU is pretended


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Ids of all runs: data, and where a training on the pretended GPU has left its weights."""
    folder = tmp_path_factory.mktemp("gpu")
    dataset = write_pair(folder / "data", *nuclei())
    folders = {**ON_CPU, "dataset_dir": dataset, "ckpt_dir": folder / "weights", "output_dir": folder / "output"}
    run_here(
        TRAIN, **{**TINY_TRAINING, **folders, "background_label": 1, "ignore_label": 2, "validate#handlers#0": PRETEND}
    )
    return folders


def test_what_is_pretended() -> None:
    tensor = OnGpu(torch.zeros(1, 2))
    for there in (tensor, tensor + 1, tensor.as_tensor(), tensor.as_tensor()[0], tensor[0].float()):
        with pytest.raises(TypeError, match="Use Tensor.cpu"):
            np.asarray(there)
        with pytest.raises(TypeError, match="Use Tensor.cpu"):
            there.numpy()
        np.asarray(there.cpu())


def test_training_validates_and_draws(folders: dict[str, Path]) -> None:
    assert (folders["ckpt_dir"] / "model.pt").is_file()
    assert (folders["output_dir"] / "pictures" / "epoch_0001.png").is_file()


@pytest.mark.parametrize("clustering", METHODS)
def test_inference(folders: dict[str, Path], tmp_path: Path, clustering: str) -> None:
    ids = {**EAGER_INFERENCE, **folders, "output_dir": tmp_path, "clustering": clustering, "handlers#1": PRETEND}
    run_here(INFERENCE, **ids)
    assert (tmp_path / "nuclei_instances.tif").is_file()


@pytest.mark.parametrize("foreground", ["estimated", "everywhere"])
def test_evaluation(folders: dict[str, Path], tmp_path: Path, foreground: str) -> None:
    ids = {**EAGER_INFERENCE, **folders, "output_dir": tmp_path, "foreground": foreground}
    run_here(EVALUATE, **{**ids, "ignore_label": 2, "validate#handlers#1": PRETEND})
    assert (tmp_path / "metrics.json").is_file()


def test_where_to_annotate(folders: dict[str, Path], tmp_path: Path) -> None:
    ids = {**EAGER_INFERENCE, **folders, "output_dir": tmp_path, "handlers#1": PRETEND}
    run_here([*INFERENCE, "next_objects.json"], **ids)
    assert list(tmp_path.glob("*next_objects*"))
