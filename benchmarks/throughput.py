"""Where does inference spend its time, and how many voxels a second does it segment?

    python benchmarks/throughput.py [--ckpt_dir R]                   # 3D, with the shipped weights or those in R
    python benchmarks/throughput.py --config 2d.json [--ckpt_dir R]  # 2D
    python benchmarks/throughput.py flips=False                      # with ids of inference.json changed

Runs inference.json on generated images, from the file of the image to that of the instances, and prints for each size
how long each part takes. What comes after the network shall take at most 30 % of the time. Start-up, which does not
depend on the image, is left out: a small image is segmented before. Runs on a GPU where there is one, or on what
``--device`` says, and writes the tables to ``benchmarks/results/throughput.json`` (of a GPU: ``throughput_cuda.json``).
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch

sys.path[:0] = [str(Path(__file__).parents[1] / "spoco_bundle"), str(Path(__file__).parent)]

from bundle import BUNDLE, bundle_config, generate_dataset  # noqa: E402
from measuring import Row, peak_megabytes, report, results_name, wait_for  # noqa: E402

from scripts.clustering import postprocessing  # noqa: E402

SIDES = {2: (256, 1024, 3072), 3: (64, 128, 256)}
PARTS = {
    "LoadImaged": "reading",
    "ResampleToSpacingd": "resampling",
    "ScaleContrastd": "normalisation",
    "EmbeddingInferer": "network",
    "ClusterEmbeddingsd": "clustering",
    "RestoreGridd": "resampling back",
    "SaveInstancesd": "writing",
}
AFTER_THE_NETWORK = ("clustering", "scores", "resampling back", "writing")


class Clock:
    """Sums up the seconds that functions take, by the names of their parts; of nested ones each counts its own.

    Args:
        device: which has done what a function asked for when its time is taken.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = 0.0  # seconds of what has finished inside the function that runs

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, with the clock running."""

        def run_timed(*args: Any, **kwargs: Any) -> Any:
            before, self._inner = self._inner, 0.0
            start = time.perf_counter()
            result = call(*args, **kwargs)
            wait_for(self.device)
            elapsed = time.perf_counter() - start
            self.seconds[part] += elapsed - self._inner
            self._inner = before + elapsed
            return result

        return run_timed


def part_of(component: object) -> str:
    return PARTS.get(type(component).__name__, "everything else")


def profile(
    configs: list[str], ckpt_dir: Path, folder: Path, device: str, ids: dict[str, str]
) -> tuple[dict[str, float], float]:
    """Seconds of each part of one inference, and of all together."""
    folders = {"dataset_dir": folder, "ckpt_dir": ckpt_dir, "output_dir": folder / "output"}
    parser = bundle_config(configs, device=device, **{name: str(path) for name, path in folders.items()}, **ids)
    clock = Clock(device)
    for chain in ("preprocessing", "postprocessing"):
        composed = parser.get_parsed_content(chain)
        composed.transforms = tuple(clock.timed(part_of(step), step) for step in composed.transforms)
    evaluator = parser.get_parsed_content("evaluator")
    evaluator.inferer = clock.timed(part_of(evaluator.inferer), evaluator.inferer)
    scores = clock.timed("scores", postprocessing.instance_scores)
    with patch.object(postprocessing, "instance_scores", scores):
        start = time.perf_counter()
        evaluator.run()
        elapsed = time.perf_counter() - start
    if missing := {*PARTS.values(), "scores"} - clock.seconds.keys():
        raise RuntimeError(f"{', '.join(sorted(missing))}: no such part was met, as if it had another name now")
    return clock.seconds, elapsed


def measure(configs: list[str], ckpt_dir: Path, dims: int, folder: Path, device: str, changed: list[str]) -> None:
    summary: list[Row] = []
    results = results_name("throughput", device)
    name = " ".join(["+".join(configs), *changed])
    ids = {id_: f"${value}" for id_, value in (change.split("=", 1) for change in changed)}
    generate_dataset(folder / "warm up", (SIDES[dims][0],) * dims)
    profile(configs, ckpt_dir, folder / "warm up", device, ids)
    for side in SIDES[dims]:
        shape = (side,) * dims
        generate_dataset(folder / str(side), shape)
        seconds, elapsed = profile(configs, ckpt_dir, folder / str(side), device, ids)
        seconds["everything else"] += elapsed - sum(seconds.values())
        rows = [{"part": part, "s": seconds[part], "share": seconds[part] / elapsed} for part in seconds]
        title = " x ".join(map(str, shape))
        report(results, rows, f"{name}: {title}")
        after = sum(seconds[part] for part in AFTER_THE_NETWORK)
        summary.append(
            {
                "image": title,
                "s": elapsed,
                "voxels a second": side**dims / elapsed,
                "after the network": after / elapsed,
                "peak MB": peak_megabytes(device),
            }
        )
    report(results, summary, f"{name}: all sizes")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("ids", nargs="*", metavar="ID=VALUE", help="of inference.json, in Python")
    arguments.add_argument("--config", default=None, help="overlay over inference.json")
    arguments.add_argument("--ckpt_dir", type=Path, default=None, help="of trained weights")
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = arguments.parse_args()
    logging.disable(logging.INFO)
    with TemporaryDirectory() as name:
        configs = ["inference.json"] if given.config is None else ["inference.json", given.config]
        weights, dims = (BUNDLE / "models", 3) if given.config is None else (BUNDLE / "models" / "2d", 2)
        measure(configs, given.ckpt_dir or weights, dims, Path(name), given.device, given.ids)
