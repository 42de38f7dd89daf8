"""The SPOCO loss: instance segmentation learned from a few whole annotated objects.

Wolny, Yu, Pape and Kreshuk, "Sparse Object-level Supervision for Instance Segmentation with Pixel
Embeddings", CVPR 2022 (arXiv 2103.14572). `spoco_terms` is the functional core for one image, `SpocoLoss`
the module for batches. Shapes: E embedding dimensions, N pixels or voxels, C annotated objects, A anchors.
"""

from __future__ import annotations

import math
from functools import lru_cache
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..network.foreground import FOREGROUND_AXIS, foreground_logit
from ..refusals import InputError
from ..transforms.label_convention import check_special_label
from .anchors import draw_anchors
from .annotation import Annotation
from .borders import border_term
from .boxes import Boxes
from .foreground_terms import foreground_term, keeping_term
from .pairwise import FAR_AWAY, HingeAndKernel, KernelsOfTwo, PairFunctions, fitting_edges, pairwise_sums
from .triton_support import runs_triton

REACHED = 0.01  # voxels that the anchors select in both networks: with fewer a slice says nothing about them
PAIRS_AT_ONCE = 2**24  # of objects
SMALLEST_DELTA_VAR = 1e-6  # smaller ones have no square in float32
LARGEST_DELTA_DIST = FAR_AWAY / 4  # or centres that an image does not have would be in reach
TERMS = ("variance", "distance", "regularizer", "unlabeled_push", "instance", "consistency")
OTHER_TERMS = ("foreground", "first_foreground", "border")  # not the paper's


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
    _check_special_labels(background_label, ignore_label)
    _check_embeddings(student, teacher, embedding_axis=0)
    _check_labels(labels)
    if student.shape[1:] != labels.shape:
        raise InputError(
            f"labels must have the embeddings' spatial shape {tuple(student.shape[1:])}, got {tuple(labels.shape)}"
        )
    if anchors is not None:
        _check_anchors(anchors, labels.shape)
    annotation = Annotation.of(labels[None], background_label, ignore_label)
    drawn = None if anchors is None else _as_drawn(anchors, labels.shape)
    with torch.autocast(student.device.type, enabled=False):  # half precision cannot hold distances
        student, teacher = (space[None] for space in _at_least_float32(student, teacher.detach()))
        terms = _paper_terms(student, teacher, annotation, drawn, delta_var, delta_dist, kernel_threshold)
    return {name: term[0] for name, term in terms.items()}


def _paper_terms(
    student: Tensor,
    teacher: Tensor,
    annotation: Annotation,
    anchors: tuple[Tensor, Tensor] | None,
    delta_var: float,
    delta_dist: float,
    kernel_threshold: float,
) -> dict[str, Tensor]:
    """Terms of each image, (B,); student and teacher are (B, E, *spatial), anchors as from `draw_anchors`."""
    embeddings = student.flatten(2)  # (B, E, N)
    if anchors is None:
        anchors = draw_anchors(embeddings.detach(), annotation.unlabeled, delta_var)
    two_sigma = delta_var**2 / -math.log(kernel_threshold)
    means, own_distance = annotation.means_and_distances(embeddings)  # (B, C, E)
    functions = HingeAndKernel(delta_dist, two_sigma)
    boxes = None  # a GPU's kernels take the embeddings as they are
    if not runs_triton(student):
        boxes = Boxes.of(student, fitting_edges(student, means, annotation.exist, functions.reach))
    outside = annotation.unlabeled | annotation.background
    weights = torch.stack([outside, annotation.known], 1).to(student.dtype).view(-1, 2, *student.shape[2:])
    push, soft_area = _sums(student, means, annotation.exist, weights, functions, boxes).sum(2).unbind(1)  # (B,)
    return {
        "variance": _variance(own_distance, annotation, delta_var),
        "distance": _distance(means, annotation, delta_dist),
        "regularizer": _regularizer(means, embeddings, annotation),
        "unlabeled_push": push / (outside.sum(1) * annotation.objects).clamp_min(1),
        "instance": _instance(soft_area, own_distance, annotation, two_sigma),
        "consistency": _consistency(student, teacher, boxes, anchors, weights[:, 1:], two_sigma),
    }


