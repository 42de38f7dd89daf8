"""Does it pay to annotate what the list names, instead of any objects?

    python benchmarks/next_objects.py nuclei2d --seeds 0 1 2 --start 6 --more 12 --epochs 5 --data DATA
    python benchmarks/next_objects.py nuclei3d --seeds 0 1 2 --start 4 --more 6 --epochs 5 --data DATA
    python benchmarks/next_objects.py granular2d --seeds 0 1 2 --start 5 --more 5 --epochs 5

For each seed a network is trained on a few random objects. Then so many more are annotated, once those at the places
that the bundle's list names (a place without a true object costs nothing but a look: the next one is taken), once
random ones; from the first network on, both train for as many iterations again, with its working grid and its size
of the smallest instance, which a rare kind of another size would change, and are tested on the test part.
The sets of `scenes.RARE_KINDS` are generated, one image to train on and one to test on for each seed; there the rows
also tell how many annotated objects are of the rare kind, and the AP50 of that kind alone, all others being nobody's.
What follows ``--`` goes to the configs of all trainings. Rows go to ``benchmarks/results/next_objects.json``, and with
``--picture`` one of the first seed's images to ``docs/pictures``.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path[:0] = [str(Path(__file__).parents[1] / "spoco_bundle"), str(Path(__file__).parent)]

from accuracy import PICTURES, ROOT, Experiment, run_bundle, split_arguments  # noqa: E402
from datasets import SETS, Pair, find_pairs  # noqa: E402
from measuring import Row, report  # noqa: E402
from scenes import RARE_KINDS  # noqa: E402

from scripts.files.image_files import image_name  # noqa: E402
from scripts.files.readers import read_volume  # noqa: E402
from scripts.files.writers import write_instances  # noqa: E402
from scripts.metrics import instance_metrics  # noqa: E402
from scripts.training.pictures import gray_picture, label_picture, side_by_side  # noqa: E402

Objects = set[tuple[int, int]]  # (image, id)
MEASURED = ("ap50", "ap", "f1", "pq", "annotated_iou")


@dataclass(frozen=True)
class Images:
    """What is trained on and what is tested on.

    Attributes:
        train, test: images with their complete truth.
        spatial_dims: 2 or 3.
        rare: how many objects of the images of each are of a rare kind, those with the first ids; None: nobody knows.
    """

    train: list[Pair]
    test: list[Pair]
    spatial_dims: int
    rare: tuple[int, int] | None = None

    @classmethod
    def of_set(cls, name: str, data: Path) -> Images:
        set_ = SETS[name]
        train, test = (find_pairs(data, set_.folder, pattern) for pattern in (set_.train, set_.test))
        return cls(train, test, set_.spatial_dims)

    @classmethod
    def generated(cls, kind: str, seed: int, folder: Path) -> Images:
        """One image each, drawn by the seed and written to the folder."""
        scenes = [RARE_KINDS[kind](np.random.default_rng([seed, part])) for part in range(2)]
        pairs = []
        for name, scene in zip(("train", "test"), scenes, strict=True):
            scene.write(folder / name)
            pairs.append([Pair(*(folder / name / part / "generated.tif" for part in ("images", "labels")))])
        train, test = pairs
        return cls(train, test, scenes[0].labels.ndim, (scenes[0].rare, scenes[1].rare))


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
    random = np.random.default_rng(seed)
    if options.set in RARE_KINDS:
        images = Images.generated(options.set, seed, folder / "generated")
    else:
        images = Images.of_set(options.set, options.data)
    overlays = ["2d.json"] if images.spatial_dims == 2 else []
    tested = images.test[: options.test_images]
    pool = Pool([images.train[index] for index in sorted(random.permutation(len(images.train))[: options.pool])])

    def train(name: str, objects: Objects, ids: Sequence[str]) -> Row:
        annotated = pool.annotate(objects, folder / name / "labels")
        experiment = Experiment(overlays, annotated, tested, 1.0, seed, folder / name, [*options.ids, *ids])
        experiment.train(options.epochs)
        metrics = experiment.test()
        row = {"seed": seed, "annotated": name, "objects": len(objects), "images": len(annotated)}
        row |= {metric: metrics[metric] for metric in MEASURED}
        if images.rare is not None:
            found, truth = find_instances(tested[0], overlays, folder / name), read_volume(tested[0].labels).array
            rare_truth = np.where(truth <= images.rare[1], truth, 0)
            row["rare"] = sum(id_ <= images.rare[0] for _, id_ in objects)
            row["rare_ap50"] = instance_metrics(found, rare_truth, sparse=True)["ap50"]
        return row

    first = pool.draw(options.start, set(), random)
    rows = [train("first", first, [])]
    listed = list_places(options, overlays, pool, folder)
    chosen, looked_at = pool.at_places(listed, options.more, first)
    more = {"listed": chosen, "random": pool.draw(len(chosen), first, random)}
    weights = folder / "first" / "weights"
    settings = json.loads((weights / "model.json").read_text(encoding="utf-8"))
    kept = [text for name in ("spacing", "smallest_instance") for text in (f"--{name}", str(settings[name]))]
    ids = ["--pretrained", str(weights / "model.pt"), *kept]
    rows += [train(name, first | objects, ids) for name, objects in more.items()]
    if options.picture and seed == options.seeds[0]:
        draw(pool.pairs[0], tested[0], folder, PICTURES / f"next_objects_{options.set}.png")
    print(f"seed {seed}: {looked_at} places looked at for {len(chosen)} objects", flush=True)
    return rows


def find_instances(pair: Pair, overlays: list[str], folder: Path) -> NDArray:
    """Segment an image with the network of a folder."""
    files = {"images": pair.image, "ckpt_dir": folder / "weights", "output_dir": folder / "instances"}
    run_bundle([], ["inference.json", *overlays], **files)
    return read_instances(folder)


def read_instances(folder: Path) -> NDArray:
    """What `find_instances` has written."""
    return read_volume(next((folder / "instances").glob("*_instances.tif"))).array


def draw(train: Pair, test: Pair, folder: Path, target: Path) -> None:
    """Middle slices: image, map of the doubt; tested image, instances after listed and after random objects."""
    heat = next((folder / "list").glob(f"{image_name(str(train.image))}_next_objects.*"))
    gray = [gray_picture(read_volume(path).array) for path in (train.image, heat, test.image)]
    found = [label_picture(read_instances(folder / name)) for name in ("listed", "random")]
    Image.fromarray(side_by_side([*gray, *found])).save(target)


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
    parser.add_argument("set", choices=[*SETS, *RARE_KINDS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--start", type=int, default=6, help="objects that are annotated at first")
    parser.add_argument("--more", type=int, default=12, help="objects that are annotated then")
    parser.add_argument("--epochs", type=int, default=5, help="of each training, 50 iterations each")
    parser.add_argument("--pool", type=int, default=12, help="images to choose from, where there are more")
    parser.add_argument("--test-images", type=int, default=16, help="to test on, where there are more")
    parser.add_argument("--picture", action="store_true", help="of a generated set, to docs/pictures")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of all sets")
    own, ids = split_arguments(arguments)
    options = parser.parse_args(own)
    options.ids = ids
    if options.picture and options.set not in RARE_KINDS:
        parser.error(f"found --picture with {options.set}, expected one of {', '.join(RARE_KINDS)}")
    rows: list[Row] = []
    for seed in options.seeds:
        with TemporaryDirectory() as folder:
            rows += compare(options, seed, Path(folder).resolve())
        report("next_objects", rows, f"{options.set}: {options.start} objects, then {options.more} more")


if __name__ == "__main__":
    main(sys.argv[1:])
