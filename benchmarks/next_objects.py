"""Does it pay to annotate what the list names, instead of any objects?

    python benchmarks/next_objects.py nuclei2d --seeds 0 1 2 --start 6 --more 12 --epochs 5 --data DATA
    python benchmarks/next_objects.py nuclei3d --seeds 0 1 2 --start 4 --more 6 --epochs 5 --data DATA

For each seed a network is trained on a few random objects. Then so many more are annotated, once those at the places
that the bundle's list names (a place without a true object costs nothing but a look: the next one is taken), once
random ones; from the first network on, both train for as many iterations again, and are tested on the test part.
What follows ``--`` goes to the configs of all trainings. Rows go to ``benchmarks/results/next_objects.json``.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

sys.path[:0] = [str(Path(__file__).parents[1] / "spoco_bundle"), str(Path(__file__).parent)]

from accuracy import ROOT, Experiment, run_bundle, split_arguments  # noqa: E402
from datasets import SETS, Pair, find_pairs  # noqa: E402
from measuring import Row, report  # noqa: E402

from scripts.metrics_handler import image_name  # noqa: E402
from scripts.readers import read_volume  # noqa: E402
from scripts.writers import write_instances  # noqa: E402

Objects = set[tuple[int, int]]  # (image, id)
MEASURED = ("ap50", "ap", "f1", "pq", "annotated_iou")


class Pool:
    """Images of which the truth is known, and of which some objects are annotated."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = list(pairs)
        self.truth: list[NDArray] = [read_volume(pair.labels).array for pair in pairs]
        self.objects = [(image, int(id_)) for image, truth in enumerate(self.truth) for id_ in np.unique(truth) if id_]

    def draw(self, count: int, without: Objects, random: np.random.Generator) -> Objects:
        """Random objects."""
        left = [one for one in self.objects if one not in without]
        return {left[index] for index in random.permutation(len(left))[:count]}

    def at_places(self, listed: Path, count: int, without: Objects) -> tuple[Objects, int]:
        """The first true objects that a list names, and how many of its places it took."""
        number = {image_name(str(pair.image)): image for image, pair in enumerate(self.pairs)}
        found: Objects = set()
        looked_at = 0
        with listed.open(encoding="utf-8") as file:
            for looked_at, line in enumerate(csv.DictReader(file), start=1):
                image = number[line["image"]]
                place = tuple(int(line[f"{axis}_voxel"]) for axis in "zyx"[-self.truth[image].ndim :])
                one = image, int(self.truth[image][place])
                if one[1] and one not in without:
                    found.add(one)
                if len(found) == count:
                    return found, looked_at
        return found, looked_at

    def annotate(self, objects: Objects, folder: Path) -> list[Pair]:
        """Write the label maps of the images that have annotated objects."""
        folder.mkdir(parents=True)
        pairs = []
        for image in sorted({image for image, _ in objects}):
            pair, truth = self.pairs[image], self.truth[image]
            kept = np.isin(truth, [id_ for owner, id_ in objects if owner == image])
            pairs.append(Pair(pair.image, folder / pair.labels.name))
            write_instances(np.where(kept, truth, 0), pair.labels, pairs[-1].labels)
        return pairs


def compare(options: argparse.Namespace, seed: int, folder: Path) -> list[Row]:
    """One row for the first network and one for each of the two ways to go on."""
    set_, random = SETS[options.set], np.random.default_rng(seed)
    overlays = ["2d.json"] if set_.spatial_dims == 2 else []
    tested = find_pairs(options.data, set_.folder, set_.test)[: options.test_images]
    pairs = find_pairs(options.data, set_.folder, set_.train)
    pool = Pool([pairs[index] for index in sorted(random.permutation(len(pairs))[: options.pool])])

    def train(name: str, objects: Objects, ids: Sequence[str]) -> Row:
        annotated = pool.annotate(objects, folder / name / "labels")
        experiment = Experiment(overlays, annotated, tested, 1.0, seed, folder / name, [*options.ids, *ids])
        experiment.train(options.epochs)
        metrics = experiment.test()
        row = {"seed": seed, "annotated": name, "objects": len(objects), "images": len(annotated)}
        return {**row, **{metric: metrics[metric] for metric in MEASURED}}

    first = pool.draw(options.start, set(), random)
    rows = [train("first", first, [])]
    listed = list_places(options, overlays, pool, folder)
    chosen, looked_at = pool.at_places(listed, options.more, first)
    more = {"listed": chosen, "random": pool.draw(len(chosen), first, random)}
    weights = ["--pretrained", str(folder / "first" / "weights" / "model.pt")]
    rows += [train(name, first | objects, weights) for name, objects in more.items()]
    print(f"seed {seed}: {looked_at} places looked at for {len(chosen)} objects", flush=True)
    return rows


def list_places(options: argparse.Namespace, overlays: list[str], pool: Pool, folder: Path) -> Path:
    """Run the bundle's command on all images of the pool, with the label maps so far."""
    dataset, output = folder / "pool", folder / "list"
    for kind in ("images", "labels"):
        (dataset / kind).mkdir(parents=True)
    for pair in pool.pairs:
        (dataset / "images" / pair.image.name).symlink_to(pair.image.resolve())
        labels = folder / "first" / "labels" / pair.labels.name
        if labels.is_file():  # of the same name as its image
            (dataset / "labels" / labels.name.replace("_labels.", "_image.")).symlink_to(labels.resolve())
    ids = {"dataset_dir": dataset, "ckpt_dir": folder / "first" / "weights", "output_dir": output}
    run_bundle([], ["inference.json", *overlays, "next_objects.json"], places=10 * options.more, **ids)
    return output / "next_objects.csv"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--start", type=int, default=6, help="objects that are annotated at first")
    parser.add_argument("--more", type=int, default=12, help="objects that are annotated then")
    parser.add_argument("--epochs", type=int, default=5, help="of each training, 50 iterations each")
    parser.add_argument("--pool", type=int, default=12, help="images to choose from, where there are more")
    parser.add_argument("--test-images", type=int, default=16, help="to test on, where there are more")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of all sets")
    own, ids = split_arguments(arguments)
    options = parser.parse_args(own)
    options.ids = ids
    rows: list[Row] = []
    for seed in options.seeds:
        with TemporaryDirectory() as folder:
            rows += compare(options, seed, Path(folder).resolve())
        report("next_objects", rows, f"{options.set}: {options.start} objects, then {options.more} more")


if __name__ == "__main__":
    main(sys.argv[1:])
