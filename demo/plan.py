"""What a run works on: the folders to train and test on, and the settings that fit the images."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser

from demo.sample import make_sample
from scripts.files.datalist import image_label_pairs
from scripts.files.image_files import split_suffix
from scripts.files.readers import read_volume
from scripts.transforms.label_convention import annotated_ids

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "spoco_bundle"

Pair = dict[str, str]


class PlanError(ValueError):
    """Data that the demo cannot work on; the message is one sentence."""


@dataclass(frozen=True)
class Plan:
    """What a run works on.

    Attributes:
        train_dir, test_dir: in the standard layout; the same folder when there is only one image.
        spatial_dims: 2 or 3.
        patch_size: voxels of the working grid.
        train_images: how many.
        annotated: objects annotated in them.
        total: objects that there are in them, where this is known.
        sparse_truth: whether the test's labels may leave objects out.
    """

    train_dir: Path
    test_dir: Path
    spatial_dims: int
    patch_size: tuple[int, ...]
    train_images: int
    annotated: int
    total: int | None
    sparse_truth: bool

    @property
    def is_held_out(self) -> bool:
        """Whether the test image was kept from the training."""
        return self.train_dir != self.test_dir


def plan_sample(output: Path) -> Plan:
    """Make the demo's own sample under `output`."""
    train_dir, test_dir = output / "train", output / "test"
    count = make_sample(train_dir, test_dir)
    pairs = image_label_pairs(train_dir)
    patch_size, annotated = examine(pairs, pairs, spatial_dims=3)
    return Plan(train_dir, test_dir, 3, patch_size, 1, annotated, count.total, sparse_truth=False)


def check_dataset(dataset: Path) -> list[Pair]:
    """List a user's images with their labels, before anything is made or emptied.

    Raises:
        PlanError: no such folder.
        ValueError, FileNotFoundError: as of `scripts.files.datalist.image_label_pairs`.
    """
    if not dataset.is_dir():
        raise PlanError(f"{dataset}: no such folder, expected one with the folders images and labels.")
    return image_label_pairs(dataset)


def plan_dataset(pairs: Sequence[Pair], output: Path) -> Plan:
    """Read and check a user's files, and make nothing yet: the last image is held out, unless it is the only one.

    Raises:
        PlanError: images of both kinds or of several channels, or one too small for the network.
        RuntimeError: a file that the bundle refuses; the cause says what was found and what was expected.
    """
    spatial_dims = _common_dims([pair["image"] for pair in pairs])
    train = list(pairs[:-1]) or list(pairs)
    patch_size, annotated = examine(pairs, train, spatial_dims)
    train_dir, test_dir = output / "train", output / ("test" if len(pairs) > 1 else "train")
    return Plan(train_dir, test_dir, spatial_dims, patch_size, len(train), annotated, None, sparse_truth=True)


def link_dataset(pairs: Sequence[Pair], plan: Plan) -> None:
    """Lay out links to a user's files in the folders of the plan, or copies where there are no links.

    A run needs no copy and never writes to the files.
    """
    _link(pairs[: plan.train_images], plan.train_dir)
    _link(pairs[plan.train_images :], plan.test_dir)


def config_files(spatial_dims: int, *names: str) -> list[Path]:
    """Paths of the bundle's configs, with the overlay for 2D images after the first where it is needed."""
    overlay = ["2d.json"] if spatial_dims == 2 else []
    return [BUNDLE / "configs" / name for name in (names[0], *overlay, *names[1:])]


def read_config(spatial_dims: int, *names: str, **ids: Any) -> ConfigParser:
    """The bundle's configs as `config_files` puts them together, with ids changed as on the command line."""
    config = ConfigParser()
    config.read_config([str(path) for path in config_files(spatial_dims, *names)])
    config.update({"bundle_root": str(BUNDLE), **ids})
    return config


def examine(pairs: Sequence[Pair], train: Sequence[Pair], spatial_dims: int) -> tuple[tuple[int, ...], int]:
    """Read and check all files as the training will, and choose a patch that fits into every training image.

    Returns:
        the patch size on the working grid, and the number of annotated objects in `train`.

    Raises:
        PlanError, RuntimeError: as of `plan_dataset`.
    """
    config = read_config(spatial_dims, "train.json", **{"train#dataset#data": list(train)})
    load = config.get_parsed_content("load")
    train_files = {pair["image"] for pair in train}
    annotated = 0
    for pair in pairs:
        loaded = load(dict(pair))
        if pair["image"] in train_files:
            annotated += len(annotated_ids(loaded["label"].as_tensor(), None, None))
    return tuple(config.get_parsed_content("patch_size")), annotated


def read_array(path: Path | str) -> tuple[np.ndarray, list[float], str]:
    """Voxels (Z, Y, X) or (Y, X) of a file's first channel, voxel size along each axis, and its unit."""
    array, meta = read_volume(path)
    spatial = np.asarray(array).reshape(-1, *meta["spatial_shape"])[0]
    return spatial, np.linalg.norm(meta["affine"][:-1, :-1], axis=0).tolist(), meta["unit"]


def _common_dims(paths: Sequence[str]) -> int:
    """Axes of the images: 2 or 3."""
    dims = set()
    for path in paths:
        array, meta = read_volume(path)
        dims.add(len(meta["spatial_shape"]))
        channels = array.size // max(1, math.prod(int(n) for n in meta["spatial_shape"]))
        if channels != 1:
            raise PlanError(
                f"{path}: found {channels} channels, expected one; for more, run the training itself, with "
                f"--in_channels {channels}."
            )
    if len(dims) > 1:
        raise PlanError("found 2D and 3D images in one dataset, expected one kind.")
    return dims.pop()


def _link(pairs: Sequence[Pair], folder: Path) -> None:
    for pair in pairs:
        for key, kind in (("image", "images"), ("label", "labels")):
            source = Path(pair[key]).resolve()
            name, suffix = split_suffix(pair[key])
            link = folder / kind / f"{name}{suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.symlink(source, link)
            except FileExistsError:  # a copy would go through the link, into another of the user's files
                raise
            except OSError:  # Windows allows it to few users, some file systems to none
                shutil.copyfile(source, link)
