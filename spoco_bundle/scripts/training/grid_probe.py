"""The working grid on which the network to start from finds the annotated objects best.

The extents of the annotated objects suggest a grid (`working_grid.working_spacing`). Few objects, objects that differ,
and objects that the border of a volume cuts may suggest a wrong one. But a network that has learned what objects are
finds those that are annotated before any training, where the grid is right; so it can be asked, in seconds.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.inferers import Inferer
from monai.networks import eval_mode
from numpy.typing import NDArray
from scipy.ndimage import convolve
from torch import Tensor, nn

from ..clustering.agglomeration import agglomerate
from ..metrics.instances import instance_metrics
from ..network.device_memory import on_host_if_too_large
from ..network.foreground import THRESHOLD, is_foreground
from ..refusals import InputError
from ..tensors import plain_tensor
from ..transforms.label_convention import where_id, without_special
from ..transforms.resampling import ResampleToSpacingd, working_shape
from ..transforms.survey import Survey
from ..transforms.working_grid import practical_spacing, rounded
from .calibration import PREFERRED
from .surroundings import CLEARLY_FOUND

logger = logging.getLogger(__name__)

Transform = Callable[[Mapping[Any, Any]], Mapping[Any, Any]]
Spacing = Sequence[float]

STEP = 0.5  # from a voxel size to the next one that is tried, as a logarithm to base 2
STEPS = tuple(STEP * number for number in range(-2, 3))  # from the suggested one, along each group of axes
PRIOR = 0.008  # by how much more the objects must overlap on twice the suggested voxel size, where its error is 1
KNOWN = 1e-6  # an error so small is none
CERTAIN = 0.1  # hardly any grid is that much better: where a step must be, the network is not asked
FINEST = 4.0  # times as many voxels as the suggested grid has: a finer one costs too much in training and inference
SAMPLED_VOXELS = 2**18  # of the suggested grid that are looked at


def chosen_spacing(
    spacing: str | Sequence[float] | None,
    suggested: Sequence[float],
    survey: Survey,
    overlaps_on: Callable[[Sequence[Spacing]], Sequence[float]],
) -> list[float]:
    """The voxel size of the working grid, per axis in the unit of the files.

    The better the annotated objects say what it is, the more must the network find them better elsewhere: as with a
    normal prior around the suggested grid, the evidence falls with the square of the distance in standard errors.

    Args:
        spacing: as the user gives it; only ``objects`` leaves something to choose. None: as if it did not.
        suggested: what follows from it, see `working_grid.working_spacing`.
        survey: of the training files.
        overlaps_on: how well the annotated objects are found on each of some grids, 0 to 1, or NaN, see `GridProbe`.
    """
    # In nearly every microscope the last two axes have one voxel size: their extents are two measures of one thing.
    groups = [[0], [1, 2]] if len(suggested) == 3 else [[0, 1]]
    errors = [max(KNOWN, float(np.mean([survey.extent_errors[axis] for axis in group]))) for group in groups]
    prior = [PRIOR / error**2 for error in errors]
    steps = [STEPS if weight * STEP**2 < CERTAIN else (0.0,) for weight in prior]
    if spacing != "objects" or all(len(along) == 1 for along in steps):
        return list(suggested)

    grids = list(product(*steps))
    spacings = [tuple(_stepped(suggested, groups, grid, survey.voxel_size)) for grid in grids]
    finest_voxel = math.prod(suggested) / FINEST * (1 - 1e-6)
    asked = [one for one in dict.fromkeys(spacings) if math.prod(one) > finest_voxel]
    logger.info("spacing: as the annotated objects leave it open, looking at them on %d grids", len(asked))
    looks = dict(zip(asked, overlaps_on(asked), strict=True))
    found = np.array([looks.get(one, math.nan) for one in spacings])
    own = grids.index((0.0,) * len(groups))
    if math.isnan(found[own]):
        return list(suggested)  # the training will say what is wrong with it
    scores = smoothed(found.reshape([len(along) for along in steps])).ravel() - np.square(grids) @ prior
    # Good neighbours alone are not enough, and a network that hardly finds the objects knows none like them.
    worthy = found >= max(found[own], CLEARLY_FOUND)
    worthy[own] = True
    scores[~worthy] = -math.inf
    best = int(scores.argmax())
    if best == own:
        logger.info("spacing: stays, as the weights to start from find the annotated objects hardly better elsewhere")
        return list(suggested)
    logger.info(
        "spacing: %s, where the weights to start from overlap with the annotated objects by %.2f, on the grid that "
        "these suggest by %.2f",
        *(rounded(spacings[best]), found[best], found[own]),
    )
    return list(spacings[best])


def _stepped(
    suggested: Sequence[float], groups: Sequence[Sequence[int]], grid: Sequence[float], voxel_size: Sequence[float]
) -> list[float]:
    """The suggested voxel size, changed by so many powers of 2 along each group of axes."""
    spacing = list(suggested)
    for group, step in zip(groups, grid, strict=True):
        if step:
            mean = math.prod(suggested[axis] for axis in group) ** (1 / len(group))
            for axis in group:
                spacing[axis] = mean * 2**step
    return practical_spacing(voxel_size, spacing)


def smoothed(overlaps: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean with the neighbouring grids, which count half: one look is noisy. NaN stay, and do not count.

    >>> smoothed(np.array([0.0, 0.4, math.nan])).round(2).tolist()
    [0.13, 0.27, nan]
    """
    kernel = np.ones(())
    for _ in range(overlaps.ndim):
        kernel = np.multiply.outer(kernel, [0.5, 1.0, 0.5])
    known = ~np.isnan(overlaps)
    total = convolve(np.where(known, overlaps, 0.0), kernel, mode="constant")
    return np.where(known, total / np.maximum(convolve(known.astype(float), kernel, mode="constant"), 1e-9), math.nan)


