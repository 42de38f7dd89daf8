"""Run the bundle's real configs on tiny data: in a process of its own, as users do, or in this one, to save time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nibabel
import numpy as np
import tifffile
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.bundle import ConfigWorkflow
from monai.utils import set_determinism
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from scripts.losses.spoco import SpocoLoss
from scripts.run.errors import refusal_behind
from scripts.synthetic.images import synthetic_nuclei

BUNDLE = Path(__file__).parents[2] / "spoco_bundle"
TRAIN, INFERENCE, EVALUATE = ["train.json"], ["inference.json"], ["train.json", "evaluate.json"]

# The CPU, because equal results are asked for; SPOCO_TEST_DEVICE=cuda shows what a GPU makes of it.
DEVICE = {"device": f"$torch.device('{os.environ.get('SPOCO_TEST_DEVICE', 'cpu')}')"}
# Small enough for a second an epoch
TINY_TRAINING = {
    "patch_size": [16, 16, 16],
    "filters": [8, 16, 32],
    "epochs": 1,
    "iterations_per_epoch": 2,
    "val_interval": 1,
    "pretrained": "null",
    "spacing": "image",
    **DEVICE,
}
# A network that has learned nothing finds no foreground: cluster everything, so that there are instances to compare.
EAGER_INFERENCE = {"foreground": "everywhere", "min_size": 1, **DEVICE}


def run_here(configs: Sequence[str], run_id: str = "run", **ids: Any) -> None:
    """Run configs in this process and leave no trace in it; the files are those a run from a shell writes."""
    hook, path, directory = sys.excepthook, sys.path.copy(), Path.cwd()
    try:
        workflow = ConfigWorkflow(
            config_file=[str(BUNDLE / "configs" / name) for name in configs],
            run_id=run_id,
            logging_file=False,
            bundle_root=str(BUNDLE),
            **_texts(ids),
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    finally:
        sys.excepthook, sys.path[:] = hook, path
        os.chdir(directory)
        set_determinism(None)


def run_command(configs: Sequence[str], run_id: str | None = None, **ids: Any) -> list[str]:
    """The shell command that runs configs: `python -m monai.bundle run [training] --config_file ... --ID VALUE ...`."""
    files = [str(BUNDLE / "configs" / name) for name in configs]
    options = {"bundle_root": str(BUNDLE), "config_file": files[0] if len(files) == 1 else str(files), **_texts(ids)}
    command = [sys.executable, "-m", "monai.bundle", "run", *([run_id] if run_id else [])]
    return command + [part for name, value in options.items() for part in (f"--{name}", str(value))]


def run_in_shell(
    configs: Sequence[str], cwd: Path, run_id: str | None = None, **ids: Any
) -> subprocess.CompletedProcess[str]:
    """Run configs as users do, from the working directory `cwd`."""
    return subprocess.run(
        run_command(configs, run_id, **ids), cwd=cwd, env=shell_environment(), capture_output=True, text=True
    )


def shell_environment() -> dict[str, str]:
    """The environment for a process of its own, which may import this module for its metrics."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def refusal_of(configs: Sequence[str], **ids: Any) -> str:
    """The sentence with which a run refuses its input; any other outcome is an error."""
    try:
        run_here(configs, **ids)
    except Exception as error:
        refusal = refusal_behind(error)
        if refusal is None:
            raise
        return str(refusal)
    raise AssertionError("the input was accepted")


def _texts(ids: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in ids.items()}


# --------------------------------------------------------------------------------------------------- data


def nuclei(shape: Sequence[int] = (16, 40, 28), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels, both uint16; the sides differ, so that swapped axes cannot go unnoticed."""
    image, labels = synthetic_nuclei(tuple(shape), object_diameter=14, seed=seed)
    return image, labels.astype(np.uint16)


def write(path: Path, array: np.ndarray, voxel_size: Sequence[float] | None = None) -> Path:
    """Write an array with axes (Z, Y, X) or (Y, X) as TIFF (OME where a voxel size is given) or NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxel_size = list(voxel_size or [])
    if path.name.endswith((".nii", ".nii.gz")):
        affine = np.diag([*(voxel_size[::-1] or [1.0] * array.ndim), *[1.0] * (4 - array.ndim)])
        nibabel.save(nibabel.Nifti1Image(array.transpose(), affine), path)
        return path
    axes = "ZYX"[-array.ndim :]
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip(axes, voxel_size, strict=False)}
    tifffile.imwrite(path, array, photometric="minisblack", ome=bool(sizes), metadata={"axes": axes, **sizes})
    return path


def write_pair(dataset: Path, image: np.ndarray, labels: np.ndarray, name: str = "nuclei.tif") -> Path:
    """Write DATASET/images/NAME and DATASET/labels/NAME; returns DATASET."""
    write(dataset / "images" / name, image)
    write(dataset / "labels" / name, labels)
    return dataset


def read_nifti(path: Path) -> np.ndarray:
    """The voxels of a NIfTI file with axes (x, y, z)."""
    return np.asarray(nibabel.load(path).dataobj)


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal, bit for bit: tensors, and containers of them and of anything else."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def same_weights(first: Path, second: Path) -> bool:
    """Whether two files hold the same state_dict, bit for bit."""
    return same(*(torch.load(path, weights_only=True) for path in (first, second)))


def curves(log_dir: Path) -> dict[str, dict[int, float]]:
    """The curves that TensorBoard shows: name -> step -> value."""
    events = EventAccumulator(str(log_dir), size_guidance={"scalars": 0})  # 0: keep all
    events.Reload()
    return {name: {event.step: event.value for event in events.Scalars(name)} for name in events.Tags()["scalars"]}


# ----------------------------------------------------------------------------------- metrics and handlers


class LossWithOneAnchor(SpocoLoss):
    """The loss with the first unlabelled voxel of each image as its only anchor."""

    def _terms(self, *args: Any) -> dict[str, Tensor]:
        def first_unlabeled(embeddings: Tensor, unlabeled: Tensor, delta_var: float) -> tuple[Tensor, Tensor]:
            first = unlabeled.byte().argmax(1, keepdim=True)
            return first, unlabeled.gather(1, first)

        with patch("scripts.losses.spoco.draw_anchors", first_unlabeled):
            return super()._terms(*args)


class Falling(Metric):
    """A key metric that is best after the first epoch."""

    sign = -1

    def reset(self) -> None:
        pass

    def update(self, output: Any) -> None:
        pass

    def compute(self) -> None:
        pass

    def completed(self, engine: Engine, name: str) -> None:
        engine.state.metrics[name] = float(self.sign * engine.state.epoch)


class Rising(Falling):
    """A key metric that is best after the last epoch."""

    sign = 1


class KilledAt:
    """Handler that ends the process as `kill -9` does, at an iteration of the trainer."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(
            Events.ITERATION_COMPLETED(once=self.iteration), lambda: os.kill(os.getpid(), signal.SIGKILL)
        )
