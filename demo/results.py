"""From the files that a run left to what the report shows."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from demo.agreement import (
    ALONE,
    UNJUDGED,
    Agreement,
    compare,
    instance_colors,
    palette,
    sequential,
    truth_colors,
)
from demo.charts import iou_histogram, loss_curve, read_losses
from demo.embedding import device_name, middle_embeddings
from demo.plan import Plan, read_array
from demo.report import Content, Figure, Row
from demo.steps import SEED, Step
from demo.views import LARGEST_PLANE, Plane, filled, fullest, outlined, tinted
from scripts.files.datalist import image_label_pairs
from scripts.files.image_files import split_suffix
from scripts.network.checkpoints import read_settings
from scripts.network.foreground import THRESHOLD, is_foreground
from scripts.training.pictures import embedding_picture, gray_picture

Labels = NDArray[np.integer]


@dataclass(frozen=True)
class Tested:
    """The tested image with its truth, the instances found, and how well these agree."""

    path: str
    image: NDArray
    truth: Labels
    instances: Labels
    voxel_size: list[float]
    unit: str
    agreement: Agreement


def read_tested(plan: Plan, output: Path) -> Tested:
    """Read what inference made of the last image of the test folder."""
    pair = image_label_pairs(plan.test_dir)[-1]
    name, suffix = split_suffix(pair["image"])
    image, voxel_size, unit = read_array(pair["image"])
    truth = sequential(read_array(pair["label"])[0])
    instances = sequential(read_array(output / "instances" / f"{name}_instances{suffix}")[0])
    agreement = compare(instances, truth, plan.sparse_truth)
    return Tested(pair["image"], image, truth, instances, voxel_size, unit, agreement)


def collect(plan: Plan, output: Path, steps: list[Step], seconds: dict[str, float]) -> Content:
    """Put together the report of a finished run."""
    tested = read_tested(plan, output)
    metrics = json.loads((output / "evaluation" / "metrics.json").read_text(encoding="utf-8"))["mean"]
    start = _start_of_training(read_settings(output / "weights"))
    device = device_name(output / "weights", plan.spatial_dims)
    losses = read_losses(output / "training" / "tensorboard")
    charts = [("IoU of each true object", iou_histogram(tested.agreement.best_iou[1:]))]
    if losses:
        charts.append(("Training loss", loss_curve(losses)))
    return Content(
        title="SPOCO demo: instances learned from a few annotated objects",
        summary=_summary(plan, tested, metrics, seconds, start, device),
        warning="" if plan.is_held_out else _SAME_IMAGE,
        numbers=_numbers(plan, tested, metrics, seconds),
        rows=[*_tested_rows(plan, tested, output), _training_row(plan)],
        legend=_legend(plan.sparse_truth),
        metrics=metrics,
        metrics_note=_SPARSE_NOTE if plan.sparse_truth else _DENSE_NOTE,
        charts=charts,
        commands=[(step.title, _duration(seconds[step.name]), step.command) for step in steps],
        environment=_environment(device, start, plan),
    )


_SAME_IMAGE = (
    "There was only one image, so the network was trained on the very image that is shown and evaluated here: all "
    "numbers are on training data and say little about new images. Give two or more images to have one held out."
)
_SPARSE_NOTE = (
    "The labels may be sparse: instances where nobody looked are neither right nor wrong and are left out. Only "
    "annotated_iou is meaningful without any reservation."
)
_DENSE_NOTE = "The truth is complete, so everything counts: objects missed, invented, cut or run together."


def _summary(
    plan: Plan, tested: Tested, metrics: dict[str, float], seconds: dict[str, float], start: str, device: str
) -> str:
    of_total = f" of {plan.total} ({100 * plan.annotated / plan.total:.0f} %)" if plan.total else ""
    images = "one image" if plan.train_images == 1 else f"{plan.train_images} images"
    which = "a second image that it never saw" if plan.is_held_out else "the same image"
    objects = "annotated objects" if plan.sparse_truth else "true objects"
    return (
        f"A {plan.spatial_dims}D embedding network, starting from {start}, learned from {plan.annotated}{of_total} "
        f"objects annotated in {images}; everything else was left unlabelled. Training took "
        f"{seconds['train'] / 60:.1f} minutes on {device}. The network then segmented {which}, {_size(tested)}: "
        f"it reports {tested.agreement.partner.size - 1} instances, and of {tested.agreement.best_iou.size - 1} "
        f"{objects} {tested.agreement.found} are found with an IoU of at least 0.5 (AP50 {metrics['ap50']:.2f})."
    )


def _size(tested: Tested) -> str:
    voxels = f"{' × '.join(map(str, tested.image.shape))} {'voxels' if tested.image.ndim == 3 else 'pixels'}"
    if tested.unit == "pixel":  # the file states no length
        return voxels
    unit = {"micrometre": "µm", "millimetre": "mm", "metre": "m"}.get(tested.unit, "(no unit stated)")
    return f"{voxels} of {' × '.join(f'{edge:.4g}' for edge in tested.voxel_size)} {unit}"


def _numbers(plan: Plan, tested: Tested, metrics: dict[str, float], seconds: dict[str, float]) -> dict[str, str]:
    annotated = f"{plan.annotated} of {plan.total}" if plan.total else str(plan.annotated)
    return {
        "objects annotated": annotated,
        "minutes of training": f"{seconds['train'] / 60:.1f}",
        "objects found": f"{tested.agreement.found} of {tested.agreement.best_iou.size - 1}",
        "AP50": f"{metrics['ap50']:.2f}",
        "IoU of annotated objects" if plan.sparse_truth else "mean best IoU": f"{metrics['annotated_iou']:.2f}",
    }


def _tested_rows(plan: Plan, tested: Tested, output: Path) -> list[Row]:
    truth_color, color = truth_colors(tested.agreement), instance_colors(tested.agreement)
    which = "Held-out image" if plan.is_held_out else "The image"
    truth_name = "annotation" if plan.sparse_truth else "truth"
    plane = Plane(0 if plan.spatial_dims == 3 else None, tested.voxel_size)
    image, truth, instances = (plane.cut(volume) for volume in (tested.image, tested.truth, tested.instances))
    gray = gray_picture(image)
    embeddings = middle_embeddings(tested.path, output / "weights", plan.spatial_dims)
    colored = embedding_picture(embeddings)
    threshold = read_settings(output / "weights").get("foreground_threshold", THRESHOLD)
    colored[~is_foreground(torch.from_numpy(embeddings), threshold).numpy()] //= 4
    first = [
        Figure("image", gray),
        Figure(
            "embedding: principal components as red, green, blue; dark where the network sees background",
            plane.frame(colored),
        ),
        Figure("instances, in the colour of the object they match", filled(instances, color)),
        Figure(truth_name, filled(truth, truth_color)),
    ]
    second = [
        Figure("outlines of the instances", outlined(gray, instances, color)),
        Figure(f"outlines of the {truth_name}", outlined(gray, truth, truth_color)),
    ]
    middle = "Middle slice (y downwards, x to the right). " if plan.spatial_dims == 3 else ""
    rows = [
        Row(which, f"{middle}{_crop_note(tested.image)}", first, columns=4, has_legend=True),
        Row(
            "The same as outlines",
            "To judge the borders: each line runs just inside its object.",
            second,
            columns=2,
            has_legend=True,
        ),
    ]
    if plan.spatial_dims == 3:
        rows.append(_side_row(tested, truth_name))
    return rows


def _side_row(tested: Tested, truth_name: str) -> Row:
    side = Plane(1, tested.voxel_size)
    image, truth, instances = (side.cut(volume) for volume in (tested.image, tested.truth, tested.instances))
    gray = gray_picture(image)
    figures = [
        Figure("image", gray),
        Figure("outlines of the instances", outlined(gray, instances, instance_colors(tested.agreement))),
        Figure(f"outlines of the {truth_name}", outlined(gray, truth, truth_colors(tested.agreement))),
    ]
    ratio = tested.voxel_size[0] / tested.voxel_size[2]
    text = f"The xz plane (z downwards) in real proportions: a voxel is {ratio:.2g} times as long in z as in x."
    return Row("From the side", text, figures, columns=3)


def _training_row(plan: Plan) -> Row:
    pair = image_label_pairs(plan.train_dir)[0]
    image, voxel_size, _ = read_array(pair["image"])
    labels = sequential(read_array(pair["label"])[0])
    colors = palette(int(labels.max()))
    figures = []
    for axis, name in ((0, "xy plane"), (1, "xz plane")) if plan.spatial_dims == 3 else ((None, ""),):
        plane = Plane(axis, voxel_size, fullest(labels, axis))
        gray, cut = gray_picture(plane.cut(image)), plane.cut(labels)
        suffix = f", {name}" if name else ""
        figures += [Figure(f"image{suffix}", gray), Figure(f"annotation{suffix}", tinted(gray, cut, colors))]
    of_total = f" of {plan.total}" if plan.total else ""
    text = f"What the network saw: {plan.annotated}{of_total} objects are annotated. Nobody looked at the rest."
    return Row("Training image" if plan.is_held_out else "Annotation", text, figures, columns=len(figures))


def _legend(sparse: bool) -> list[tuple[tuple[int, ...], str]]:
    example = tuple(palette(1)[1].tolist())
    entries = [
        (ALONE, "error: an instance that matches no true object, or a true object that was missed"),
        (example, "each other colour: an instance and the true object that it matches (IoU of at least 0.5)"),
    ]
    return [*entries, (UNJUDGED, "instance where nobody looked: neither right nor wrong")] if sparse else entries


def _crop_note(image: NDArray) -> str:
    return f"Only the central {LARGEST_PLANE} pixels are shown." if max(image.shape[-2:]) > LARGEST_PLANE else ""


def _start_of_training(settings: Mapping[str, Any]) -> str:
    return "random weights" if settings["pretrained"] is None else "the bundle's weights, trained on generated images"


def _environment(device: str, start: str, plan: Plan) -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "monai", "pytorch-ignite", "numpy")}
    return {
        "device": device,
        "processor cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        **packages,
        "CUDA": str(torch.version.cuda or "none"),
        "seed": str(SEED),
        "start": start,
        "patch size": " × ".join(map(str, plan.patch_size)),
    }


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds >= 100 else f"{seconds:.0f} seconds"