class SpocoLoss(nn.Module):
    """Weighted sum of the SPOCO terms, averaged over the batch.

    Args:
        delta_var, delta_dist, kernel_threshold, background_label, ignore_label: see `spoco_terms`.
        variance_weight, distance_weight, regularizer_weight, unlabeled_push_weight, instance_weight,
            consistency_weight: one weight a term; the defaults are the paper's.
        foreground_weight: weight of the positive-unlabelled foreground term on the first embedding dimension
            (see `foreground_terms`); 0, the paper's loss, leaves it out.
        first_foreground_weight: weight of the foreground that the network had at first, where it is given (see
            `foreground_terms`); 0, the paper's loss, leaves it out.
        border_weight: weight of what is asked of pairs of voxels at the objects' rims (see `borders`); 0, the
            paper's loss, leaves it out.

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
        first_foreground_weight: float = 0.0,
        border_weight: float = 0.0,
    ) -> None:
        super().__init__()
        _check_settings(delta_var, delta_dist, kernel_threshold)
        _check_special_labels(background_label, ignore_label)
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
            "first_foreground": first_foreground_weight,
            "border": border_weight,
        }
        self.terms: dict[str, Tensor] = {}

    def forward(
        self, student: Tensor, teacher: Tensor, labels: Tensor, first_foreground: Tensor | None = None
    ) -> Tensor:
        """(B, E, *spatial), (B, E, *spatial), (B, 1, *spatial), None or (B, 1, *spatial) -> scalar."""
        _check_embeddings(student, teacher, embedding_axis=1)
        means = self.compare(student, teacher, self.read(labels, student.shape), first_foreground)
        return self.weigh(means, first_foreground is not None)

    def read(self, labels: Tensor, embeddings: torch.Size) -> Annotation:
        """What label maps (B, 1, *spatial) say, for embeddings of this shape."""
        _check_labels(labels)
        expected = (embeddings[0], 1, *embeddings[2:])
        if labels.shape != expected:
            raise InputError(f"labels must have the shape {expected}, got {tuple(labels.shape)}")
        return Annotation.of(labels[:, 0], self.background_label, self.ignore_label)

    def compare(
        self, student: Tensor, teacher: Tensor, annotation: Annotation, first_foreground: Tensor | None = None
    ) -> Tensor:
        """The mean of each term over the batch, in the order of `active_terms`; arguments as in `forward`."""
        if first_foreground is not None:
            _check_tensors(first_foreground=first_foreground)
            expected = (len(student), 1, *student.shape[2:])
            if first_foreground.shape != expected:
                shape = tuple(first_foreground.shape)
                raise InputError(f"first_foreground must have the shape {expected}, got {shape}")
        with torch.autocast(student.device.type, enabled=False):  # half precision cannot hold distances
            student, teacher = _at_least_float32(student, teacher.detach())
            terms = self._terms(student, teacher, annotation, first_foreground)
        ordered = [terms[name] for name in self.active_terms(first_foreground is not None)]
        return torch.stack(ordered).mean(1)  # at once: to a GPU each operation is a launch

    def weigh(self, means: Tensor, first_foreground: bool) -> Tensor:
        """The terms' weighted sum, from what `compare` returns; notes them in `terms`."""
        names = self.active_terms(first_foreground)
        self.terms = dict(zip(names, means.detach().clone().unbind(), strict=True))  # a recording writes there again
        weights = tuple(float(self.weights[name]) for name in names)  # of a tensor the value, which may change
        return (means * _on_device(weights, means.dtype, means.device)).sum()

    def active_terms(self, first_foreground: bool) -> list[str]:
        """Those of the paper, and the others that have a weight, with or without a first foreground."""
        given = [name for name in OTHER_TERMS if self.weights[name]]
        return [*TERMS, *(name for name in given if name != "first_foreground" or first_foreground)]

    def _terms(
        self, student: Tensor, teacher: Tensor, annotation: Annotation, first_foreground: Tensor | None
    ) -> dict[str, Tensor]:
        """The terms of each image, (B,)."""
        anchors = None if self.weights["consistency"] else _no_anchors(annotation.labels)  # not worth computing
        settings = self.delta_var, self.delta_dist, self.kernel_threshold
        terms = _paper_terms(student, teacher, annotation, anchors, *settings)
        embeddings = student.movedim(1, -1)  # as they lie in memory, so that gradients of parts lie so, too
        logit = foreground_logit(embeddings, axis=-1).flatten(1)
        if self.weights["foreground"]:
            terms["foreground"] = foreground_term(logit, annotation.annotated, annotation.known, annotation.background)
        if self.weights["first_foreground"] and first_foreground is not None:
            first = first_foreground.as_subclass(Tensor).to(logit.dtype).flatten(1)
            terms["first_foreground"] = keeping_term(logit, first, annotation.unlabeled)
        if self.weights["border"]:
            voxels = (annotation.labels, annotation.annotated, annotation.known)
            labels, annotated, known = (one.view(len(student), *student.shape[2:]) for one in voxels)
            directions = embeddings[..., FOREGROUND_AXIS + 1 :].movedim(-1, 1)  # that axis has a term of its own
            terms["border"] = border_term(directions, labels, annotated, known, self.delta_var, self.delta_dist)
        return terms


