"""Embedding fields with the geometry that SPOCO's loss asks for, and those of networks that were really trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from bundle import bundle_config
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from scripts.network.checkpoints import load_weights
from scripts.network.foreground import is_foreground
from scripts.transforms.resampling import resample_nearest

DELTA_VAR = 0.5
VECTORS = 24  # that there are for objects to share, more than an object has neighbours

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]


class Field(NamedTuple):
    embeddings: Floats  # (E, *spatial)
    foreground: NDArray[np.bool_]  # (*spatial)
    labels: Labels  # (*spatial), the truth
    min_size: int
    merge_threshold: float | None = None


class Kind(NamedTuple):
    """What the network left of the ideal, one point an object and every object far from all others."""

    spread: float = 0.35  # root mean square distance of a voxel's embedding to its object's
    shared: bool = False  # objects that do not touch may have one embedding
    flatness: float = 1.0  # width of an object over its thickness
    blur: float = 0.0  # standard deviation in voxels: at a border, embeddings go over into the neighbour's
    drift: float = 0.0  # change of the embedding from voxel to voxel, along each axis
    dense: bool = False  # objects fill the image, as cells of a tissue do
    apart: float = 4.0  # how far at least touching objects are; the loss wants 2 delta_dist


KINDS = {
    "tight": Kind(),
    "loose": Kind(spread=1.0),
    "shared": Kind(shared=True),
    "thin": Kind(flatness=3.0, blur=0.7),
    "drifting": Kind(drift=0.1),
    "dense": Kind(dense=True),
    "blurred": Kind(blur=1.0, dense=True),
    "smeared": Kind(blur=1.5, dense=True),
    "far": Kind(blur=1.0, dense=True, apart=8.0),
}


def synthetic_field(kind: Kind, voxels: int, objects: int, dim: int, ndim: int = 3, seed: int = 0) -> Field:
    """Objects that touch in clumps and fill `voxels` of the image: about half of it, or, where they are dense, all."""
    random = np.random.default_rng(seed)
    side = round((voxels if kind.dense else 2 * voxels) ** (1 / ndim))
    labels, distance_to_center = _cells((side,) * ndim, objects, kind.flatness, random)
    if kind.dense:
        foreground = np.ones(labels.shape, bool)
    else:
        foreground = distance_to_center <= np.partition(distance_to_center.ravel(), voxels)[voxels]
    embeddings = np.empty((dim, *labels.shape), np.float32)
    vectors = _vectors(labels, dim, kind, random)
    axes = random.permutation(dim)[:ndim]  # along which the embedding drifts
    for index, channel in enumerate(embeddings):
        channel[:] = vectors[labels, index]
        if kind.drift and index in axes:
            channel += kind.drift * _from_middle(labels, int(np.flatnonzero(axes == index)[0]))
        if kind.blur:
            gaussian_filter(channel, kind.blur, output=channel)
        channel += _grain(labels.shape, kind.spread / dim**0.5, random)
    truth = np.where(foreground, labels, 0).astype(np.int32)
    return Field(embeddings, foreground, truth, min_size=max(1, voxels // objects // 16))


def trained_fields(configs: Sequence[str], dataset_dir: str, ckpt_dir: str) -> Iterator[tuple[str, Field]]:
    """What the network in `ckpt_dir` makes of each image, on its working grid: its own foreground, and the true one.

    Args:
        configs: ``train.json``, and overlays of it.
        dataset_dir, ckpt_dir: as for the bundle's commands; the labels must be complete.
    """
    parser = bundle_config([*configs, "evaluate.json"], dataset_dir=dataset_dir, ckpt_dir=ckpt_dir)
    device, inferer = parser.get_parsed_content("device"), parser.get_parsed_content("validate#inferer")
    network = parser.get_parsed_content("network").eval()
    load_weights(network, Path(ckpt_dir) / "model.pt")
    choice, merge_threshold, threshold = (
        parser.get_parsed_content(name) for name in ("foreground", "merge_threshold", "foreground_threshold")
    )
    for sample in parser.get_parsed_content("validate#dataset"):
        with torch.no_grad():
            embeddings = torch.as_tensor(inferer(sample["image"][None].to(device), network)[0].cpu().numpy())
        labels = resample_nearest(torch.as_tensor(sample["label"].numpy()), embeddings.shape[1:])[0].numpy()
        min_size = max(1, round(parser.get_parsed_content("smallest_instance")))
        name = Path(sample["label"].meta["filename_or_obj"]).name.split(".")[0]
        own = is_foreground(embeddings, threshold).numpy() if choice == "estimated" else np.ones(labels.shape, bool)
        for source, foreground in ((choice, own), ("true", labels > 0)):
            truth = labels.astype(np.int32)
            yield (
                f"{name}, foreground: {source}",
                Field(embeddings.numpy(), foreground, truth, min_size, merge_threshold),
            )


def _cells(shape: tuple[int, ...], count: int, flatness: float, random: np.random.Generator) -> tuple[Labels, Floats]:
    """Which of `count` random centres is nearest, as 1, 2, ..., and how far it is: (*spatial) each."""
    scale = np.array([flatness, *[1.0] * (len(shape) - 1)])
    tree = cKDTree(scale * random.random((count, len(shape))) * shape)
    labels, distances = np.empty(shape, np.int32), np.empty(shape, np.float32)
    plane = np.stack(np.meshgrid(*(np.arange(n) for n in shape[1:]), indexing="ij"), -1).reshape(-1, len(shape) - 1)
    for first in range(shape[0]):  # plane by plane, which saves memory
        voxels = np.column_stack([np.full(len(plane), first), plane])
        distance, nearest = tree.query(scale * voxels, workers=-1)
        distances[first], labels[first] = distance.reshape(shape[1:]), nearest.reshape(shape[1:]) + 1
    return labels, distances


def _vectors(labels: Labels, dim: int, kind: Kind, random: np.random.Generator) -> Floats:
    """A vector for each label, (K + 1, E), `kind.apart` or more from those of the labels it touches."""
    touched: dict[int, list[int]] = {}
    for first, second in touching_regions(labels).tolist():
        touched.setdefault(second, []).append(first)  # the smaller id comes first
    choices = _apart(VECTORS, dim, kind.apart, random) if kind.shared else None
    vectors = np.zeros((labels.max() + 1, dim), np.float32)
    for label in range(1, len(vectors)):
        others = vectors[touched.get(label, [])]
        while True:
            vector = random.normal(0, 2, dim) if choices is None else choices[random.integers(VECTORS)]
            if (np.linalg.norm(others - vector, axis=1) >= kind.apart).all():
                break
        vectors[label] = vector
    return vectors


def touching_regions(regions: Labels) -> NDArray[np.int64]:
    """Pairs of regions that share a face, (P, 2), the smaller id first."""
    pairs = []
    for axis in range(regions.ndim):
        along = np.moveaxis(regions, axis, 0)
        first, second = along[:-1].ravel(), along[1:].ravel()
        different = first != second
        pairs.append(np.stack([first[different], second[different]], axis=1))
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)


def _apart(count: int, dim: int, apart: float, random: np.random.Generator) -> Floats:
    """Vectors with gaps of `apart` or more, (count, E)."""
    vectors: Floats = np.empty((0, dim), np.float32)
    while len(vectors) < count:
        vector = random.normal(0, 2, (1, dim))
        if (np.linalg.norm(vectors - vector, axis=1) >= apart).all():
            vectors = np.concatenate([vectors, vector])
    return vectors


def _from_middle(labels: Labels, axis: int) -> Floats:
    """Each voxel's position along `axis`, from the middle of its object."""
    position = np.arange(labels.shape[axis], dtype=np.float32).reshape(
        [-1 if i == axis else 1 for i in range(labels.ndim)]
    )
    sizes = np.maximum(np.bincount(labels.ravel()), 1)
    middle = np.bincount(labels.ravel(), weights=np.broadcast_to(position, labels.shape).ravel()) / sizes
    return position - middle[labels].astype(np.float32)


def _grain(shape: tuple[int, ...], deviation: float, random: np.random.Generator) -> Floats:
    """Noise as networks make it: mostly smooth over two voxels, a fifth of its variance without any relation."""
    smooth = gaussian_filter(random.standard_normal(shape, np.float32), 1.5)
    noise = 0.8**0.5 * smooth / smooth.std() + 0.2**0.5 * random.standard_normal(shape, np.float32)
    return np.float32(deviation) * noise
