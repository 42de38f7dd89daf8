"""How fast, how small and how right is the clustering?

    python benchmarks/clustering.py [--voxels 1e4 1e6] [--dims 8] [--ndim 2] [--kinds tight loose] [--methods auto]
        [--fields 6]
    python benchmarks/clustering.py --dataset_dir D --ckpt_dir R [--config 2d.json] [--images 5] [--name "nuclei in 2D"]

The first line clusters generated embedding fields (see `fields`), the second one those of the network in R on the
images of D, whose labels must be complete; D and R as for the bundle's commands. With a name, or with several fields of
each kind, they are summed up in one row for each method: means, and on how many another method is better by more than
0.01. Every method runs in a process of its own, which is ended after `limit` seconds; of scikit-learn's methods the
clusters are split into connected components and cleaned as ours are. A table for each size is printed and added to
``benchmarks/results/clustering.json``, with seconds of processor time (of all cores together, so that a busy machine
does not show), memory beyond that of the embeddings in units of them, and AP50. With ``--device cuda`` our methods run
there, and the table, in ``clustering_cuda.json``, has seconds of wall time and the GPU's memory. Run it in parts: what
is measured again replaces what was there.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from sklearn.cluster import HDBSCAN, MeanShift

sys.path[:0] = [str(Path(__file__).parents[1] / "spoco_bundle"), str(Path(__file__).parent)]

from fields import DELTA_VAR, KINDS, Field, synthetic_field, trained_fields  # noqa: E402
from measuring import RESULTS, Row, extra_megabytes, report, results_name, wait_for  # noqa: E402

from scripts.clustering.methods import METHODS, cluster_embeddings  # noqa: E402
from scripts.geometry.pieces import clean_components  # noqa: E402
from scripts.metrics import instance_metrics  # noqa: E402

OBJECTS = {10_000: 10, 100_000: 50, 1_000_000: 200, 10_000_000: 2_000}
TOLERANCE = 0.01  # of AP50: less is no difference
SKLEARN = ("sklearn HDBSCAN", "sklearn MeanShift")


def cluster(field: Field, embeddings: torch.Tensor, method: str) -> np.ndarray:
    """An instance map, (*spatial), by one of our methods, on the device of the embeddings, or of scikit-learn's."""
    if method in METHODS:
        return cluster_embeddings(
            embeddings,
            field.foreground,
            method,
            DELTA_VAR,
            field.min_size,
            teacher_embeddings=embeddings,
            merge_threshold=field.merge_threshold,
        )
    clusters = np.zeros(field.foreground.shape, np.int32)
    found = (
        HDBSCAN(min_cluster_size=max(5, field.min_size), copy=True)
        if method == "sklearn HDBSCAN"
        else MeanShift(bandwidth=DELTA_VAR)
    ).fit(field.embeddings[:, field.foreground].T)
    clusters[field.foreground] = found.labels_ + 1  # its noise, -1, becomes background
    return clean_components(clusters, field.min_size)


def prepare(folder: Path, method: str, limit: int, device: str) -> Callable[[], None]:
    """Read the field; return a function that clusters it and writes what it found, and in which time."""
    with np.load(folder / "field.npz") as arrays:
        # single values come back as numbers
        field = Field(**{name: array if array.ndim else array.item() for name, array in arrays.items()})

    clock = time.process_time if device == "cpu" else time.perf_counter
    embeddings = torch.from_numpy(field.embeddings).to(device)

    def run() -> None:
        wait_for(device)
        start = clock()
        try:
            instances = cluster(field, embeddings, method)
        except Exception as error:
            (folder / "failure.txt").write_text(f"{method}: {error}", encoding="utf-8")
            raise
        np.savez(folder / "found.npz", instances=instances, seconds=clock() - start)

    warm_up = tuple(slice(0, 6) for _ in field.foreground.shape)
    small = Field(field.embeddings[(slice(None), *warm_up)], np.ones((6,) * len(warm_up), bool), None, 5)
    cluster(small, torch.from_numpy(small.embeddings).to(device), method)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + limit,) * 2)  # ends this process
    return run


def foreground_iou(field: Field) -> float:
    """Of the foreground that is clustered with the voxels of all objects."""
    objects = field.labels > 0
    return float((field.foreground & objects).sum() / (field.foreground | objects).sum())


