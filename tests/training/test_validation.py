"""On which images and when a training validates, and when it ends, interrupted in between or not."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator

from scripts.training.validation import StopWithoutProgress, ValidationWithLast, validation_set


class Values(Evaluator):
    """A validator that finds the n-th value after the n-th epoch."""

    def __init__(self, values: list[float]) -> None:
        super().__init__(device=torch.device("cpu"), val_data_loader=[0])
        self.values, self.epochs = values, []
        self.state.key_metric_name = "iou"

    def run(self, global_epoch: int = 1) -> None:
        self.epochs.append(global_epoch)
        self.state.metrics["iou"] = self.values[global_epoch - 1]
        self.fire_event(Events.COMPLETED)


class Training:
    """A training and its validations."""

    def __init__(self, values: list[float], patience: int | None = None, interval: int = 1) -> None:
        self.validator = Values(values)
        self.stopping = StopWithoutProgress(self.validator, patience)
        self.trainer = Engine(lambda engine, batch: None)
        ValidationWithLast(self.validator, interval, self.stopping).attach(self.trainer)

    def epochs(self, epochs: int | None = None) -> int:
        """Train; returns how many epochs that took."""
        return self.trainer.run([0], max_epochs=epochs or len(self.validator.values)).epoch


@pytest.mark.parametrize(("epochs", "interval", "validated"), [(4, 2, [2, 4]), (5, 2, [2, 4, 5]), (3, 5, [3])])
def test_it_validates_after_the_last_epoch_too(epochs: int, interval: int, validated: list[int]) -> None:
    training = Training([0.5] * epochs, interval=interval)
    training.epochs()
    assert training.validator.epochs == validated


@pytest.mark.parametrize(
    ("values", "patience", "epochs"),
    [
        ([0.1, 0.2, 0.3, 0.4], 1, 4),  # better each time
        ([0.4, 0.3, 0.2, 0.1], 1, 2),
        ([0.4, 0.3, 0.2, 0.1], 2, 3),
        ([0.4, 0.3, 0.5, 0.4, 0.3, 0.9], 2, 5),  # a better one starts the count anew
        ([0.4, 0.4, 0.4, 0.4], 2, 3),  # as good is not better
        ([0.4, 0.3, 0.2, 0.1], None, 4),  # never
    ],
)
def test_it_counts_validations_without_a_better_one(values: list[float], patience: int | None, epochs: int) -> None:
    assert Training(values, patience).epochs() == epochs


def test_a_resumed_training_goes_on_counting() -> None:
    values = [0.4, 0.3, 0.2, 0.1, 0.0]
    interrupted, resumed = Training(values, patience=3), Training(values, patience=3)
    interrupted.epochs(2)
    resumed.stopping.load_state_dict(interrupted.stopping.state_dict())
    resumed.trainer.add_event_handler(Events.STARTED, lambda engine: setattr(engine.state, "epoch", 2))
    assert resumed.epochs() == Training(values, patience=3).epochs() == 4


def test_one_that_was_interrupted_after_its_last_validation_ends_at_once() -> None:
    finished, resumed = Training([0.4, 0.3, 0.2, 0.1], patience=1), Training([0.4, 0.3, 0.2, 0.1], patience=1)
    finished.epochs()

    def go_on(engine: Engine) -> None:
        resumed.stopping.load_state_dict(finished.stopping.state_dict())
        engine.state.epoch = 2

    resumed.trainer.add_event_handler(Events.STARTED, go_on)
    assert resumed.epochs() == 2
    assert resumed.validator.epochs == []


@pytest.mark.parametrize("patience", [0, -1])
def test_a_patience_that_would_end_the_training_at_once_is_refused(patience: int) -> None:
    with pytest.raises(ValueError, match=rf"patience must be at least 1, or None for never, got {patience}"):
        StopWithoutProgress(Values([]), patience)


@pytest.mark.parametrize(("data", "expected"), [(["a", "b"], ["a", "b"]), ([], ["c"]), (None, ["c"])])
def test_it_validates_on_the_training_images_where_there_are_no_others(data: list[str], expected: list[str]) -> None:
    entries = None if data is None else [{"image": name} for name in data]
    images = validation_set(entries, [{"image": "c"}], transform=lambda entry: entry, cache_rate=0.0)
    assert [entry["image"] for entry in images] == expected
