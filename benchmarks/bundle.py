"""The bundle that the benchmarks run: its configs, and generated images for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tifffile
from monai.bundle import ConfigParser

from scripts.synthetic.images import synthetic_nuclei

BUNDLE = Path(__file__).parents[1] / "spoco_bundle"


def bundle_config(configs: Sequence[str], **ids: Any) -> ConfigParser:
    """Configs of the bundle, one over the other, with ids changed as on the command line."""
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / name) for name in configs])
    parser.update({"bundle_root": str(BUNDLE), **ids})
    return parser


def generate_dataset(folder: Path, shape: tuple[int, ...], seed: int = 0) -> None:
    """Write an image of nuclei and its complete labels, ``generated.tif``."""
    image, labels = synthetic_nuclei(shape, seed=seed)
    for name, array in (("images", image), ("labels", labels.astype("uint16"))):
        (folder / name).mkdir(parents=True)
        tifffile.imwrite(folder / name / "generated.tif", array, metadata={"axes": "ZYX"[-len(shape) :]})
