"""The next objects to annotate as files: one ranked list for all images, and for each image a map of the doubt."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform
from monai.utils import MetaKeys
from numpy.typing import NDArray

from ..engines import outputs_of
from ..files.image_files import file_of, unique_names
from ..files.tables import UNIT_SYMBOLS, UNSTATED, write_table
from ..network.foreground import THRESHOLD, foreground_logit
from ..refusals import InputError
from ..tensors import plain_tensor
from ..transforms.checks import BLANK_KEY
from ..transforms.label_convention import number_objects
from ..transforms.working_grid import smallest_in_working_voxels
from .next_objects import Candidates, appearance, candidate_regions, find_candidates, rank

logger = logging.getLogger(__name__)


class AnnotationCandidates(NamedTuple):
    """What one image offers, and what is known of it."""

    path: str
    found: Candidates
    known: NDArray[np.float64]  # (A, 3) appearance of its annotated objects
    voxels: NDArray[np.int64]  # (n, ndim) places in the image's file
    voxel_size: list[float]  # of the file
    unit: str


class FindNextObjectsd(MapTransform):
    """Find what could be annotated next in an image.

    Adds `AnnotationCandidates` under ``candidates``, and under ``regions`` the map (1, *spatial) of their numbers. Of
    the same grid are ``pred``, the instances, ``image``, of whose channels the mean is looked at, and ``label``,
    without which nothing is annotated. Where there is a ``mask``, what is not an instance has not been missed, but left
    out; nor has anything in an image that ``is_blank`` (see `checks.CheckImaged`).

    Args:
        keys: embeddings (2 E, *spatial), student's and teacher's.
        embedding_dim: E.
        delta_var: radius of an instance in embedding space.
        min_size, smallest_instance: smaller objects have not been missed, see
            `working_grid.smallest_in_working_voxels`.
        foreground, foreground_threshold: as in `postprocessing.ClusterEmbeddingsd`.
        background_label, ignore_label: ids that are no objects.
    """

    def __init__(
        self,
        keys: KeysCollection,
        embedding_dim: int,
        delta_var: float = 0.5,
        min_size: int = 50,
        smallest_instance: float = 1,
        foreground: str = "estimated",
        foreground_threshold: float | None = None,
        background_label: int | None = None,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__(keys)
        self.embedding_dim, self.delta_var = embedding_dim, delta_var
        self.min_size, self.smallest_instance, self.foreground = min_size, smallest_instance, foreground
        self.special = (background_label, ignore_label)
        self.foreground_threshold = THRESHOLD if foreground_threshold is None else foreground_threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            vectors = np.asarray(torch.as_tensor(result[key]).float().cpu())
            student, teacher = vectors[: self.embedding_dim], vectors[self.embedding_dim :]
            picture: MetaTensor = result["image"]
            image = np.asarray(picture.as_tensor().cpu()).mean(0)
            looked_at, labels = self._annotation(result.get("label"), image.shape)
            everywhere = self.foreground == "everywhere" or "mask" in result  # a mask is full of instances
            nothing_missed = everywhere or result.get(BLANK_KEY)  # a blank image has nothing to miss
            probability = None if nothing_missed else foreground_logit(torch.from_numpy(student)).sigmoid().numpy()
            instances = np.asarray(result["pred"], np.int32)[0]
            smallest = smallest_in_working_voxels(self.min_size, self.smallest_instance, picture)
            regions = candidate_regions(instances, probability, looked_at, smallest, self.foreground_threshold)
            found = find_candidates(regions, looked_at, image, student, teacher, self.delta_var)
            result["regions"] = MetaTensor(torch.from_numpy(regions)[None], meta=picture.meta)
            result["candidates"] = _in_file(picture, found, appearance(labels, image))
        return result

    def _annotation(
        self, labels: torch.Tensor | None, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
        """Where somebody has looked, (*spatial), painted background included; and the objects, numbered 1..A."""
        if labels is None:
            return np.zeros(shape, bool), np.zeros(shape, np.int32)
        labels = plain_tensor(labels)[0].cpu()
        return (labels > 0).numpy(), number_objects(labels, *self.special)[1].numpy().astype(np.int32)


class PaintDoubtd(MapTransform):
    """Paint each region with the doubt of its candidate in percent: under ``heat`` (1, *spatial) int32 in [0, 100].

    Args:
        keys: numbers of the candidates, (1, *spatial), on any grid; see `FindNextObjectsd`.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            regions, doubts = result[key], torch.from_numpy(result["candidates"].found.doubts)
            percent = torch.cat([doubts.new_zeros(1), (100 * doubts).round()]).int()
            result["heat"] = MetaTensor(percent[regions.as_tensor().long()], meta=regions.meta)
        return result


class NextObjectsWriter:
    """Evaluator handler: rank what `FindNextObjectsd` found in all images, and write ``OUTPUT_DIR/next_objects.csv``.

    One line for each place: ``rank`` from 1, ``image``, ``score`` in [0, 1], and along each axis the index of a voxel
    in the image's file (``z_voxel``) and its distance from the first voxel's middle (``z_um``, see `tables`), each unit
    in columns of its own.

    Args:
        output_dir: folder to write to.
        count: how many places to list.
    """

    def __init__(self, output_dir: PathLike, count: int = 20) -> None:
        if count < 1:
            raise InputError(f"count must be at least 1, got {count}")
        self.target, self.count = Path(output_dir) / "next_objects.csv", count
        self.images: list[AnnotationCandidates] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self.images.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._keep)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _keep(self, engine: Engine) -> None:
        self.images += [output["candidates"] for output in outputs_of(engine)]

    def _write(self, engine: Engine) -> None:
        known = np.concatenate([image.known for image in self.images])
        chosen = rank([image.found for image in self.images], known, self.count)
        if not chosen:
            logger.warning("found no place to annotate: all that is to be seen is annotated, or looks like background")
        names = unique_names([image.path for image in self.images])
        axes = "zyx"[-self.images[0].voxels.shape[1] :]
        units = np.array([UNIT_SYMBOLS.get(self.images[image].unit, UNSTATED) for image, _, _ in chosen], str)
        voxels = np.array([self.images[image].voxels[number] for image, number, _ in chosen]).reshape(-1, len(axes))
        sizes = np.array([self.images[image].voxel_size for image, _, _ in chosen]).reshape(-1, len(axes))
        table = {
            "rank": np.arange(1, len(chosen) + 1),
            "image": np.array([names[image] for image, _, _ in chosen]),
            "score": np.array([score for _, _, score in chosen]),
            **{f"{axis}_voxel": column for axis, column in zip(axes, voxels.T, strict=True)},
        }
        for unit in dict.fromkeys(units) or [UNSTATED]:
            lengths = np.where(units[:, None] == unit, voxels * sizes, math.nan)
            table |= {f"{axis}_{unit}": column for axis, column in zip(axes, lengths.T, strict=True)}
        write_table(self.target, table)


def _in_file(picture: MetaTensor, found: Candidates, known: NDArray[np.float64]) -> AnnotationCandidates:
    """Say where the places lie in the image's file; the working grid picked its voxels as `resample_nearest` does."""
    shape, working = np.asarray(picture.meta[MetaKeys.SPATIAL_SHAPE]), np.array(picture.shape[1:])
    voxels = ((found.places + 0.5) * shape / working).astype(np.int64)
    voxel_size = affine_to_spacing(picture.meta[MetaKeys.ORIGINAL_AFFINE], r=picture.ndim - 1).tolist()
    return AnnotationCandidates(file_of(picture), found, known, voxels, voxel_size, picture.meta.get("unit", ""))
