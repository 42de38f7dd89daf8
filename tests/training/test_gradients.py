"""Gradients that are too large, and such as are no number."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents, SupervisedTrainer, Trainer
from torch import nn

from scripts.training.gradients import GradientGuard
from scripts.training.steps import prepare_two_views

UNUSED = "nan_batch.pt"


def trained_step(max_norm: float) -> float:
    """How far one SGD step of rate 1 moves the network's only parameter."""
    network = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(network.weight)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    image = torch.full((1, 1, 4, 4), 3.0)
    SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[{"image": image, "label": image}],
        network=network,
        optimizer=optimizer,
        loss_function=lambda output, target: output.mean(),
        train_handlers=[GradientGuard(optimizer, max_norm, UNUSED)],
        decollate=False,
    ).run()
    return abs(network.weight.item() - 1)


def test_clipping_bounds_the_step() -> None:
    assert trained_step(max_norm=1e6) == pytest.approx(3.0)
    assert trained_step(max_norm=0.3) == pytest.approx(0.3, rel=1e-3)


def test_clipping_undoes_the_scale_of_mixed_precision_first() -> None:
    """A gradient of norm 5, scaled by 1024, is clipped to norm 1; the scaler then does not undo it again."""
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    trainer = Engine(lambda engine, batch: None)
    trainer.register_events(*IterationEvents)
    trainer.amp, trainer.scaler = True, torch.amp.GradScaler("cpu", init_scale=1024.0)
    trainer.scaler.scale(weight @ torch.tensor([3.0, 4.0])).backward()
    assert weight.grad.tolist() == [3 * 1024, 4 * 1024]
    GradientGuard(optimizer, 1.0, UNUSED).attach(trainer)
    trainer.fire_event(IterationEvents.BACKWARD_COMPLETED)
    trainer.scaler.step(optimizer)
    torch.testing.assert_close(weight.detach(), torch.tensor([-0.6, -0.8]))


def test_a_step_that_mixed_precision_skips_stays_skipped() -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    trainer = Engine(lambda engine, batch: None)
    trainer.register_events(*IterationEvents)
    trainer.amp, trainer.scaler = True, torch.amp.GradScaler("cpu")
    trainer.scaler.scale(weight @ torch.tensor([3.0, float("inf")])).backward()
    GradientGuard(optimizer, 1.0, UNUSED).attach(trainer)
    trainer.fire_event(IterationEvents.BACKWARD_COMPLETED)
    trainer.scaler.step(optimizer)
    assert weight.tolist() == [0, 0]


class TestNoNumber:
    @staticmethod
    def trainer(folder: Path, brightness: float, loss: Callable = lambda output, target: output.mean()) -> Trainer:
        """Two iterations with a network that multiplies; the second image has this brightness."""
        torch.manual_seed(0)
        images = [torch.ones(1, 1, 4, 4), torch.full((1, 1, 4, 4), brightness)]
        network = nn.Conv2d(1, 2, 1)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        return SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=1,
            train_data_loader=[{"image": i, "teacher_image": -i, "label": torch.ones_like(i).long()} for i in images],
            network=network,
            optimizer=optimizer,
            loss_function=loss,
            prepare_batch=prepare_two_views,
            train_handlers=[GradientGuard(optimizer, 5.0, str(folder / "nan_batch.pt"))],
        )

    @staticmethod
    def run(trainer: Trainer) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The weights after the first iteration, and at the end."""
        weights: list[dict[str, torch.Tensor]] = []
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda: weights.append(copy.deepcopy(trainer.network.state_dict()))
        )
        with contextlib.suppress(ValueError):
            trainer.run()
        return weights[0], trainer.network.state_dict()

    def test_a_finite_loss_goes_on(self, tmp_path: Path) -> None:
        trainer = self.trainer(tmp_path, brightness=2.0)
        first, last = self.run(trainer)
        assert trainer.state.iteration == 2
        assert not torch.equal(first["weight"], last["weight"])
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("brightness", [float("nan"), float("inf")])
    def test_the_batch_is_kept_and_the_weights_are_not_touched(self, tmp_path: Path, brightness: float) -> None:
        trainer = self.trainer(tmp_path, brightness)
        first, last = self.run(trainer)
        assert trainer.state.iteration == 2
        assert all(torch.equal(first[name], last[name]) for name in first)
        kept = torch.load(tmp_path / "nan_batch.pt", weights_only=True)
        torch.testing.assert_close(kept["image"], torch.full((1, 1, 4, 4), brightness), equal_nan=True)
        torch.testing.assert_close(kept["teacher_image"], torch.full((1, 1, 4, 4), -brightness), equal_nan=True)
        assert kept["label"].tolist() == torch.ones(1, 1, 4, 4).tolist()

    def test_the_first_foreground_is_kept_too(self, tmp_path: Path) -> None:
        trainer = self.trainer(tmp_path, brightness=float("nan"))
        for batch in trainer.data_loader:
            batch["first_foreground"] = torch.full((1, 1, 4, 4), 0.5)
        self.run(trainer)
        kept = torch.load(tmp_path / "nan_batch.pt", weights_only=True)
        assert kept["first_foreground"].tolist() == torch.full((1, 1, 4, 4), 0.5).tolist()

    def test_the_sentence_names_the_file_the_iteration_and_the_loss(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"nan_batch\.pt: holds the batch of iteration 2, whose loss .* to be nan"):
            self.trainer(tmp_path, brightness=float("nan")).run()

    def test_a_gradient_that_is_no_number_is_found_behind_a_loss_that_is_one(self, tmp_path: Path) -> None:
        """The square root of 0 is 0, and its slope infinite."""

        def root(output: torch.Tensor, target: object) -> torch.Tensor:
            return (output - output.detach()).mean().abs().sqrt()

        with pytest.raises(ValueError, match=r"batch of iteration 1, whose gradient's norm was found to be nan"):
            self.trainer(tmp_path, brightness=1.0, loss=root).run()
        assert (tmp_path / "nan_batch.pt").is_file()
