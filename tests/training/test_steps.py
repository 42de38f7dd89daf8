"""The SPOCO step inside MONAI's stock trainer."""

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer, Trainer
from torch import nn

from scripts.losses import SpocoLoss
from scripts.training import steps
from scripts.training.steps import (
    EpochLoss,
    GradientClipping,
    MovingAverage,
    StopAtNan,
    TeacherLoss,
    momentum_copy,
    prepare_two_views,
)


class Echo(nn.Module):
    """Remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.append(image)
        return image * self.scale


def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    labels = torch.zeros(2, 1, 4, 4, dtype=torch.int32)
    labels[:, :, 1:3, 1:3] = 1
    return {"image": torch.rand(2, 3, 4, 4), "teacher_image": torch.rand(2, 3, 4, 4), "label": labels}


def test_the_student_sees_its_view_and_the_loss_the_rest() -> None:
    data = batch()
    image, target = prepare_two_views(data, "cpu")
    assert torch.equal(image, data["image"])
    assert set(target) == {"teacher_image", "label"}


def test_the_teacher_sees_its_own_view_without_gradient() -> None:
    data, teacher = batch(), Echo()
    loss = TeacherLoss(SpocoLoss(), teacher)
    student = data["image"].requires_grad_()
    loss(student, {"teacher_image": data["teacher_image"], "label": data["label"]}).backward()
    assert torch.equal(teacher.seen[0], data["teacher_image"])
    assert teacher.scale.grad is None
    assert student.grad.abs().sum() > 0


def test_the_teacher_runs_as_it_is_told() -> None:
    data, teacher = batch(), Echo()

    def double(inputs: torch.Tensor, network: nn.Module) -> torch.Tensor:
        return network(2 * inputs)

    TeacherLoss(SpocoLoss(), teacher, inferer=double)(data["image"], data)
    assert torch.equal(teacher.seen[0], 2 * data["teacher_image"])


def test_the_teacher_rests_where_consistency_has_no_weight() -> None:
    data, teacher = batch(), Echo()
    TeacherLoss(SpocoLoss(consistency_weight=0), teacher)(data["image"], data)
    assert teacher.seen == []


def test_without_consistency_there_need_be_no_second_view() -> None:
    data = batch()
    without = {"label": data["label"]}
    values = [TeacherLoss(SpocoLoss(consistency_weight=0), Echo())(data["image"], target) for target in (data, without)]
    assert values[0] == values[1]


def test_a_weight_may_change_during_a_training() -> None:
    data, loss = batch(), SpocoLoss(consistency_weight=0)
    compare = TeacherLoss(loss, Echo())
    compare(data["image"], data)
    assert loss.terms["consistency"] == 0
    loss.weights["consistency"] = 1.0
    compare(data["image"], data)
    assert loss.terms["consistency"] > 0


@pytest.mark.parametrize("weights", [{}, {"consistency_weight": 0.0}, {"first_foreground_weight": 1.0}], ids=str)
def test_what_is_recorded_is_the_loss(weights: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a GPU would record it: on a CPU it is run without being recorded."""
    data = {**batch(), "first_foreground": torch.rand(2, 1, 4, 4)}
    results = []
    for recorded in (True, False):
        monkeypatch.setattr(steps, "runs_triton", lambda _, recorded=recorded: recorded)
        torch.manual_seed(0)  # draws anchors
        loss, student = SpocoLoss(**weights), data["image"].clone().requires_grad_()
        value = TeacherLoss(loss, Echo(), cuda_graphs=True)(student, data)
        results.append((value, loss.terms, torch.autograd.grad(value, student)[0]))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_a_loss_of_ones_own_is_called_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Largest(SpocoLoss):
        def forward(self, student, teacher, labels, first_foreground=None) -> torch.Tensor:
            return labels.max() * (student - teacher).abs().max()

    monkeypatch.setattr(steps, "runs_triton", lambda _: True)  # or nothing would be recorded in any case
    data = batch()
    value = TeacherLoss(Largest(), Echo(), cuda_graphs=True)(data["image"], data)
    assert value == (data["image"] - data["teacher_image"]).abs().max()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": torch.zeros(2, 1, 4, 4)}, "labels must be integers, got torch.float32"),
        ({"label": torch.zeros(2, 1, 4, 5).int()}, r"labels must have the shape \(2, 1, 4, 4\), got \(2, 1, 4, 5\)"),
        ({"teacher_image": torch.rand(2, 3, 4, 8)}, "student and teacher must have one shape"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, torch.Tensor], message: str) -> None:
    data = batch()
    with pytest.raises(ValueError, match=message):
        TeacherLoss(SpocoLoss(), Echo())(data["image"], {**data, **changed})


