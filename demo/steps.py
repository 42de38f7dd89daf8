"""The bundle's own commands, exactly as a user types them, and how the demo runs them."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.plan import BUNDLE, ROOT, Plan, config_files

# 250 iterations of two 32^3 patches: 0.2 s each on two cores, and half a minute for start and validation.
EPOCHS, ITERATIONS_PER_EPOCH = 5, 50
VALIDATION_INTERVAL = 5  # once, at the end: a validation segments all training images
SEED = 0
QUIET_INTERVAL = 15.0  # seconds between progress lines where there is no terminal to overwrite them


class StepError(RuntimeError):
    """A command of the bundle has failed; the message is one sentence."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: of its log, NAME.log.
        title: shown to the user.
        arguments: what follows `python`; paths are relative to the repository.
    """

    name: str
    title: str
    arguments: list[str]

    @property
    def command(self) -> str:
        """The line to type in the repository's folder."""
        return " ".join(["python", *map(_quoted, self.arguments)])


def plan_steps(plan: Plan, output: Path) -> list[Step]:
    """Training, inference and evaluation, in this order; results go to folders of `output`."""
    weights = output / "weights"
    training = _bundle_command(
        ["training"],
        config_files(plan.spatial_dims, "train.json"),
        dataset_dir=plan.train_dir,
        ckpt_dir=weights,
        output_dir=output / "training",
        epochs=EPOCHS,
        iterations_per_epoch=ITERATIONS_PER_EPOCH,
        val_interval=VALIDATION_INTERVAL,
        patch_size=list(plan.patch_size),
        seed=SEED,
    )
    tested = {"dataset_dir": plan.test_dir, "ckpt_dir": weights}
    inference = _bundle_command(
        [],
        config_files(plan.spatial_dims, "inference.json"),
        **tested,
        output_dir=output / "instances",
    )
    evaluation = _bundle_command(
        [],
        config_files(plan.spatial_dims, "train.json", "evaluate.json"),
        **tested,
        output_dir=output / "evaluation",
        **({"sparse_truth": True} if plan.sparse_truth else {}),
    )
    tested_image = "the held-out image" if plan.is_held_out else "the image"
    return [
        Step("train", "Train", training),
        Step("inference", f"Segment {tested_image}", inference),
        Step("evaluate", f"Evaluate {tested_image}", evaluation),
    ]


def run_step(step: Step, log: Path) -> float:
    """Run a command in the repository's folder, show its progress, and keep what it says in `log`.

    Returns:
        seconds it took.

    Raises:
        StepError: it failed; the message is the bundle's own sentence.
    """
    start = time.monotonic()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            [sys.executable, *step.arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        show = _Progress()
        for text, is_progress in _pieces(process):
            if is_progress:
                show(text)
            else:
                file.write(text + "\n")
                file.flush()
        show.finish()
    if process.returncode != 0:
        reason = _signal_name(process.returncode) or _reason(log)
        raise StepError(f"{reason} (step: {step.name}, log: {relative(log)})")
    return time.monotonic() - start


def relative(path: Path) -> str:
    """The path as seen from the repository, so that neither commands nor report name a place of this machine."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def _bundle_command(verb: list[str], configs: list[Path], **options: object) -> list[str]:
    names = [relative(path) for path in configs]
    arguments = ["-m", "monai.bundle", "run", *verb, "--bundle_root", relative(BUNDLE)]
    arguments += ["--config_file", names[0] if len(names) == 1 else str(names)]
    for name, value in options.items():
        arguments += [f"--{name}", relative(value) if isinstance(value, Path) else str(value)]
    return arguments


def _quoted(argument: str) -> str:
    """Lists read better in double quotes than with the escapes that shlex finds."""
    return f'"{argument}"' if argument.startswith("[") else shlex.quote(argument)


def _pieces(process: subprocess.Popen[bytes]) -> Iterator[tuple[str, bool]]:
    """Lines of a process, and whether each belongs to a progress bar, which overwrites its line again and again."""
    assert process.stdout is not None  # a pipe
    rest = b""
    while chunk := os.read(process.stdout.fileno(), 65536):
        *complete, rest = re.split(rb"[\r\n]", rest + chunk)
        for piece in complete:
            text = piece.decode(errors="replace").rstrip()
            if text:
                yield text, "%|" in text
    if rest.strip():
        yield rest.decode(errors="replace").rstrip(), b"%|" in rest


class _Progress:
    """The last progress bar in one line of the terminal, or a line from time to time in a file."""

    def __init__(self) -> None:
        self.last_time, self.last_text = 0.0, ""
        self.is_terminal = sys.stdout.isatty()

    def __call__(self, text: str) -> None:
        if self.is_terminal:
            print(f"\r  {text:<78}", end="", flush=True)
        elif time.monotonic() - self.last_time >= QUIET_INTERVAL:
            self.last_time = time.monotonic()
            print(f"  {text}", flush=True)
        self.last_text = text

    def finish(self) -> None:
        """End the line of the terminal."""
        if self.is_terminal and self.last_text:
            print()


def _signal_name(status: int) -> str | None:
    """What ended a process that could not say a word itself, or None if it ended by its own will."""
    if status >= 0:
        return None
    name = signal.Signals(-status).name
    hint = ", most often for lack of memory" if name == "SIGKILL" else ""
    return f"the command was ended by {name}{hint}"


def _reason(log: Path) -> str:
    """The sentence in which the bundle refused its input, or else the last thing that was said."""
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    refusals = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (refusals or lines or ["the command said nothing"])[-1].strip()
