"""Ten annotated objects of some two hundred: what does the bundle make of kinds of images that its weights never saw?

    python benchmarks/ten_objects.py                       # all kinds, about half an hour on one core
    python benchmarks/ten_objects.py --kinds rods hollow

For each kind (see `scenes`) one image is trained on, with ten of its objects annotated and all options as they are, and
another one is segmented and compared with its complete truth. Rows go to ``benchmarks/results/ten_objects.json``, and
with ``--picture`` one of the middle slices to ``docs/pictures``: test image, truth, embeddings, instances.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

sys.path[:0] = [str(Path(__file__).parents[1] / "spoco_bundle"), str(Path(__file__).parent)]

from accuracy import PICTURES, run_bundle, stacked  # noqa: E402
from measuring import Row, report  # noqa: E402
from scenes import SCENES  # noqa: E402

ANNOTATED = 10
MEASURED = ("ap50", "ap", "pq", "arand", "annotated_iou")
WIDTH = 900  # of the picture, in pixels


def train_and_test(kind: str, folder: Path) -> Row:
    """One row; the test's picture lies in ``folder/evaluation/pictures``."""
    SCENES[kind](np.random.default_rng(1)).write(folder / "train", ANNOTATED)
    tested = SCENES[kind](np.random.default_rng(2))
    tested.write(folder / "test")
    dims = tested.labels.ndim
    configs, weights = ["train.json", *(["2d.json"] if dims == 2 else [])], folder / "weights"
    started = time.perf_counter()
    run_bundle(["training"], configs, dataset_dir=folder / "train", ckpt_dir=weights, output_dir=folder / "training")
    minutes = (time.perf_counter() - started) / 60
    output = folder / "evaluation"
    run_bundle([], [*configs, "evaluate.json"], dataset_dir=folder / "test", ckpt_dir=weights, output_dir=output)
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))["mean"]
    return {
        "kind": f"{kind}, {dims}D",
        "objects to find": int(tested.labels.max()),
        "minutes": round(minutes, 1),
        **{name: metrics[name] for name in MEASURED},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--picture", action="store_true", help="write one to docs/pictures")
    options = parser.parse_args()
    pictures = []
    for kind in options.kinds:
        with TemporaryDirectory() as temporary:
            folder = Path(temporary).resolve()
            report("ten_objects", [train_and_test(kind, folder)], f"ten annotated objects: {kind}")
            written = next((folder / "evaluation" / "pictures").glob("*.png"))
            image = Image.open(written)
            pictures.append(np.asarray(image.resize((WIDTH, round(WIDTH * image.height / image.width)))))
    if options.picture:
        Image.fromarray(stacked(pictures)).save(PICTURES / "ten_objects.png")


if __name__ == "__main__":
    main()
