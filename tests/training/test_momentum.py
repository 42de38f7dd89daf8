"""The momentum network."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from scripts.training.momentum import MovingAverage, momentum_copy


class TestMovingAverage:
    @staticmethod
    def teacher_after(iteration: int, **options: float) -> float:
        """A teacher's weight of 0, moved once, in step `iteration`, towards a student's weight of 1."""
        student, teacher = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False).requires_grad_(False)
        nn.init.ones_(student.weight)
        nn.init.zeros_(teacher.weight)
        engine = Engine(lambda engine, batch: None)
        MovingAverage(student, teacher, **options).attach(engine)
        engine.state.iteration = iteration
        engine.fire_event(Events.ITERATION_COMPLETED)
        return teacher.weight.item()

    @pytest.mark.parametrize(("iteration", "moved"), [(1, 0.5), (6, 0.375), (11, 0.25), (99, 0.25)])
    def test_the_share_of_the_student_follows_the_iteration(self, iteration: int, moved: float) -> None:
        options = {"momentum": 0.25, "momentum_warmup": 0.5, "warmup_iters": 11}
        assert self.teacher_after(iteration, **options) == pytest.approx(moved)

    def test_statistics_are_the_newest(self) -> None:
        student = nn.BatchNorm1d(1)
        teacher = momentum_copy(student)
        engine = Engine(lambda engine, batch: None)
        MovingAverage(student, teacher).attach(engine)
        student(torch.tensor([[4.0], [6.0]]))
        engine.fire_event(Events.ITERATION_COMPLETED)
        assert teacher.running_mean.item() == student.running_mean.item() == 0.5
        assert teacher.num_batches_tracked == 1

    def test_it_starts_as_a_copy_that_is_never_trained(self) -> None:
        network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        teacher = momentum_copy(network)
        assert torch.equal(teacher[0].weight, network[0].weight)
        assert not teacher.training
        assert not any(parameter.requires_grad for parameter in teacher.parameters())
