"""From embeddings to instances: the one door to all methods of clustering."""

from __future__ import annotations

import math
from numbers import Integral, Real

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..arrays import Labels, Mask
from ..geometry.pieces import clean_components
from ..network.device_memory import on_host_if_too_large
from ..refusals import InputError
from ..tensors import plain_tensor
from .agglomeration import agglomerate
from .consistency import consistency_clusters
from .hdbscan import hdbscan_clusters
from .mean_shift import mean_shift_clusters

LARGEST = 1e15  # of an embedding's values: the squares of larger ones do not fit into float32

METHODS = ("auto", "mean_shift", "hdbscan", "consistency")


def cluster_embeddings(
    embeddings: ArrayLike | Tensor,
    foreground: ArrayLike | Tensor | None = None,
    method: str = "auto",
    delta_var: float = 0.5,
    min_size: int = 50,
    teacher_embeddings: ArrayLike | Tensor | None = None,
    merge_threshold: float | None = None,
) -> Labels:
    """Group pixel or voxel embeddings into instances.

    Args:
        embeddings: (E, *spatial), 2D or 3D, any real numbers; on which device, see below.
        foreground: (*spatial), true where objects may be; everywhere when not given, as in dense tissue.
        method: ``auto`` merges touching regions without a border between them (see `agglomeration`), ``mean_shift``
            with a flat kernel of radius `delta_var`, ``hdbscan``, or ``consistency``: mean shift, then only the
            clusters that the teacher selects as well (Section 3.4 of the paper).
        delta_var: radius of a cluster in embedding space, as in the loss; ``hdbscan`` needs none.
        min_size: smaller connected components, in voxels, are given to the instances they touch, or dropped.
        teacher_embeddings: (E, *spatial) of the momentum network; ``consistency`` needs them.
        merge_threshold: for ``auto``: the mean jump of the embeddings, in delta_var, that is a border; lower makes
            more and smaller instances. None: estimated from the embeddings (`agglomeration.estimated_threshold`).

    Returns:
        (*spatial) int32 instance map, 0 = background, ids 1..K; every instance is one connected component. The same
        input gives the same map.

    Raises:
        ValueError: arguments that do not fit together; embeddings that are not finite.

    What touches each embedding (regions and their borders, mean shift, the assignment to clusters) runs on the device
    of the embeddings; merging regions, HDBSCAN and connected components run on the CPU.
    """
    vectors = _checked_embeddings(embeddings, "embeddings")
    mask = _checked_foreground(foreground, tuple(vectors.shape[1:]))
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if not isinstance(delta_var, Real) or not 0 < delta_var <= LARGEST:
        raise InputError(f"delta_var must be positive and at most {LARGEST:g}, got {delta_var!r}")
    if not isinstance(min_size, Integral) or min_size < 0:
        raise InputError(f"min_size must be a whole number of voxels and not negative, got {min_size!r}")
    if merge_threshold is not None and not (isinstance(merge_threshold, Real) and merge_threshold > 0):
        raise InputError(f"merge_threshold must be positive, got {merge_threshold!r}")
    if method == "consistency" and teacher_embeddings is None:
        raise InputError("method 'consistency' needs teacher_embeddings, got None")
    if not mask.any():
        return np.zeros(mask.shape, np.int32)
    if method == "consistency":
        teacher = _checked_embeddings(teacher_embeddings, "teacher_embeddings")
        if teacher.shape != vectors.shape:
            raise InputError(
                f"teacher_embeddings must have the shape {tuple(vectors.shape)}, got {tuple(teacher.shape)}"
            )
        clusters = consistency_clusters(vectors, teacher, mask, delta_var, min_size)
    elif method == "mean_shift":
        clusters = mean_shift_clusters(vectors, mask, delta_var)
    elif method == "auto":
        clusters = on_host_if_too_large(agglomerate, vectors, torch.from_numpy(mask), delta_var, merge_threshold)
    else:
        clusters = hdbscan_clusters(vectors, mask, min_size)
    return clean_components(clusters, min_size)


def _checked_embeddings(embeddings: ArrayLike | Tensor, name: str) -> Tensor:
    """As float32."""
    if isinstance(embeddings, Tensor):
        vectors = plain_tensor(embeddings)
    else:
        array = np.asarray(embeddings)
        if array.dtype.kind not in "fiub":
            raise InputError(f"{name} must be real numbers, got the data type {array.dtype}")
        with np.errstate(over="ignore"):  # what does not fit into float32 becomes infinite, and is refused below
            vectors = torch.from_numpy(np.require(array, np.float32, ["C", "W"]))
    if vectors.is_complex():
        raise InputError(f"{name} must be real numbers, got the data type {vectors.dtype}")
    if vectors.layout != torch.strided:
        raise InputError(f"{name} must be a dense tensor, got the layout {vectors.layout}")
    if vectors.ndim not in (3, 4):
        raise InputError(f"{name} must have the shape (E, *spatial) in 2D or 3D, got {tuple(vectors.shape)}")
    if not vectors.numel():
        raise InputError(f"{name} must have no empty axis, got the shape {tuple(vectors.shape)}")
    vectors = vectors.float()
    smallest, largest = (float(value) for value in vectors.aminmax())  # NaN where there is one
    if not math.isfinite(smallest) or not math.isfinite(largest):  # `isfinite` of all would need a copy of them
        raise InputError(f"{name} must be finite, got {int((~vectors.isfinite()).sum())} NaN or infinite values")
    if max(-smallest, largest) > LARGEST:
        raise InputError(f"{name} must lie within +-{LARGEST:g}, got values from {smallest:g} to {largest:g}")
    return vectors


def _checked_foreground(foreground: ArrayLike | Tensor | None, shape: tuple[int, ...]) -> Mask:
    if foreground is None:
        return np.ones(shape, bool)
    if isinstance(foreground, Tensor):
        foreground = foreground.detach().cpu()
        foreground = (foreground.float() if foreground.is_floating_point() else foreground).numpy()
    mask = np.asarray(foreground)
    if mask.dtype.kind not in "fiub":
        raise InputError(f"foreground must be a mask of 0 and 1, got the data type {mask.dtype}")
    if mask.dtype.kind == "f" and not np.isin(mask, (0, 1)).all():
        raise InputError("foreground must be a mask of 0 and 1, got other floating-point values")
    if mask.dtype.kind == "i" and (mask < 0).any():
        raise InputError(f"foreground must be a mask, 0 outside, got the negative value {mask.min()}")
    if mask.shape != shape:
        raise InputError(f"foreground must have the embeddings' spatial shape {shape}, got {mask.shape}")
    return mask.astype(bool)