def _variance(own_distance: Tensor, annotation: Annotation, delta_var: float) -> Tensor:
    """Mean over objects of the mean over their voxels of max(0, |e - mu| - delta_var)^2."""
    per_voxel = (own_distance - delta_var).clamp_min(0).square()
    per_object = annotation.sum_over_objects(per_voxel) / annotation.sizes.clamp_min(1)  # each object counts as one
    return per_object.sum(1) / annotation.objects.clamp_min(1)


def _distance(means: Tensor, annotation: Annotation, delta_dist: float) -> Tensor:
    """Mean over ordered pairs of objects of max(0, 2 delta_dist - |mu_i - mu_j|)^2."""
    exist, count = annotation.exist, means.shape[1]
    rows = max(1, PAIRS_AT_ONCE // max(1, count))
    if rows >= count:
        total = _crowding(means, exist, 0, count, delta_dist)
    else:  # of tens of thousands of objects no table of all pairs fits into memory, nor into the graph
        portions = [
            checkpoint(_crowding, means, exist, first, rows, delta_dist, use_reentrant=False, preserve_rng_state=False)
            for first in range(0, count, rows)
        ]
        total = torch.stack(portions).sum(0)
    return total / (annotation.objects * (annotation.objects - 1) // 2).clamp_min(1)


def _crowding(means: Tensor, exist: Tensor, first: int, rows: int, delta_dist: float) -> Tensor:
    """Sum of max(0, 2 delta_dist - |mu_i - mu_j|)^2 over j > i, for some i, (B,)."""
    some = means[:, first : first + rows]
    distance = torch.cdist(some, means, compute_mode="donot_use_mm_for_euclid_dist")  # (B, rows, C)
    gap = (2 * delta_dist - distance).clamp_min(0)
    pairs = (exist[:, first : first + rows, None] & exist[:, None]).triu(first + 1)
    return (gap.square() * pairs).sum((1, 2))


def _regularizer(means: Tensor, embeddings: Tensor, annotation: Annotation) -> Tensor:
    """Mean norm of the objects' means and of the mean of the unlabelled region, if there is one."""
    count = annotation.unlabeled.sum(1)  # (B,)
    unlabeled = annotation.unlabeled[..., None].to(embeddings.dtype)
    unlabeled_sum = _weighted_sum(embeddings, unlabeled)  # (B, E)
    norms = means.norm(dim=2).sum(1) + unlabeled_sum.norm(dim=1) / count.clamp_min(1)
    return norms / (annotation.objects + (count > 0)).clamp_min(1)


def _weighted_sum(embeddings: Tensor, weights: Tensor) -> Tensor:
    """(B, E, N), (B, N, 1) -> (B, E): along memory, where the embeddings lie channels last five times as fast."""
    if embeddings.mT.is_contiguous():
        return torch.bmm(weights.mT, embeddings.mT)[:, 0]
    return torch.bmm(embeddings, weights)[..., 0]


def _instance(soft_area: Tensor, own_distance: Tensor, annotation: Annotation, two_sigma: float) -> Tensor:
    """1 - Dice of the objects' soft and annotated masks, all objects and voxels of an image in one sum."""
    overlap = annotation.sum_over_objects((own_distance.square() / -two_sigma).exp()).sum(1)
    area = annotation.sizes.sum(1)
    return torch.where(area > 0, 1 - 2 * overlap / (soft_area + area).clamp_min(1), 0)


def _consistency(
    student: Tensor,
    teacher: Tensor,
    boxes: Boxes | None,
    anchors: tuple[Tensor, Tensor],
    known: Tensor,
    two_sigma: float,
) -> Tensor:
    """1 - Dice of the soft masks that the same anchors select in the two networks' embeddings.

    As in the authors' implementation the Dice is taken in each slice of the first spatial axis, all anchors in
    one sum, and averaged over the slices, but for those that are ignored. One that no anchor reaches counts 0 and not
    1 as there, so that networks that agree have no consistency term, and no gradient from the tails of the kernels.
    known: (B, 1, *spatial).
    """
    index, drawn = anchors  # (B, A)
    if index.shape[1] == 0:
        return student.new_zeros(len(student))
    every_dimension = index[:, None].expand(-1, student.shape[1], -1)
    centers, other_centers = (space.flatten(2).gather(2, every_dimension).mT for space in (student, teacher))
    weights = known.expand(-1, KernelsOfTwo.count, *known.shape[2:])
    other = teacher, other_centers
    sums = _sums(student, centers, drawn, weights, KernelsOfTwo(two_sigma), boxes, other)
    overlap, area, other_area = sums.unbind(1)  # (B, S)
    both = area + other_area
    disagreement = torch.where(both > REACHED, 1 - 2 * overlap / both.clamp_min(REACHED), 0)
    slices = known.reshape(len(known), known.shape[2], -1).any(2).sum(1)  # (B,)
    # What is no number is out of every anchor's reach: a ruined teacher must not look like one that agrees
    of_an_image = tuple(range(1, teacher.dim()))
    ruined = 0 * teacher.amax(of_an_image) + 0 * teacher.amin(of_an_image)  # NaN if it is, else 0
    return disagreement.sum(1) / slices.clamp_min(1) + ruined


def _sums(
    embeddings: Tensor,
    centers: Tensor,
    exist: Tensor,
    weights: Tensor,
    functions: PairFunctions,
    boxes: Boxes | None,
    other: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """`pairwise_sums`, with the embeddings and the centres of another space; without boxes on a GPU."""
    if boxes is None:
        from .triton_pairs import pairwise_sums_on_gpu  # needs Triton, which not every computer has

        return pairwise_sums_on_gpu(embeddings, centers, exist, weights, functions, other)
    other_boxes = None if other is None else (Boxes.of(other[0], boxes.edges), other[1])
    return pairwise_sums(embeddings, centers, exist, weights, functions, boxes, other_boxes)


def _at_least_float32(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings in one precision: float64 where one of them is, else float32."""
    dtype = torch.float64 if torch.float64 in (student.dtype, teacher.dtype) else torch.float32
    # MONAI's MetaTensor would look after its metadata in every operation
    return student.as_subclass(Tensor).to(dtype), teacher.as_subclass(Tensor).to(dtype)


@lru_cache
def _on_device(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of numbers that are the same in each step: to copy them to a GPU takes as long as ten operations."""
    with torch.inference_mode(False):  # it is kept, and a validation in inference mode may be the first to ask
        return torch.tensor(values, dtype=dtype, device=device)


def _no_anchors(voxels: Tensor) -> tuple[Tensor, Tensor]:
    """As `draw_anchors` returns them, for (B, N)."""
    nothing = torch.zeros((len(voxels), 0), dtype=torch.long, device=voxels.device)
    return nothing, nothing.bool()


def _as_drawn(anchors: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """(A, ndim) voxel indices of one image -> as `draw_anchors` returns them."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    index = (anchors.long() * anchors.new_tensor(strides, dtype=torch.long)).sum(1)[None]
    return index, torch.ones_like(index, dtype=torch.bool)


def _check_special_labels(background_label: int | None, ignore_label: int | None) -> None:
    check_special_label("background_label", background_label)
    check_special_label("ignore_label", ignore_label)
    if background_label is not None and background_label == ignore_label:
        raise InputError(f"ignore_label must differ from background_label, got {ignore_label} for both")


def _check_settings(delta_var: float, delta_dist: float, kernel_threshold: float) -> None:
    settings = {"delta_var": delta_var, "delta_dist": delta_dist, "kernel_threshold": kernel_threshold}
    for name, value in settings.items():
        if not isinstance(value, Real) or isinstance(value, bool):
            raise InputError(f"{name} must be a number, got {value!r}")
    if not delta_dist <= LARGEST_DELTA_DIST:
        raise InputError(f"delta_dist must lie below {LARGEST_DELTA_DIST}, got {delta_dist}")
    if not SMALLEST_DELTA_VAR <= delta_var < 2 * delta_dist:
        raise InputError(
            f"delta_var must lie between {SMALLEST_DELTA_VAR} and 2 * delta_dist = {2 * delta_dist}, got {delta_var}"
        )
    if not 0 < kernel_threshold < 1:
        raise InputError(f"kernel_threshold must lie between 0 and 1, got {kernel_threshold}")


def _check_embeddings(student: Any, teacher: Any, embedding_axis: int) -> None:
    _check_tensors(student=student, teacher=teacher)
    if student.dim() < embedding_axis + 2:
        raise InputError(f"student must have spatial axes after the embedding's, got the shape {tuple(student.shape)}")
    if student.shape != teacher.shape:
        raise InputError(
            f"student and teacher must have one shape, got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if student.is_complex() or teacher.is_complex():
        raise InputError(f"student and teacher must be real, got {student.dtype} and {teacher.dtype}")
    if not student.numel():
        raise InputError(f"student must have no empty axis, got the shape {tuple(student.shape)}")


def _check_labels(labels: Any) -> None:
    _check_tensors(labels=labels)
    if labels.is_floating_point() or labels.is_complex():
        raise InputError(f"labels must be integers, got {labels.dtype}")


def _check_tensors(**values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{name} must be a tensor, got {type(value).__name__}")


def _check_anchors(anchors: Tensor, shape: torch.Size) -> None:
    _check_tensors(anchors=anchors)
    if anchors.dim() != 2 or anchors.shape[1] != len(shape):
        raise InputError(f"anchors must have the shape (A, {len(shape)}), got {tuple(anchors.shape)}")
    if anchors.is_floating_point() or anchors.is_complex() or anchors.dtype == torch.bool:
        raise InputError(f"anchors must be integers, got {anchors.dtype}")
    anchors = anchors.long()  # narrower types hold no longer axes
    outside = (anchors < 0) | (anchors >= anchors.new_tensor(shape))
    if outside.any():
        first = anchors[outside.any(1)][0].tolist()
        raise InputError(f"anchors must lie inside the image of shape {tuple(shape)}, got {first}")