class GridProbe:
    """Looks at annotated objects on a grid with a network, as inference would.

    Args:
        data: the training files.
        suggested: the voxel size of a grid, on which as much of the images is looked at as `SAMPLED_VOXELS`.
        read: reads one entry of `data`: image (C, *spatial) and label (1, *spatial), MetaTensors that know their voxel
            size, the image's contrast as the network expects it.
        network, inferer, device: what looks at images, and where.
        embedding_dim, delta_var: as for `postprocessing.ClusterEmbeddingsd`.
        background_label, ignore_label: ids that are no objects.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        suggested: Sequence[float],
        read: Transform,
        network: nn.Module,
        inferer: Inferer,
        device: torch.device | str,
        embedding_dim: int,
        delta_var: float = 0.5,
        background_label: int | None = None,
        ignore_label: int | None = None,
    ) -> None:
        self.data, self.suggested, self.read = data, suggested, read
        self.network, self.inferer, self.device = network, inferer, device
        self.embedding_dim, self.delta_var = embedding_dim, delta_var
        self.special = (background_label, ignore_label)

    def __call__(self, spacings: Sequence[Spacing]) -> list[float]:
        """How well the annotated objects are found on each grid, 0 to 1: the better one of `overlaps`.

        Whether there is background around the objects, nobody knows yet. NaN for a grid that an image cannot have.
        """
        return [max(found.values()) for found in self.overlaps(spacings)]

    def overlaps(self, spacings: Sequence[Spacing]) -> list[dict[str, float]]:
        """On each grid the mean over the annotated objects of the best IoU with any instance, 0 to 1.

        By what instances are looked for in: ``estimated``, the foreground of the network, and ``everywhere``. Several
        processes, which may round differently, all get their mean, so that they choose the same.
        """
        totals, count = np.zeros((len(spacings), len(PREFERRED))), 0
        for sample in self._sampled():
            count += len(self._objects(sample["label"]).unique()) - 1
            totals += [self._overlaps(sample, spacing) for spacing in spacings]
        found, processes = totals / max(1, count), idist.get_world_size()
        if processes > 1:
            found = torch.as_tensor(idist.all_reduce(torch.from_numpy(found))).cpu().numpy() / processes
        return [dict(zip(PREFERRED, overlaps.tolist(), strict=True)) for overlaps in found]

    def _sampled(self) -> Iterator[Mapping[Any, Any]]:
        """Images with annotated objects, or parts of large ones, until `SAMPLED_VOXELS` are there."""
        left = float(SAMPLED_VOXELS)
        for entry in self.data:
            sample = self.read(dict(entry))
            objects = self._objects(sample["label"])
            if not objects.any():
                continue
            voxels = math.prod(working_shape(objects.shape, sample["label"].pixdim.tolist(), self.suggested))
            share = min(1.0, SAMPLED_VOXELS / voxels)
            shape = [max(1, round(side * share ** (1 / objects.dim()))) for side in objects.shape]
            window = (slice(None), *densest_window(objects, shape))
            yield {key: sample[key][window] for key in ("image", "label")}
            left -= voxels * share
            if left <= 0:
                return

    def _objects(self, labels: Tensor) -> Tensor:
        """(1, *spatial) -> (*spatial), 0 where no object is."""
        return without_special(plain_tensor(labels), *self.special)[0].cpu()

    def _overlaps(self, sample: Mapping[Any, Any], spacing: Spacing) -> NDArray[np.float64]:
        """For each of `PREFERRED` the sum over the objects of an image of their best IoU with an instance."""
        try:
            resampled = ResampleToSpacingd(["image", "label"], spacing, "label")(sample)
        except InputError:
            return np.full(len(PREFERRED), math.nan)
        objects = self._objects(resampled["label"]).numpy()
        count = len(np.unique(objects)) - 1
        ignored = where_id(plain_tensor(resampled["label"])[0], self.special[1]).cpu().numpy()
        embeddings = self._embeddings(resampled["image"])
        background = ~is_foreground(embeddings, THRESHOLD)
        foregrounds = {"estimated": ~background, "everywhere": torch.ones_like(background)}
        overlaps = np.zeros(len(PREFERRED))
        for index, (name, threshold) in enumerate(PREFERRED.items()):
            if count and foregrounds[name].any():
                instances = on_host_if_too_large(agglomerate, embeddings, foregrounds[name], self.delta_var, threshold)
                instances[ignored] = 0
                overlaps[index] = count * instance_metrics(instances, objects, sparse=True)["annotated_iou"]
        return overlaps

    def _embeddings(self, image: Tensor) -> Tensor:
        """(C, *spatial) -> (E, *spatial)."""
        with eval_mode(self.network):
            found = self.inferer(plain_tensor(image)[None].to(self.device), self.network)
        return plain_tensor(found)[0, : self.embedding_dim].float()


def densest_window(labels: Tensor, shape: Sequence[int]) -> tuple[slice, ...]:
    """Where in (*spatial) a window of this shape holds the most annotated voxels, in steps of half a window."""
    starts = [
        sorted({*range(0, side - edge, max(1, edge // 2)), side - edge})
        for side, edge in zip(labels.shape, shape, strict=True)
    ]
    windows = [
        tuple(slice(start, start + edge) for start, edge in zip(corner, shape, strict=True))
        for corner in product(*starts)
    ]
    return max(windows, key=lambda window: int(labels[window].count_nonzero()))
