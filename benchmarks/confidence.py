"""Does an instance's score say whether it is right, and what does it cost?

    python -m monai.bundle run --bundle_root B --config_file B/configs/inference.json --dataset_dir D --ckpt_dir R \\
        --output_dir O
    python benchmarks/confidence.py --name "my nuclei" --instances O --labels D/labels
    python benchmarks/confidence.py --cost

The second line compares what the first one has written with completely annotated objects: for each threshold of the
score, which share of the instances that are left is right (precision), which share of the objects they are (recall),
and AP50; then the same instances in fifths by their score; all images together. The third line times scoring against
clustering. Prints tables and writes them to ``benchmarks/results/confidence.json``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

sys.path[:0] = [str(Path(__file__).parents[1] / "spoco_bundle"), str(Path(__file__).parent)]

from measuring import median_seconds, report  # noqa: E402

from scripts.clustering import cluster_embeddings  # noqa: E402
from scripts.clustering.confidence import instance_scores  # noqa: E402
from scripts.files.readers import read_volume  # noqa: E402
from scripts.synthetic.images import synthetic_nuclei  # noqa: E402

THRESHOLDS = np.arange(0, 1, 0.05)
SIDES = (32, 64, 128, 192)  # of the volumes that are timed, the last one with 7 million voxels


class Verdicts(NamedTuple):
    """All instances of a set of images: (n,) each, and how many objects there are."""

    scores: NDArray[np.float64]
    best_iou: NDArray[np.float64]
    objects: int

    @property
    def right(self) -> NDArray[np.bool_]:
        """Above 0.5 no two instances share an object."""
        return self.best_iou > 0.5


def read_verdicts(instances_dir: Path, labels_dir: Path) -> Verdicts:
    """Judge the instances that inference has written by complete labels."""
    scores, ious, objects = [], [], 0
    for name in segmented_images(instances_dir):
        # numpy's types know columns by their numbers alone
        columns = ("id", "score")
        table = np.genfromtxt(
            instances_dir / f"{name}_instances.csv", delimiter=",", names=True, usecols=columns, ndmin=1
        )  # type: ignore[call-overload]
        labels = read_volume_of(labels_dir, name)
        scores.append(table["score"])
        instances = read_volume_of(instances_dir, f"{name}_instances")
        ious.append(best_ious(instances, labels)[table["id"].astype(int)])
        objects += int(np.count_nonzero(np.unique(labels)))
    return Verdicts(np.concatenate(scores), np.concatenate(ious), objects)


def segmented_images(instances_dir: Path) -> list[str]:
    """The names, without extensions, of the images that inference has segmented into a folder; at least one."""
    names = [path.stem.removesuffix("_instances") for path in sorted(instances_dir.glob("*_instances.csv"))]
    if not names:
        raise SystemExit(f"{instances_dir}: found no *_instances.csv, expected what inference has written.")
    return names


def read_volume_of(folder: Path, name: str) -> NDArray[Any]:
    """The one volume in a folder whose file has this name and any extension but that of a table."""
    path = next(path for path in sorted(folder.glob(f"{name}.*")) if path.suffix != ".csv")
    return read_volume(path).array


def best_ious(instances: NDArray[np.integer], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Best IoU of each id with an object, (largest id + 1,); 0 for ids that do not exist."""
    object_ids, objects = np.unique(labels, return_inverse=True)
    count = len(object_ids)
    table = np.bincount(instances.ravel().astype(np.int64) * count + objects.ravel(), minlength=count)
    overlap = np.pad(table, (0, -len(table) % count)).reshape(-1, count)
    union = overlap.sum(1, keepdims=True) + overlap.sum(0) - overlap
    iou = np.where(object_ids > 0, overlap / np.maximum(union, 1), 0)
    return iou.max(1)