def trained_step(max_norm: float) -> float:
    """How far one SGD step of rate 1 moves the network's only parameter."""
    student = Echo()
    optimizer = torch.optim.SGD(student.parameters(), lr=1.0)
    SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[batch()],
        network=student,
        optimizer=optimizer,
        loss_function=TeacherLoss(SpocoLoss(), Echo()),
        prepare_batch=prepare_two_views,
        train_handlers=[GradientClipping(optimizer, max_norm)],
        decollate=False,
    ).run()
    return abs(student.scale.item() - 1)


def test_clipping_bounds_the_step() -> None:
    free = trained_step(max_norm=1e6)
    assert trained_step(max_norm=free / 10) == pytest.approx(free / 10, rel=1e-3)


def test_clipping_undoes_the_scale_of_mixed_precision_first() -> None:
    """A gradient of norm 5, scaled by 1024, is clipped to norm 1; the scaler then does not undo it again."""
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    trainer = Engine(lambda engine, batch: None)
    trainer.amp, trainer.scaler = True, torch.amp.GradScaler("cpu", init_scale=1024.0)
    trainer.scaler.scale(weight @ torch.tensor([3.0, 4.0])).backward()
    assert weight.grad.tolist() == [3 * 1024, 4 * 1024]
    GradientClipping(optimizer, max_norm=1.0)(trainer)
    trainer.scaler.step(optimizer)
    torch.testing.assert_close(weight.detach(), torch.tensor([-0.6, -0.8]))


def test_a_step_that_mixed_precision_skips_stays_skipped() -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    trainer = Engine(lambda engine, batch: None)
    trainer.amp, trainer.scaler = True, torch.amp.GradScaler("cpu")
    trainer.scaler.scale(weight @ torch.tensor([3.0, float("inf")])).backward()
    GradientClipping(optimizer, max_norm=1.0)(trainer)
    trainer.scaler.step(optimizer)
    assert weight.tolist() == [0, 0]


class TestStopAtNan:
    @staticmethod
    def trainer(folder: Path, brightness: float, loss: Callable = lambda output, target: output.mean()) -> Trainer:
        """Two iterations with a network that multiplies; the second image has this brightness."""
        torch.manual_seed(0)
        images = [torch.ones(1, 1, 4, 4), torch.full((1, 1, 4, 4), brightness)]
        network = nn.Conv2d(1, 2, 1)
        return SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=1,
            train_data_loader=[{"image": i, "teacher_image": -i, "label": torch.ones_like(i).long()} for i in images],
            network=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
            loss_function=loss,
            prepare_batch=prepare_two_views,
            train_handlers=[StopAtNan(str(folder / "nan_batch.pt"))],
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


def test_the_loss_of_an_epoch_and_its_terms_are_means_over_the_iterations() -> None:
    loss = SpocoLoss(distance_weight=10.0)
    batches = iter([{"variance": 1.0, "distance": 2.0}, {"variance": 3.0, "distance": 2.5}] * 2)

    def step(engine: Engine, batch: object) -> None:
        loss.terms = {name: torch.tensor(value) for name, value in next(batches).items()}

    engine = Engine(step)
    EpochLoss(loss).attach(engine)
    for _ in range(2):  # the second epoch starts anew
        metrics = engine.run([0, 0]).metrics
        assert metrics == {"epoch_loss": 2.0 + 10 * 2.25, "terms/variance": 2.0, "terms/distance": 2.25}


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