def measure(field: Field, name: str, methods: Iterable[str], limit: int, device: str) -> list[Row]:
    rows, seconds_of = [], "processor s" if device == "cpu" else "s"
    with TemporaryDirectory() as folder:
        given = {part: value for part, value in field._asdict().items() if value is not None}
        np.savez(Path(folder) / "field.npz", **given)
        for method in methods:
            row = {
                "field": name,
                "foreground IoU": foreground_iou(field),
                "method": method,
                seconds_of: f"> {limit}",
                "memory / embeddings": "",
                "AP50": "",
                "found": "",
            }
            try:
                extra = extra_megabytes(prepare, Path(folder), method, limit, device, device=device)
                extra *= 2**20 / field.embeddings.nbytes
            except EOFError:  # the process has ended without an answer: at its limit, or with an exception
                failure = Path(folder) / "failure.txt"
                if failure.is_file():
                    raise SystemExit(failure.read_text(encoding="utf-8")) from None
                rows.append(row)
                continue
            with np.load(Path(folder) / "found.npz") as found:
                instances, seconds = found["instances"], float(found["seconds"])
            ap50 = instance_metrics(instances, field.labels)["ap50"]
            measured = {
                seconds_of: seconds,
                "memory / embeddings": extra,
                "AP50": ap50,
                "found": int(instances.max()),
            }
            rows.append({**row, **measured})
    return rows


def summed_up(rows: list[Row], name: str) -> list[Row]:
    """One row for each foreground and method, from those of many images; only of methods that finished on all."""
    best: dict[str, float] = defaultdict(float)
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["field"].partition(", ")[2], row["method"]].append(row)
        best[row["field"]] = max(best[row["field"]], row["AP50"] or 0)
    seconds_of = "processor s" if "processor s" in rows[0] else "s"
    averaged = ("foreground IoU", seconds_of, "memory / embeddings", "AP50")
    return [
        {
            "field": f"{name}, {foreground}",
            "method": method,
            "images": len(group),
            **{column: float(np.mean([row[column] for row in group])) for column in averaged},
            "below the best": sum(best[row["field"]] - row["AP50"] > TOLERANCE for row in group),
        }
        for (foreground, method), group in groups.items()
        if all(row["AP50"] != "" for row in group)
    ]


def add_to_report(rows: list[Row], title: str, device: str) -> None:
    """Report the rows together with those that an earlier run has measured and this one has not."""
    results = results_name("clustering", device)
    path = RESULTS / f"{results}.json"
    earlier = json.loads(path.read_text(encoding="utf-8")).get(title, []) if path.is_file() else []
    table = {(row["field"], row["method"]): row for row in [*earlier, *rows]}
    report(results, [table[key] for key in sorted(table)], title)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=float, nargs="+", choices=OBJECTS, default=[1e4, 1e5, 1e6])
    parser.add_argument("--dims", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--ndim", type=int, choices=[2, 3], default=3, help="of the image")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--fields", type=int, default=1, help="of each kind")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *SKLEARN], default=[*METHODS, *SKLEARN])
    parser.add_argument("--limit", type=int, default=60, help="seconds after which a method is given up")
    parser.add_argument("--dataset_dir", help="images and complete labels, for trained fields")
    parser.add_argument("--ckpt_dir", help="what training has written")
    parser.add_argument("--config", nargs="*", default=[], help="overlays over train.json, such as 2d.json")
    parser.add_argument("--images", type=int, help="only so many of them")
    parser.add_argument("--name", help="of these images, which one row sums up for each method")
    parser.add_argument("--device", default="cpu", help="where our methods run")
    options = parser.parse_args()
    if (options.dataset_dir is None) != (options.ckpt_dir is None):
        parser.error("expected --dataset_dir together with --ckpt_dir")
    if options.dataset_dir:
        fields = trained_fields(["train.json", *options.config], options.dataset_dir, options.ckpt_dir)
        measured = []
        for name, field in islice(fields, options.images and 2 * options.images):  # two foregrounds each
            rows = measure(field, name, options.methods, options.limit, options.device)
            measured += rows
            if options.name is None:
                add_to_report(rows, "trained networks", options.device)
        if options.name is not None:
            add_to_report(summed_up(measured, options.name), "trained networks, means over images", options.device)
    else:
        for voxels in map(int, options.voxels):
            for dim in options.dims:
                title = f"{voxels} voxels, {OBJECTS[voxels]} objects, E = {dim}" + ", 2D" * (options.ndim == 2)
                for kind in options.kinds:
                    measured = []
                    for seed in range(options.fields):
                        field = synthetic_field(KINDS[kind], voxels, OBJECTS[voxels], dim, options.ndim, seed)
                        name = kind if options.fields == 1 else f"{seed}, {kind}"
                        measured += measure(field, name, options.methods, options.limit, options.device)
                    if options.fields == 1:
                        add_to_report(measured, title, options.device)
                    else:
                        several = summed_up(measured, f"{options.fields} fields")
                        add_to_report(several, f"{title}, means", options.device)


if __name__ == "__main__":
    main()
