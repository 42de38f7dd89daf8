"""How good is the bundle after so many minutes, with so few annotated objects?

    python benchmarks/accuracy.py nuclei3d --fraction 0.2 --seed 0 --budget 60 --data DATA
    python benchmarks/accuracy.py membranes3d --fraction 0.2 --budget 60 --data DATA -- --foreground everywhere
    python benchmarks/accuracy.py nuclei3d --full-supervision --budget 60 --data DATA
    python benchmarks/accuracy.py nuclei3d --classical --data DATA
    python benchmarks/accuracy.py --table

Trains with the real configs on the training part of a set (see `datasets`), segments its test part, compares with the
complete truth, and puts a row into ``benchmarks/results/accuracy.json``. What follows ``--`` goes to the configs.

The budget is that of the training with its validations: a warm-up of the same training tells how many epochs fit, and
the learning rate is planned for all of them. The row keeps their number: given as ``--epochs``, with the same seed, on
the same device with as many threads, it makes the same metrics again.

Full supervision: all objects and, where there is some, all background, painted with an id of its own.
``--table`` prints the rows as markdown, and draws their curves into ``spoco_bundle/docs/pictures``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from monai.transforms import LoadImaged
from PIL import Image

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "spoco_bundle"
sys.path[:0] = [str(BUNDLE), str(Path(__file__).parent)]

from accuracy_table import CLASSICAL, FULL, SPARSE, draw_curves, markdown_table  # noqa: E402
from budget import Times, epochs_within, read_times, training_seconds, validation_interval  # noqa: E402
from classical import segment_cells, segment_nuclei  # noqa: E402
from datasets import SETS, Pair, count_objects, find_pairs, paint_background  # noqa: E402
from measuring import RESULTS, Row, machine  # noqa: E402

from scripts.files.readers import VolumeReader, read_volume  # noqa: E402
from scripts.files.whole_files import check_writable, write_json  # noqa: E402
from scripts.metrics.instances import METRIC_NAMES, instance_metrics  # noqa: E402
from scripts.training.pictures import Picture, fullest_plane, gray_picture, label_picture, side_by_side  # noqa: E402
from scripts.transforms.sampling import KeepObjectFractiond  # noqa: E402

PICTURES = BUNDLE / "docs" / "pictures"
ITERATIONS_PER_EPOCH = 50  # as in train.json
WARM_UP = 40  # iterations that are timed before a training
OWN_IDS = ("images", "labels", "ckpt_dir", "output_dir", "epochs", "iterations_per_epoch", "seed", "object_fraction")
# What tells two rows apart; besides, a row replaces one of the same budget or of the same epochs
IDENTITY = ("set", "method", "fraction", "seed", "options", "device")


@dataclass(frozen=True)
class Experiment:
    """One training on some files and its test on others.

    Attributes:
        configs: overlays of train.json.
        pairs, test_pairs: files to train on and to test on.
        fraction: share of the objects that is annotated.
        seed: of the choice of objects and of the training.
        folder: everything that is written goes there.
        options: further ids of the configs, as on the command line: ``["--foreground", "everywhere"]``.
        background_label: of the files to train on; the others hold the truth.
    """

    configs: list[str]
    pairs: list[Pair]
    test_pairs: list[Pair]
    fraction: float
    seed: int
    folder: Path
    options: Sequence[str] = ()
    background_label: int | None = None

    def warm_up(self) -> Times:
        """Time the parts of a training, on one short epoch."""
        folder, started = self.folder / "warm_up", time.time()
        self._train(folder, folder, epochs=1, iterations_per_epoch=WARM_UP)
        return read_times(folder / "tensorboard", started, time.time())

    def train(self, epochs: int) -> float:
        """Train and return the minutes that it took, start and validations included."""
        started = time.perf_counter()
        self._train(self.folder / "weights", self.folder / "training", epochs, ITERATIONS_PER_EPOCH)
        return (time.perf_counter() - started) / 60

    def _train(self, weights: Path, output: Path, epochs: int, iterations_per_epoch: int) -> None:
        length = {"epochs": epochs, "iterations_per_epoch": iterations_per_epoch}
        length["val_interval"] = validation_interval(epochs)
        drawn = {"object_fraction": self.fraction, "seed": self.seed}
        painted = {} if self.background_label is None else {"background_label": self.background_label}
        self._run(["training"], [], self.pairs, ckpt_dir=weights, output_dir=output, **length, **drawn, **painted)

    def test(self) -> dict[str, float]:
        """Segment the test part and compare it with the truth; returns the means over its images."""
        output = self.folder / "evaluation"
        self._run([], ["evaluate.json"], self.test_pairs, ckpt_dir=self.folder / "weights", output_dir=output)
        return json.loads((output / "metrics.json").read_text(encoding="utf-8"))["mean"]

    def picture(self) -> Picture:
        """A training image and annotation; below, a test image, truth, embeddings, instances; the fullest slices."""
        image, labels = self.pairs[0]
        load = LoadImaged("label", reader=VolumeReader, ensure_channel_first=True, dtype=None)
        annotation = KeepObjectFractiond("label", self.fraction, self.seed)(load({"label": str(labels)}))["label"][0]
        shown = read_volume(image).array
        if shown.ndim == 3:
            plane = fullest_plane(annotation)
            shown, annotation = shown[plane], annotation[plane]
        above = side_by_side([gray_picture(shown), label_picture(annotation)])
        written = next((self.folder / "evaluation" / "pictures").glob("*.png"))
        return stacked([above, np.asarray(Image.open(written))])

    def _run(self, run_id: list[str], overlays: list[str], pairs: list[Pair], **ids: Any) -> None:
        files = {"images": [str(pair.image) for pair in pairs], "labels": [str(pair.labels) for pair in pairs]}
        run_bundle(run_id, ["train.json", *self.configs, *overlays], self.options, **files, **ids)


def run_bundle(run_id: list[str], configs: Sequence[str], options: Sequence[str] = (), **ids: Any) -> None:
    """Run a command of the bundle as users do; what it says goes where this program's output goes."""
    files = [str(BUNDLE / "configs" / name) for name in configs]
    ids = {"bundle_root": BUNDLE, "config_file": files, **ids}
    arguments = [text for name, value in ids.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", *run_id, *arguments, *options]
    if subprocess.run(command, env={**os.environ, "PYTHONUNBUFFERED": "1"}).returncode != 0:
        raise SystemExit(f"{' '.join([*run_id, *configs])}: failed, see above.")


def measure(options: argparse.Namespace, folder: Path) -> Row:
    """Train and test as the command line says; returns the row."""
    set_ = SETS[options.set]
    pairs = find_pairs(options.data, set_.folder, set_.train)
    annotated, total = count_objects(pairs, options.fraction)
    background = None
    if options.full_supervision and set_.boundaries is None:
        pairs, background = paint_background(pairs, folder / "labels")
    overlays = ["2d.json"] if set_.spatial_dims == 2 else []
    tested = find_pairs(options.data, set_.folder, set_.test)
    experiment = Experiment(overlays, pairs, tested, options.fraction, options.seed, folder, options.ids, background)
    epochs = options.epochs
    if epochs is None:
        times = experiment.warm_up()
        epochs = epochs_within(options.budget, ITERATIONS_PER_EPOCH, times)
        needed = training_seconds(epochs, ITERATIONS_PER_EPOCH, times) / 60
        print(f"{times}: {epochs} epochs need {needed:.1f} minutes, the budget is {options.budget:g}", flush=True)
    minutes = experiment.train(epochs)
    metrics = experiment.test()
    if options.picture:
        Image.fromarray(experiment.picture()).save(PICTURES / f"accuracy_{options.set}.png")
    return {
        **described(options, FULL if options.full_supervision else SPARSE),
        "objects": annotated,
        "objects_in_total": total,
        "epochs": epochs,
        "iterations": epochs * ITERATIONS_PER_EPOCH,
        "minutes": round(minutes, 2),
        **metrics,
    }


def measure_classical(options: argparse.Namespace) -> Row:
    """The same for a segmentation without learning."""
    set_ = SETS[options.set]
    started, metrics = time.perf_counter(), []
    for pair in find_pairs(options.data, set_.folder, set_.test):
        image, meta = read_volume(pair.image)
        voxel_size = np.linalg.norm(meta["affine"][:-1, :-1], axis=0)
        segment = segment_nuclei if set_.boundaries is None else segment_cells
        arguments = () if set_.boundaries is None else (set_.boundaries,)
        metrics.append(instance_metrics(segment(image, voxel_size, *arguments), read_volume(pair.labels).array))
    nothing = dict.fromkeys(("fraction", "seed", "budget", "objects", "objects_in_total", "epochs", "iterations"))
    return {
        **described(options, CLASSICAL),
        **nothing,
        "minutes": round((time.perf_counter() - started) / 60, 2),
        **{name: float(np.mean([values[name] for values in metrics])) for name in METRIC_NAMES},
    }


def described(options: argparse.Namespace, method: str) -> Row:
    """What was done, and on which machine."""
    here = machine()
    return {
        "set": options.set,
        "method": method,
        "fraction": options.fraction,
        "seed": options.seed,
        "options": " ".join(options.ids),
        "budget": options.budget,
        "device": here["device"] if torch.cuda.is_available() else f"{here['device']}, {here['threads']} threads",
    }


def with_row(rows: Sequence[Row], row: Row) -> list[Row]:
    """Add a row in the place of the one that answers the same question."""

    def is_same(other: Row) -> bool:
        same_budget = row["budget"] is not None and other["budget"] == row["budget"]
        same_length = same_budget or other["epochs"] == row["epochs"]
        return same_length and all(other[name] == row[name] for name in IDENTITY)

    kept = [other for other in rows if not is_same(other)]
    order = list(SETS)
    return sorted(
        [*kept, row],
        key=lambda r: (order.index(r["set"]), r["method"] != CLASSICAL, r["method"] != SPARSE, r["fraction"] or 0),
    )


def stacked(pictures: Sequence[Picture], gap: int = 4) -> Picture:
    """Put pictures below each other, with white where they differ in width, and enlarge small ones."""
    width = max(picture.shape[1] for picture in pictures)
    rows = [
        np.pad(picture, ((0, gap), (0, width - picture.shape[1]), (0, 0)), constant_values=255) for picture in pictures
    ]
    factor = max(1, round(800 / width))
    return np.concatenate(rows).repeat(factor, axis=0).repeat(factor, axis=1)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", nargs="?", choices=list(SETS))
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the objects that is annotated")
    parser.add_argument("--seed", type=int, default=0)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--budget", type=float, help="minutes of training")
    length.add_argument("--epochs", type=int, help="instead of a budget")
    method = parser.add_mutually_exclusive_group()
    method.add_argument("--full-supervision", action="store_true")
    method.add_argument("--classical", action="store_true", help="without learning")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of all sets")
    parser.add_argument("--folder", type=Path, help="new or empty, to keep what the run writes")
    parser.add_argument("--results", type=Path, default=RESULTS / "accuracy.json")
    parser.add_argument("--picture", action="store_true", help="write one to docs/pictures")
    parser.add_argument("--table", action="store_true", help="print all rows and draw the curves, nothing else")
    own, ids = split_arguments(arguments)
    options = parser.parse_args(own)
    options.ids = ids
    check(parser, options)
    return options


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before ``--``, for the benchmark, and after it, for the configs."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    return list(arguments[:split]), list(arguments[split + 1 :])


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with a sentence where the options make no sense, before anything is trained."""
    try:
        rows = read_rows(options.results)
        check_writable([options.results.parent])
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if options.table:
        if not rows:
            parser.error(f"{options.results}: found no rows, expected some for the table")
        return
    if options.set is None:
        parser.error(f"expected one of {', '.join(SETS)}, or --table")
    if not options.classical and (options.budget is None) == (options.epochs is None):
        parser.error("expected --budget, --epochs or --classical")
    if not 0 < options.fraction <= 1:
        parser.error(f"found --fraction {options.fraction}, expected a share in (0, 1]")
    if options.budget is not None and not 0 < options.budget < math.inf:
        parser.error(f"found --budget {options.budget}, expected minutes above 0")
    if options.epochs is not None and options.epochs < 1:
        parser.error(f"found --epochs {options.epochs}, expected at least 1")
    if options.seed < 0:
        parser.error(f"found --seed {options.seed}, expected at least 0")
    if not options.data.is_dir():
        parser.error(f"{options.data}: no such folder, expected that of all sets (--data)")
    if options.full_supervision and options.fraction != 1:
        parser.error(f"found --fraction {options.fraction}, expected none with --full-supervision")
    given = {option.partition("=")[0] for option in options.ids}
    if taken := [name for name in OWN_IDS if f"--{name}" in given]:
        parser.error(f"found --{taken[0]} after --, expected ids that the benchmark does not set itself")
    folder = options.folder
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        parser.error(f"{folder}: found a file or files in it, expected a new or empty folder")


def read_rows(path: Path) -> list[Row]:
    """The rows of a file of this benchmark, none without one; raises ValueError where it holds anything else."""
    if not path.is_file():
        return []
    try:
        return json.loads(path.read_text(encoding="utf-8"))["rows"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: found no rows of this benchmark, expected its JSON ({error!r}).") from error


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    if options.table:
        rows = read_rows(options.results)
        print(markdown_table(rows))
        draw_curves(rows, PICTURES)
        return
    if options.classical:
        row = measure_classical(options)
    else:
        with TemporaryDirectory() as temporary:
            row = measure(options, (options.folder or Path(temporary)).resolve())
    print(markdown_table([row]))
    write_json(options.results, {"rows": with_row(read_rows(options.results), row)})


if __name__ == "__main__":
    main(sys.argv[1:])
