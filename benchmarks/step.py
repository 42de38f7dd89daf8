"""Where does a training step spend its time, and what makes it faster?

    python benchmarks/step.py [--config 2d.json] [--foreground everywhere] [--iterations 40]

Trains on a generated image with the real configs and prints two tables, which it also writes to
``benchmarks/results/step.json``: the parts of a step, in units of what the two networks alone take on the same batch
(forward and backward of the one that is trained, forward of its moving average), and the whole step when an option of
the configs is changed. The runs of the second table take turns, so that a busy machine is unfair to none.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tifffile
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.engines import IterationEvents

BUNDLE = Path(__file__).parents[1] / "spoco_bundle"
sys.path[:0] = [str(BUNDLE), str(Path(__file__).parent)]

from measuring import report  # noqa: E402

from scripts.precision import AutocastInferer  # noqa: E402
from scripts.synthetic import synthetic_nuclei  # noqa: E402

WARM_UP = 3  # iterations that are not counted
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "precision: float32": {"precision": "float32"},
    "memory_format: channels first": {"memory_format": "$torch.contiguous_format"},
    "data in a thread": {"train#dataloader#_target_": "ThreadDataLoader"},
    "num_workers: 1": {"num_workers": 1},
}
# What has happened when the event fires
PARTS = {
    Events.GET_BATCH_COMPLETED: "data: crop, flip, augment",
    IterationEvents.FORWARD_COMPLETED: "student, forward",
    IterationEvents.LOSS_COMPLETED: "teacher, forward; the loss",
    IterationEvents.BACKWARD_COMPLETED: "backward of loss and student",
    IterationEvents.MODEL_COMPLETED: "clipping and optimiser",
    Events.ITERATION_COMPLETED: "moving average, schedule, logging",
}


def prepare_dataset(folder: Path, dims: int) -> None:
    image, labels = synthetic_nuclei((96, 96, 96) if dims == 3 else (512, 512), seed=0)
    for name, array in (("images", image), ("labels", labels.astype("uint16"))):
        (folder / name).mkdir()
        tifffile.imwrite(folder / name / "generated.tif", array, metadata={"axes": "ZYX"[-dims:]})


def prepare_trainer(configs: list[str], folder: Path, iterations: int, options: dict[str, Any]) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / name) for name in configs])
    parser.update(
        {
            "bundle_root": str(BUNDLE),
            "dataset_dir": str(folder),
            "ckpt_dir": str(folder / "weights"),
            "output_dir": str(folder / "output"),
            "object_fraction": 0.2,
            "epochs": 1,
            "iterations_per_epoch": iterations + WARM_UP,
            **options,
        }
    )
    validation = next(h for h in parser["train#handlers"] if "Validation" in h["_target_"])
    parser["train#handlers"].remove(validation)
    parser.get_parsed_content("initialize")
    return parser


def seconds_of_parts(parser: ConfigParser) -> dict[str, float]:
    """Median seconds of each part of a step."""
    trainer = parser.get_parsed_content("train#trainer")
    seconds: dict[str, list[float]] = defaultdict(list)
    last = 0.0

    def note(engine: Engine, part: str) -> None:
        nonlocal last
        now = time.perf_counter()
        if engine.state.iteration > WARM_UP:
            seconds[part].append(now - last)
        last = now

    for event, part in PARTS.items():  # handlers run in the order of their registration: this is the last of each
        trainer.add_event_handler(event, note, part)
    trainer.run()
    return {part: statistics.median(values) for part, values in seconds.items()}


def seconds_of_networks(parser: ConfigParser, repeats: int, precision: str) -> float:
    """Median seconds that the two networks take alone, on a batch as in training."""
    network, teacher = parser.get_parsed_content("network"), parser.get_parsed_content("teacher")
    infer = AutocastInferer(precision)
    shape = (parser["batch_size"], parser["in_channels"], *parser.get_parsed_content("patch_size"))
    images = torch.rand(shape, device=parser.get_parsed_content("device"))
    network.train()
    seconds = []
    for _ in range(repeats + WARM_UP):
        start = time.perf_counter()
        infer(images, network).square().mean().backward()
        with torch.no_grad():
            infer(images, teacher)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM_UP:])


def profile(configs: list[str], folder: Path, iterations: int, given: dict[str, Any]) -> None:
    parser = prepare_trainer(configs, folder, iterations, given)
    parts = seconds_of_parts(parser)
    parts["the whole step"] = sum(parts.values())
    precision = parser.get_parsed_content("precision")
    networks = seconds_of_networks(parser, iterations, precision)
    parts[f"(the two networks alone, {precision})"] = networks
    if precision != "float32":
        parts["(the two networks alone, float32)"] = seconds_of_networks(parser, iterations, "float32")
    rows = [{"part": part, "s": value, "/ networks": value / networks} for part, value in parts.items()]
    report("step", rows, f"{title(configs, given)}: the parts of a step")


def compare(configs: list[str], folder: Path, iterations: int, rounds: int, given: dict[str, Any]) -> None:
    steps: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, options in VARIANTS.items():
            trainer = prepare_trainer(configs, folder, iterations, {**given, **options})
            steps[name].append(sum(seconds_of_parts(trainer).values()))
    medians = {name: statistics.median(values) for name, values in steps.items()}
    rows = [
        {"option": name, "step s": value, "times faster": medians["as it is"] / value}
        for name, value in medians.items()
    ]
    report("step", rows, f"{title(configs, given)}: options")


def title(configs: list[str], given: dict[str, Any]) -> str:
    return " ".join(["+".join(configs), *(f"--{name} {value}" for name, value in given.items())])


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--config", default=None, help="overlay over train.json")
    arguments.add_argument("--foreground", help="everywhere: with the border term, as in dense tissue")
    arguments.add_argument("--iterations", type=int, default=40)
    given = arguments.parse_args()
    logging.disable(logging.INFO)
    files = ["train.json", *([given.config] if given.config else [])]
    with TemporaryDirectory() as name:
        data = Path(name)
        prepare_dataset(data, 2 if given.config == "2d.json" else 3)
        options = {"foreground": given.foreground} if given.foreground else {}
        profile(files, data, given.iterations, options)
        compare(files, data, given.iterations // 2, 2, options)
