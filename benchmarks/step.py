"""Where does a training step spend its time, and what makes it faster?

    python benchmarks/step.py [--config 2d.json] [--foreground everywhere] [--iterations 40] [--device cuda]

Trains on a generated image with the real configs and prints two tables, which it also writes to
``benchmarks/results/step.json`` (of a GPU: ``step_cuda.json``): the parts of a step, in units of what the two networks
alone take on the same batch (forward and backward of the one that is trained, forward of its moving average), and the
whole step when an option of the configs is changed. The runs of the second table take turns, so that a busy machine is
unfair to none. A GPU is waited for after each part in the first table, and only after all steps in the second.
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

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.engines import IterationEvents

sys.path[:0] = [str(Path(__file__).parents[1] / "spoco_bundle"), str(Path(__file__).parent)]

from bundle import bundle_config, generate_dataset  # noqa: E402
from measuring import median_seconds, report, results_name, wait_for  # noqa: E402

from scripts.network.precision import AutocastInferer  # noqa: E402

WARM_UP = 3  # iterations that are not counted
CHANNELS_FIRST = {"memory_format: channels first": {"memory_format": "$torch.contiguous_format"}}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "cpu": {
        "as it is": {},
        "precision: float32": {"precision": "float32"},
        **CHANNELS_FIRST,
        "data in a thread": {"train#dataloader#_target_": "ThreadDataLoader"},
        "num_workers: 1": {"num_workers": 1},
    },
    "cuda": {
        "as it is": {},
        "cuda_graphs: false": {"cuda_graphs": False},
        "deterministic: false": {"deterministic": False},
        "amp: false": {"amp": False},
        **CHANNELS_FIRST,
        "num_workers: 0": {"num_workers": 0},
        "num_workers: 8": {"num_workers": 8},
        "batch_size: 8": {"batch_size": 8},
        "batch_size: 8, num_workers: 14": {"batch_size": 8, "num_workers": 14},
    },
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


def prepare_trainer(configs: list[str], folder: Path, iterations: int, options: dict[str, Any]) -> ConfigParser:
    folders = {"dataset_dir": folder, "ckpt_dir": folder / "weights", "output_dir": folder / "output"}
    length = {"epochs": 1, "iterations_per_epoch": iterations + WARM_UP}
    ids = {**{name: str(path) for name, path in folders.items()}, "object_fraction": 0.2, **length, **options}
    parser = bundle_config(configs, **ids)
    validation = next(h for h in parser["train#handlers"] if "Validation" in h["_target_"])
    parser["train#handlers"].remove(validation)
    parser.get_parsed_content("initialize")
    return parser


def seconds_of_parts(parser: ConfigParser) -> dict[str, float]:
    """Median seconds of each part of a step."""
    trainer, device = parser.get_parsed_content("train#trainer"), parser.get_parsed_content("device")
    seconds: dict[str, list[float]] = defaultdict(list)
    last = 0.0

    def note(engine: Engine, part: str) -> None:
        nonlocal last
        wait_for(device)
        now = time.perf_counter()
        if engine.state.iteration > WARM_UP:
            seconds[part].append(now - last)
        last = now

    for event, part in PARTS.items():  # handlers run in the order of their registration: this is the last of each
        trainer.add_event_handler(event, note, part)
    trainer.run()
    return {part: statistics.median(values) for part, values in seconds.items()}


def seconds_of_steps(parser: ConfigParser) -> float:
    """Mean seconds of a step, while the next batch may be made and the last one still be computed."""
    trainer, device = parser.get_parsed_content("train#trainer"), parser.get_parsed_content("device")
    times: list[float] = []

    def note(engine: Engine) -> None:
        if engine.state.iteration in (WARM_UP, engine.state.epoch_length):
            wait_for(device)
            times.append(time.perf_counter())

    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    trainer.run()
    return (times[1] - times[0]) / (trainer.state.epoch_length - WARM_UP)


def seconds_of_networks(parser: ConfigParser, repeats: int, precision: str, amp: bool = False) -> float:
    """Median seconds that the two networks take alone, on a batch as in training."""
    network, teacher = parser.get_parsed_content("network"), parser.get_parsed_content("teacher")
    infer, device = AutocastInferer(precision), parser.get_parsed_content("device")
    shape = (parser["batch_size"], parser["in_channels"], *parser.get_parsed_content("patch_size"))
    images = torch.rand(shape, device=device)
    autocast = torch.autocast(torch.device(device).type, enabled=amp)  # as in MONAI's trainer
    network.train()

    def run() -> None:
        with autocast:
            loss = infer(images, network).square().mean()
        loss.backward()
        with torch.no_grad(), autocast:
            infer(images, teacher)

    return median_seconds(run, repeats, device)


def profile(configs: list[str], folder: Path, iterations: int, given: dict[str, Any]) -> None:
    parser = prepare_trainer(configs, folder, iterations, given)
    parts = seconds_of_parts(parser)
    parts["the whole step"] = sum(parts.values())
    precision, amp = parser.get_parsed_content("precision"), parser.get_parsed_content("amp")
    networks = seconds_of_networks(parser, iterations, precision, amp)
    parts[f"(the two networks alone, {'float16' if amp else precision})"] = networks
    if precision != "float32" or amp:
        parts["(the two networks alone, float32)"] = seconds_of_networks(parser, iterations, "float32")
    rows = [{"part": part, "s": value, "/ networks": value / networks} for part, value in parts.items()]
    report(results_name("step", given["device"]), rows, f"{title(configs, given)}: the parts of a step")


def compare(configs: list[str], folder: Path, iterations: int, rounds: int, given: dict[str, Any]) -> None:
    steps: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, options in VARIANTS[torch.device(given["device"]).type].items():
            trainer = prepare_trainer(configs, folder, iterations, {**given, **options})
            steps[name].append(seconds_of_steps(trainer))
    medians = {name: statistics.median(values) for name, values in steps.items()}
    rows = [
        {"option": name, "step s": value, "times faster": medians["as it is"] / value}
        for name, value in medians.items()
    ]
    report(results_name("step", given["device"]), rows, f"{title(configs, given)}: options")


def title(configs: list[str], given: dict[str, Any]) -> str:
    shown = {name: value for name, value in given.items() if name != "device"}  # it has files of its own
    return " ".join(["+".join(configs), *(f"--{name} {value}" for name, value in shown.items())])


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--config", default=None, help="overlay over train.json")
    arguments.add_argument("--foreground", help="everywhere: with the border term, as in dense tissue")
    arguments.add_argument("--iterations", type=int, default=40)
    arguments.add_argument("--device", default="cpu")
    given = arguments.parse_args()
    logging.disable(logging.INFO)
    files = ["train.json", *([given.config] if given.config else [])]
    with TemporaryDirectory() as name:
        data = Path(name)
        generate_dataset(data, (512, 512) if given.config == "2d.json" else (96, 96, 96))
        options = {"device": given.device, **({"foreground": given.foreground} if given.foreground else {})}
        profile(files, data, given.iterations, options)
        compare(files, data, given.iterations // 2, 2, options)
