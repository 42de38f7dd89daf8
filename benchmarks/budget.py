"""How many epochs fit into a budget of minutes, from the times of a short training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

VALIDATIONS = 8  # of a long training: more would cost more than they find
SHORTEST_INTERVAL = 5  # epochs between two validations, as in train.json
UNTIMED = 10  # first steps, in which memory is allocated and kernels are chosen
SPARE = 0.05  # share of the budget that is left unplanned


class Times(NamedTuple):
    """Seconds that the parts of a training take."""

    start: float
    step: float
    validation: float  # and the end of the process


def read_times(log_dir: Path, started: float, ended: float) -> Times:
    """From TensorBoard's record of a training of one epoch, and when its process started and ended (`time.time`)."""
    record = EventAccumulator(str(log_dir), size_guidance={"scalars": 0})  # 0: keep all
    record.Reload()
    steps = [event.wall_time for event in record.Scalars("loss")]
    if len(steps) <= UNTIMED + 1:
        raise ValueError(f"{log_dir}: found {len(steps)} steps, expected more than {UNTIMED + 1}.")
    step = (steps[-1] - steps[UNTIMED]) / (len(steps) - 1 - UNTIMED)
    return Times(steps[0] - started, step, ended - steps[-1])


def validation_interval(epochs: int) -> int:
    """Epochs between two validations."""
    return max(SHORTEST_INTERVAL, math.ceil(epochs / VALIDATIONS))


def training_seconds(epochs: int, iterations: int, times: Times) -> float:
    """What a training takes from start to end."""
    validations = math.ceil(epochs / validation_interval(epochs))
    return times.start + epochs * iterations * times.step + validations * times.validation


def epochs_within(minutes: float, iterations: int, times: Times) -> int:
    """The most epochs, of so many iterations each, whose training ends within the minutes; at least one.

    >>> epochs_within(10, iterations=50, times=Times(start=20, step=1, validation=30))  # 20 + 9 * 50 + 2 * 30 = 530
    9
    """
    seconds = (1 - SPARE) * 60 * minutes
    epochs = 1
    while training_seconds(epochs + 1, iterations, times) <= seconds:
        epochs += 1
    return epochs
