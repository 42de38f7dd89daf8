"""Embeddings to instances and their scores as a MONAI dictionary transform."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from numpy.typing import NDArray
from torch import Tensor

from ..files.image_files import file_of
from ..files.tables import SCORES_POSTFIX
from ..network.foreground import THRESHOLD, is_foreground
from ..refusals import InputError
from ..tensors import plain_tensor
from ..transforms.checks import BLANK_KEY
from ..transforms.classes import regions_of_classes
from ..transforms.working_grid import smallest_in_working_voxels
from .by_class import cluster_each_class
from .confidence import drop_unsure, instance_scores
from .fragments import drop_fragments
from .methods import METHODS, cluster_embeddings

logger = logging.getLogger(__name__)

CHOSEN_KEY = "chosen_thresholds"  # not under their own names, where MONAI Label has what a request asks for
LISTED = 20  # values of a mask in a message
FOREGROUND_CHOICES = ("estimated", "everywhere")


class ClusterEmbeddingsd(MapTransform):
    """Replace embeddings (E, *spatial) by instances (1, *spatial) int32 1..K; add their scores (K,) as ``pred_scores``.

    Where the data hold a ``mask`` (1, *spatial), instances lie inside it, whatever `foreground` says, and inside one
    class of it each. Where they say by ``is_blank`` that nothing is to be seen in the image (see `checks.CheckImaged`),
    there is no instance. Where they hold, under `CHOSEN_KEY`, a ``merge_threshold`` and a ``foreground_threshold`` (see
    `calibration`), these count.

    Args:
        keys: what the network returned; 2 E channels when the teacher's embeddings follow the student's.
        embedding_dim: E.
        method, delta_var: see `clustering.cluster_embeddings`.
        min_size, smallest_instance: smaller instances are dropped, see `working_grid.smallest_in_working_voxels`.
        foreground: ``estimated`` keeps the voxels that the foreground axis tells are objects (see `foreground`),
            ``everywhere`` is for tissue in which every voxel belongs to an object.
        foreground_threshold: probability above which a voxel is foreground, by default `foreground.THRESHOLD`.
        position_scale: of the positions in the embeddings (see `positions.add_positions`); with them, and where
            the foreground is estimated, fragments are told from small objects (see `fragments`).
        classes: values of the mask to look at, see `by_class.cluster_each_class`.
        merge_threshold: see `clustering.cluster_embeddings`.
        min_score: instances with a lower score (see `confidence`) are dropped; 0 keeps all.
        embeddings_key: where the embeddings go; None: nowhere.
    """

    def __init__(
        self,
        keys: KeysCollection,
        embedding_dim: int,
        method: str = "auto",
        delta_var: float = 0.5,
        min_size: int = 50,
        smallest_instance: float = 1,
        foreground: str = "estimated",
        foreground_threshold: float | None = None,
        position_scale: float = 0.0,
        classes: Sequence[int] | None = None,
        min_score: float = 0.0,
        merge_threshold: float | None = None,
        embeddings_key: str | None = None,
    ) -> None:
        super().__init__(keys)
        if method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        if foreground not in FOREGROUND_CHOICES:
            raise InputError(f"foreground must be one of {', '.join(FOREGROUND_CHOICES)}, got {foreground!r}")
        if not 0 <= min_score <= 1:
            raise InputError(f"min_score must lie in [0, 1], got {min_score}")
        if merge_threshold is not None and not (isinstance(merge_threshold, Real) and merge_threshold > 0):
            raise InputError(f"merge_threshold must be a positive number, got {merge_threshold!r}")
        if foreground_threshold is not None and not (
            isinstance(foreground_threshold, Real) and 0 <= foreground_threshold <= 1
        ):
            raise InputError(f"foreground_threshold must lie in [0, 1], got {foreground_threshold!r}")
        if min_size < 0:
            raise InputError(f"min_size must not be negative, got {min_size}")
        self.embedding_dim, self.method, self.foreground = embedding_dim, method, foreground
        self.delta_var, self.position_scale = delta_var, position_scale
        self.min_size, self.smallest_instance = min_size, smallest_instance
        self.classes, self.merge_threshold = classes, merge_threshold
        self.foreground_threshold = THRESHOLD if foreground_threshold is None else foreground_threshold
        self.min_score, self.embeddings_key = min_score, embeddings_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            pred = result[key]
            if self.embeddings_key is not None:
                result[self.embeddings_key] = pred
            vectors = plain_tensor(pred).float()
            student, teacher = vectors[: self.embedding_dim], vectors[self.embedding_dim :]
            smallest = smallest_in_working_voxels(self.min_size, self.smallest_instance, pred)
            try:
                instances = self._instances(result, file_of(pred, key), student, teacher, smallest)
            except InputError as error:  # as embeddings that are no numbers, of broken weights
                raise InputError(f"{file_of(pred, key)}: {error}") from error
            scores = instance_scores(instances, student, self.delta_var)
            instances, scores = drop_unsure(instances, scores, self.min_score)
            result[f"{key}_{SCORES_POSTFIX}"] = torch.from_numpy(scores)
            found = torch.from_numpy(instances)[None]
            result[key] = MetaTensor(found, meta=pred.meta) if isinstance(pred, MetaTensor) else found
        return result

    def _instances(
        self, data: Mapping[Hashable, Any], file: str, student: Tensor, teacher: Tensor, smallest: int
    ) -> NDArray[np.int32]:
        """The instances of an image, (*spatial), with at least `smallest` voxels."""
        if data.get(BLANK_KEY):
            logger.warning("%s: found one value everywhere, and so no instances", file)
            return np.zeros(student.shape[1:], np.int32)
        chosen = data.get(CHOSEN_KEY, {})
        cluster = partial(
            cluster_embeddings,
            student,
            method=self.method,
            delta_var=self.delta_var,
            min_size=smallest,
            teacher_embeddings=teacher if len(teacher) else None,
            merge_threshold=chosen.get("merge_threshold", self.merge_threshold),
        )
        if "mask" in data:
            mask = torch.as_tensor(data["mask"]).cpu().numpy()[0]
            self._tell_if_without(mask, file)
            return cluster_each_class(cluster, mask, self.classes)
        if self.foreground == "everywhere":
            return cluster(None)
        threshold = chosen.get("foreground_threshold", self.foreground_threshold)
        return drop_fragments(cluster(is_foreground(student, threshold)), student, self.position_scale, smallest)

    def _tell_if_without(self, mask: NDArray[np.integer], file: str) -> None:
        """Say which mask leaves no place for instances: it may hold other numbers than the classes'."""
        if any(region.any() for region in regions_of_classes(mask, self.classes)):
            return
        wanted = "anything but 0" if self.classes is None else f"one of the classes {list(self.classes)}"
        values = ", ".join(map(str, np.unique(mask)[:LISTED].tolist()))
        logger.warning("%s: found the values %s in its mask, expected %s; so it has no instances", file, values, wanted)
