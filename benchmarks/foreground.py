"""What tells objects from background where nobody painted any: the network's own output, or statistics of clusters?

    python benchmarks/foreground.py --dataset_dir D --ckpt_dir R [--config 2d.json] --name "nuclei in 2D"

Takes the network in R to the images of D, whose labels must be complete, and compares, as means over the images, the
IoU of the foreground with the truth and the AP50 of the instances inside it:

- everywhere: all voxels are clustered;
- estimated: the foreground output, learned from positive and unlabelled voxels (`scripts.network.foreground`);
- kernel fit: all voxels are clustered, and of the instances those are kept whose kernel soft mask fits
  (`scripts.clustering.confidence`), above the threshold that is best on these very images;
- size: those are kept whose size differs from that of a typical annotated object by less than the factor that is best;
- true: the voxels of all objects.

The rows go to ``benchmarks/results/foreground.json``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path[:0] = [str(Path(__file__).parents[1] / "spoco_bundle"), str(Path(__file__).parent)]

from fields import DELTA_VAR, Field, trained_fields  # noqa: E402
from measuring import Row, report  # noqa: E402

from scripts.clustering.confidence import instance_scores  # noqa: E402
from scripts.clustering.methods import cluster_embeddings  # noqa: E402
from scripts.geometry.pieces import keep_instances  # noqa: E402
from scripts.metrics import instance_metrics  # noqa: E402
from scripts.transforms.working_grid import SMALLEST_SHARE  # noqa: E402

FITS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
FACTORS = (2.0, 3.0, 4.0, 8.0, 16.0)
Labels = NDArray[np.int32]
Judged = tuple[float, float]  # IoU of the foreground, AP50


def judge(instances: Labels, truth: Labels) -> Judged:
    found, objects = instances > 0, truth > 0
    iou = (found & objects).sum() / max(1, (found | objects).sum())
    return float(iou), instance_metrics(instances, truth)["ap50"]


def clustered(field: Field, foreground: NDArray[np.bool_] | None) -> Labels:
    return cluster_embeddings(
        field.embeddings, foreground, min_size=field.min_size, merge_threshold=field.merge_threshold
    )


def fits(instances: Labels, field: Field, threshold: float) -> Labels:
    return keep_instances(instances, instance_scores(instances, field.embeddings, DELTA_VAR) >= threshold)


def similar_in_size(instances: Labels, field: Field, factor: float) -> Labels:
    typical = field.min_size / SMALLEST_SHARE[instances.ndim]
    ratio = np.bincount(instances.ravel())[1:] / typical
    return keep_instances(instances, (ratio >= 1 / factor) & (ratio <= factor))


def best(
    keep: Callable[[Labels, Field, float], Labels], all_: list[Labels], fields: list[Field], settings: Iterable[float]
) -> tuple[float, Judged]:
    """The setting whose mean AP50 is highest, and what it reaches."""
    reached = {
        setting: mean(
            judge(keep(instances, field, setting), field.labels) for instances, field in zip(all_, fields, strict=True)
        )
        for setting in settings
    }
    setting = max(reached, key=lambda one: reached[one][1])
    return setting, reached[setting]


def mean(judged: Iterable[Judged]) -> Judged:
    iou, ap50 = np.mean(list(judged), axis=0)
    return float(iou), float(ap50)


def measure(own: list[Field], true: list[Field]) -> list[Row]:
    """Rows from the fields with their estimated foreground, and from the same ones with the true one."""
    everywhere = [clustered(field, None) for field in own]
    threshold, fitting = best(fits, everywhere, own, FITS)
    factor, similar = best(similar_in_size, everywhere, own, FACTORS)
    found = {
        "everywhere": mean(judge(instances, field.labels) for instances, field in zip(everywhere, own, strict=True)),
        "estimated": mean(judge(clustered(field, field.foreground), field.labels) for field in own),
        f"kernel fit, {threshold:g} or more": fitting,
        f"size, up to {factor:g} times": similar,
        "true": mean(judge(clustered(field, field.foreground), field.labels) for field in true),
    }
    return [{"foreground": name, "images": len(own), "IoU": iou, "AP50": ap50} for name, (iou, ap50) in found.items()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--ckpt_dir", required=True)
    parser.add_argument("--config", nargs="*", default=[], help="overlays over train.json, such as 2d.json")
    parser.add_argument("--name", required=True, help="of the images")
    options = parser.parse_args()
    every = [
        field for _, field in trained_fields(["train.json", *options.config], options.dataset_dir, options.ckpt_dir)
    ]
    report("foreground", measure(every[::2], every[1::2]), options.name)