def curve(name: str, verdicts: Verdicts) -> None:
    """Precision, recall and AP50 against the threshold."""
    rows = []
    for threshold in THRESHOLDS:
        kept = verdicts.scores >= threshold
        found, instances = int((kept & verdicts.right).sum()), int(kept.sum())
        if not instances:
            break
        rows.append(
            {
                "min_score": round(float(threshold), 2),
                "instances": instances,
                "right": found,
                "precision": found / instances,
                "recall": found / verdicts.objects,
                "AP50": found / (instances + verdicts.objects - found),
            }
        )
    report("confidence", rows, f"(a) {name}: what is left at each threshold of the score")


def fifths(name: str, verdicts: Verdicts) -> None:
    """Which share is right, and how well the instances fit, from the least to the most sure fifth of them."""
    rows = [
        {
            "scores": f"{verdicts.scores[part].min():.2f} to {verdicts.scores[part].max():.2f}",
            "instances": len(part),
            "right": float(verdicts.right[part].mean()),
            "mean IoU": float(verdicts.best_iou[part].mean()),
        }
        for part in np.array_split(verdicts.scores.argsort(kind="stable"), 5)
        if len(part)
    ]
    report("confidence", rows, f"(d) {name}: fifths by the score")


def agreement(name: str, verdicts: Verdicts) -> None:
    """One number each: how well scores part right from wrong, and how well they follow the true overlap."""
    row = {
        "instances": len(verdicts.scores),
        "right": int(verdicts.right.sum()),
        "objects": verdicts.objects,
        "ROC AUC": defined(roc_auc_score(verdicts.right, verdicts.scores)),
        "rank correlation with IoU": defined(spearmanr(verdicts.scores, verdicts.best_iou).statistic),
        "mean score": float(verdicts.scores.mean()),
        "mean IoU": float(verdicts.best_iou.mean()),
    }
    report("confidence", [row], f"(b) {name}: score against truth")


def defined(value: float) -> float | None:
    """None for NaN: where all instances are right, or all scores equal, there is nothing to tell apart."""
    return None if np.isnan(value) else float(value)


def half_trained_embeddings(labels: NDArray[np.integer], dim: int = 8) -> NDArray[np.float32]:
    """(E, *spatial): positions drawn half-way to the middle of each object, a foreground axis, and grain."""
    random = np.random.default_rng(0)
    embeddings = 0.1 * random.standard_normal((dim, *labels.shape), np.float32)
    embeddings[0] += np.where(labels > 0, 1, -1)
    sizes = np.maximum(np.bincount(labels.ravel()), 1)
    for channel, position in zip(embeddings[1:], np.indices(labels.shape, np.float32) * 0.25, strict=False):
        middle = np.bincount(labels.ravel(), weights=position.ravel()) / sizes
        channel += np.where(labels > 0, (position + middle[labels]) / 2, position)
    return embeddings


def cost(repeats: int) -> None:
    """Seconds of clustering and of scoring what it has found."""
    rows = []
    for side in SIDES:
        labels = synthetic_nuclei((side, side, side), object_diameter=16, seed=1)[1]
        embeddings = half_trained_embeddings(labels)
        instances = cluster_embeddings(embeddings, labels > 0)
        arguments = embeddings, labels > 0
        clustering = median_seconds(lambda arguments=arguments: cluster_embeddings(*arguments), repeats)
        scoring = median_seconds(lambda arguments=(instances, embeddings): instance_scores(*arguments), repeats)
        rows.append(
            {
                "voxels": labels.size,
                "instances": int(instances.max()),
                "clustering s": clustering,
                "scoring s": scoring,
                "scoring / clustering": scoring / clustering,
            }
        )
    report("confidence", rows, "(c) time of scoring against clustering, in 3D")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="instances", help="of the set of images, for the tables")
    parser.add_argument("--instances", type=Path, help="folder that inference has written to")
    parser.add_argument("--labels", type=Path, help="folder with the complete labels")
    parser.add_argument("--cost", action="store_true", help="time scoring against clustering")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if (options.instances is None) != (options.labels is None) or not (options.instances or options.cost):
        parser.error("expected --instances together with --labels, or --cost")
    if options.instances:
        verdicts = read_verdicts(options.instances, options.labels)
        curve(options.name, verdicts)
        fifths(options.name, verdicts)
        agreement(options.name, verdicts)
    if options.cost:
        cost(options.repeats)
