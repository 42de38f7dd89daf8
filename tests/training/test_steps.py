"""The SPOCO step inside MONAI's stock trainer."""

import pytest
import torch
from torch import nn

from scripts.losses import SpocoLoss
from scripts.training import steps
from scripts.training.steps import TeacherLoss, prepare_two_views


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
