"""The SPOCO loss: instance segmentation learned from a few whole annotated objects.

Wolny, Yu, Pape and Kreshuk, "Sparse Object-level Supervision for Instance Segmentation with Pixel
Embeddings", CVPR 2022 (arXiv 2103.14572). `spoco_terms` is the functional core for one image, `SpocoLoss`
the module for batches. Shapes: E embedding dimensions, N pixels or voxels, C annotated objects, A anchors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .anchors import draw_anchors
from .foreground import foreground_logit, foreground_term
from .pairwise import HingeAndKernel, KernelsOfTwo, pairwise_sums

UNLABELED = 0
TERMS = ("variance", "distance", "regularizer", "unlabeled_push", "instance", "consistency")


@dataclass(frozen=True)
class Regions:
    """What the annotation says about each of N voxels; the masks are (N,) bool."""

    known: Tensor  # not ignored
    annotated: Tensor  # part of an annotated object
    background: Tensor  # painted as background
    unlabeled: Tensor  # nobody looked
    object_of: Tensor  # (L,) for each annotated voxel, its object as an index 0..C-1
    sizes: Tensor  # (C,) voxels per object

    @classmethod
    def of(cls, labels: Tensor, background_label: int | None, ignore_label: int | None) -> Regions:
        """Read a label map of any shape; ids need not be contiguous."""
        labels = labels.flatten()
        nothing = torch.zeros_like(labels, dtype=torch.bool)
        known = nothing.logical_not() if ignore_label is None else labels != ignore_label
        background = nothing if background_label is None else (labels == background_label) & known
        unlabeled = (labels == UNLABELED) & known & ~background
        annotated = known & ~unlabeled & ~background
        _, object_of, sizes = torch.unique(labels[annotated], return_inverse=True, return_counts=True)
        return cls(known, annotated, background, unlabeled, object_of, sizes)


def spoco_terms(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    anchors: Tensor | None = None,
    delta_var: float = 0.5,
    delta_dist: float = 2.0,
    kernel_threshold: float = 0.5,
    background_label: int | None = None,
    ignore_label: int | None = None,
) -> dict[str, Tensor]:
    """The six terms of the SPOCO loss for one image.

    Args:
        student: embeddings of the network that is trained, (E, *spatial).
        teacher: embeddings of its moving average, (E, *spatial); no gradient flows into them.
        labels: integer map, (*spatial): 0 unlabelled, any other id one wholly annotated object.
        anchors: indices of the unlabelled voxels the consistency term looks at, (A, ndim); drawn by
            `draw_anchors` when not given.
        delta_var: embedding distance to its object's centre within which a voxel is left in peace.
        delta_dist: half the distance at which two objects no longer repel each other.
        kernel_threshold: value, in (0, 1), of the soft mask at the distance `delta_var` from its centre.
        background_label: id painted on known background: pushed away from the objects, no object itself.
        ignore_label: id left out of every term.

    Returns:
        0-d tensors: ``variance``, ``distance`` and ``regularizer`` (the discriminative loss of De Brabandere
        et al. 2017), ``unlabeled_push``, ``instance`` (1 - Dice of soft and annotated masks) and
        ``consistency`` (1 - Dice of the two networks' soft masks around the anchors). A term with nothing to
        measure is 0, never NaN.

    Raises:
        ValueError: shapes that disagree, labels that are not integers, anchors outside the image, settings that
            make no kernel.
    """
    _check_settings(delta_var, delta_dist, kernel_threshold)
    _check_inputs(student, teacher, labels, anchors)
    regions = Regions.of(labels, background_label, ignore_label)
    anchor_index = None if anchors is None else _flat_index(anchors, labels.shape)
    with torch.autocast(student.device.type, enabled=False):  # half precision cannot hold distances
        return _terms(student, teacher, regions, anchor_index, delta_var, delta_dist, kernel_threshold)


def _terms(
    student: Tensor,
    teacher: Tensor,
    regions: Regions,
    anchor_index: Tensor | None,
    delta_var: float,
    delta_dist: float,
    kernel_threshold: float,
) -> dict[str, Tensor]:
    volume, target = _at_least_float32(student), _at_least_float32(teacher.detach())  # (E, *spatial)
    embeddings = volume.flatten(1)  # (E, N)
    if anchor_index is None:
        anchor_index = draw_anchors(embeddings.detach(), regions.unlabeled, delta_var)

    two_sigma = delta_var**2 / -math.log(kernel_threshold)
    objects = embeddings[:, regions.annotated]  # (E, L)
    means = _region_means(objects, regions)  # (C, E)
    own_distance = (objects - means.T[:, regions.object_of]).norm(dim=0)  # (L,)
    outside = regions.unlabeled | regions.background
    weights = torch.stack([outside, regions.known]).to(volume.dtype).view(2, *volume.shape[1:])
    push, soft_area = pairwise_sums(volume, means, weights, HingeAndKernel(delta_dist, two_sigma)).sum(1)
    return {
        "variance": _variance(own_distance, regions, delta_var),
        "distance": _distance(means, delta_dist),
        "regularizer": _regularizer(means, embeddings, regions.unlabeled),
        "unlabeled_push": push / (outside.sum() * len(means)).clamp_min(1),
        "instance": _instance(soft_area, own_distance, two_sigma),
        "consistency": _consistency(volume, target, anchor_index, weights[1], two_sigma),
    }


class SpocoLoss(nn.Module):
    """Weighted sum of the SPOCO terms, averaged over the batch.

    Args:
        delta_var, delta_dist, kernel_threshold, background_label, ignore_label: see `spoco_terms`.
        variance_weight, distance_weight, regularizer_weight, unlabeled_push_weight, instance_weight,
            consistency_weight: one weight a term; the defaults are the paper's.
        foreground_weight: weight of the positive-unlabelled foreground term on the first embedding dimension
            (see `foreground`); 0, the paper's loss, leaves it out.

    After a call, `terms` holds each term's mean over the batch, detached, for logging.
    """

    def __init__(
        self,
        delta_var: float = 0.5,
        delta_dist: float = 2.0,
        kernel_threshold: float = 0.5,
        background_label: int | None = None,
        ignore_label: int | None = None,
        variance_weight: float = 1.0,
        distance_weight: float = 1.0,
        regularizer_weight: float = 0.001,
        unlabeled_push_weight: float = 1.0,
        instance_weight: float = 1.0,
        consistency_weight: float = 1.0,
        foreground_weight: float = 0.0,
    ) -> None:
        super().__init__()
        _check_settings(delta_var, delta_dist, kernel_threshold)
        self.delta_var, self.delta_dist, self.kernel_threshold = delta_var, delta_dist, kernel_threshold
        self.background_label, self.ignore_label = background_label, ignore_label
        self.weights = {
            "variance": variance_weight,
            "distance": distance_weight,
            "regularizer": regularizer_weight,
            "unlabeled_push": unlabeled_push_weight,
            "instance": instance_weight,
            "consistency": consistency_weight,
            "foreground": foreground_weight,
        }
        self.terms: dict[str, Tensor] = {}

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """(B, E, *spatial), (B, E, *spatial), (B, 1, *spatial) -> scalar."""
        if labels.shape != (student.shape[0], 1, *student.shape[2:]):
            expected = (student.shape[0], 1, *student.shape[2:])
            raise ValueError(f"labels must have the shape {expected}, got {tuple(labels.shape)}")
        per_image = [self._image_terms(*image) for image in zip(student, teacher, labels[:, 0], strict=True)]
        means = {name: torch.stack([terms[name] for terms in per_image]).mean() for name in per_image[0]}
        self.terms = {name: mean.detach() for name, mean in means.items()}
        return sum(self.weights[name] * mean for name, mean in means.items())

    def _image_terms(self, student: Tensor, teacher: Tensor, labels: Tensor) -> dict[str, Tensor]:
        no_anchors = labels.new_zeros((0, labels.dim()))  # a term without weight is not worth computing
        terms = spoco_terms(
            student,
            teacher,
            labels,
            None if self.weights["consistency"] else no_anchors,
            self.delta_var,
            self.delta_dist,
            self.kernel_threshold,
            self.background_label,
            self.ignore_label,
        )
        if self.weights["foreground"]:
            regions = Regions.of(labels, self.background_label, self.ignore_label)
            logit = foreground_logit(_at_least_float32(student)).flatten()
            terms["foreground"] = foreground_term(logit, regions.annotated, regions.known, regions.background)
        return terms


def _variance(own_distance: Tensor, regions: Regions, delta_var: float) -> Tensor:
    """Mean over objects of the mean over their voxels of max(0, |e - mu| - delta_var)^2."""
    if len(own_distance) == 0:
        return own_distance.new_zeros(())
    per_voxel = (own_distance - delta_var).clamp_min(0).square()
    weights = regions.sizes.reciprocal()[regions.object_of]  # each object counts as one
    return (per_voxel * weights).sum() / len(regions.sizes)


def _distance(means: Tensor, delta_dist: float) -> Tensor:
    """Mean over ordered pairs of objects of max(0, 2 delta_dist - |mu_i - mu_j|)^2."""
    if len(means) < 2:
        return means.new_zeros(())
    first, second = torch.triu_indices(len(means), len(means), offset=1, device=means.device)
    gap = (2 * delta_dist - (means[first] - means[second]).norm(dim=1)).clamp_min(0)
    return gap.square().mean()


def _regularizer(means: Tensor, embeddings: Tensor, unlabeled: Tensor) -> Tensor:
    """Mean norm of the objects' means and of the mean of the unlabelled region, if there is one."""
    count = unlabeled.sum()
    unlabeled_mean = (embeddings @ unlabeled.to(embeddings.dtype)) / count.clamp_min(1)
    regions = len(means) + (count > 0)
    return (means.norm(dim=1).sum() + unlabeled_mean.norm()) / regions.clamp_min(1)


def _instance(soft_area: Tensor, own_distance: Tensor, two_sigma: float) -> Tensor:
    """1 - Dice of the objects' soft and annotated masks, all objects and voxels in one sum."""
    if len(own_distance) == 0:
        return soft_area * 0
    overlap = (own_distance.square() / -two_sigma).exp().sum()
    return 1 - 2 * overlap / (soft_area + len(own_distance))


def _consistency(volume: Tensor, target: Tensor, anchor_index: Tensor, known: Tensor, two_sigma: float) -> Tensor:
    """1 - Dice of the soft masks that the same anchors select in the two networks' embeddings.

    As in the authors' implementation the Dice is taken in each slice of the first spatial axis, all anchors in
    one sum, and averaged over the slices.
    """
    if len(anchor_index) == 0:
        return volume.new_zeros(())
    anchors, target_anchors = (embeddings.flatten(1)[:, anchor_index].T for embeddings in (volume, target))  # (A, E)
    kernels = KernelsOfTwo(two_sigma, target_anchors, target)
    overlap, area, target_area = pairwise_sums(volume, anchors, known.expand(3, *known.shape), kernels)
    return (1 - 2 * overlap / (area + target_area).clamp_min(1e-6)).mean()


def _region_means(objects: Tensor, regions: Regions) -> Tensor:
    """Mean embedding of each object: (E, L) -> (C, E)."""
    sums = objects.new_zeros((len(regions.sizes), len(objects))).index_add(0, regions.object_of, objects.T)
    return sums / regions.sizes[:, None]


def _at_least_float32(embeddings: Tensor) -> Tensor:
    return embeddings if embeddings.dtype == torch.float64 else embeddings.float()


def _flat_index(anchors: Tensor, shape: torch.Size) -> Tensor:
    """(A, ndim) voxel indices -> (A,) indices into the flattened image."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return (anchors.long() * anchors.new_tensor(strides, dtype=torch.long)).sum(1)


def _check_settings(delta_var: float, delta_dist: float, kernel_threshold: float) -> None:
    if not 0 < delta_var < 2 * delta_dist:
        raise ValueError(f"delta_var must lie between 0 and 2 * delta_dist = {2 * delta_dist}, got {delta_var}")
    if not 0 < kernel_threshold < 1:
        raise ValueError(f"kernel_threshold must lie between 0 and 1, got {kernel_threshold}")


def _check_inputs(student: Tensor, teacher: Tensor, labels: Tensor, anchors: Tensor | None) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher must have one shape, got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if student.shape[1:] != labels.shape:
        raise ValueError(
            f"labels must have the embeddings' spatial shape {tuple(student.shape[1:])}, got {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    if anchors is None:
        return
    if anchors.dim() != 2 or anchors.shape[1] != labels.dim():
        raise ValueError(f"anchors must have the shape (A, {labels.dim()}), got {tuple(anchors.shape)}")
    outside = (anchors < 0) | (anchors >= anchors.new_tensor(labels.shape))
    if outside.any():
        first = anchors[outside.any(1)][0].tolist()
        raise ValueError(f"anchors must lie inside the image of shape {tuple(labels.shape)}, got {first}")
