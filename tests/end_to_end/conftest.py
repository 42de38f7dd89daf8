"""One tiny training, done once as users do it, that several tests start from."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from bundle_runs import TINY_TRAINING, TRAIN, nuclei, run_in_shell, write, write_pair


@dataclass(frozen=True)
class Training:
    """A finished training and its folders."""

    process: subprocess.CompletedProcess[str]
    dataset: Path
    ckpt_dir: Path
    output_dir: Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """3D, two images: one pair of TIFF files, and one TIFF image with a NIfTI label map."""
    folder = tmp_path_factory.mktemp("trained")
    dataset = write_pair(folder / "data", *nuclei(seed=1), name="first.tif")
    image, labels = nuclei(seed=2)
    write(dataset / "images" / "second.tif", image)
    write(dataset / "labels" / "second.nii.gz", labels)
    (folder / "elsewhere").mkdir()
    ids = {"dataset_dir": dataset, "ckpt_dir": folder / "weights", "output_dir": folder / "output"}
    options = {**TINY_TRAINING, "epochs": 2, "object_fraction": 0.5, "spacing": "objects"}
    process = run_in_shell(TRAIN, folder / "elsewhere", "training", **ids, **options)
    return Training(process, dataset, folder / "weights", folder / "output")
