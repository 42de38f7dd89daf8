"""The SPOCO training step as parts of MONAI's stock `SupervisedTrainer`.

The batch holds two photometric views of each patch, the student's and the teacher's. The trainer runs the student;
the teacher runs inside the loss, so that mixed precision, compilation and multi-GPU stay MONAI's business.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers.ema_handler import EMAWarmUp
from ignite.metrics import Average
from ignite.metrics.metric import EpochWise, MetricUsage
from monai.engines import IterationEvents, SupervisedTrainer, Trainer
from monai.inferers import Inferer, SimpleInferer
from monai.utils import convert_to_tensor
from torch import Tensor, nn

from ..files.whole_files import whole_file, write_tensors
from ..losses.first_foreground import FIRST_FOREGROUND
from ..losses.spoco import SpocoLoss
from ..losses.triton_support import runs_triton
from ..network.coordinates import add_positions
from ..refusals import InputError
from .cuda_graphs import Recorded

STUDENT_VIEW, TEACHER_VIEW, LABEL = "image", "teacher_image", "label"
TENSORS = (STUDENT_VIEW, TEACHER_VIEW, LABEL, FIRST_FOREGROUND)  # of a batch, the last one not always
RECORDED_VOXELS = 2**21  # one patch of 128^3; a network's backward pass keeps more of each than the loss does


def prepare_two_views(
    batch: Mapping[str, Tensor],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **to: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """MONAI's `prepare_batch`: the student's input, and what the loss needs besides its output."""
    moved = {
        key: convert_to_tensor(batch[key]).to(device=device, non_blocking=non_blocking, **to)
        for key in TENSORS
        if key in batch
    }
    return moved.pop(STUDENT_VIEW), moved


def momentum_copy(network: nn.Module) -> nn.Module:
    """The momentum network at the start of a training: the same weights, in evaluation mode, without gradient."""
    return copy.deepcopy(network).requires_grad_(False).eval()


class MovingAverage:
    """Handler that moves the teacher's weights towards the student's after each training step.

    Ignite's `EMAHandler` makes the averaged network itself, where the configs cannot name it, counts its warm-up from
    zero in a resumed training, and moves one weight after the other: on a GPU two kernels for each of them.

    Args:
        student, teacher: two networks of one architecture.
        momentum: share of the student's weights that enters the teacher in each step.
        momentum_warmup, warmup_iters: the share falls linearly from `momentum_warmup` over `warmup_iters` steps, as the
            first weights are not worth remembering.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        momentum: float = 0.001,
        momentum_warmup: float = 0.02,
        warmup_iters: int = 1,
    ) -> None:
        self.student, self.teacher = student, teacher
        self.warm_up = EMAWarmUp(momentum_warmup, warmup_iters, momentum)

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        share = self.warm_up(engine.state.iteration)
        moved: list[Tensor] = list(self.teacher.parameters())
        towards: list[Tensor] = list(self.student.parameters())
        torch._foreach_mul_(moved, 1 - share)
        torch._foreach_add_(moved, towards, alpha=share)
        for buffer, newest in zip(self.teacher.buffers(), self.student.buffers(), strict=True):
            buffer.copy_(newest)  # such as the statistics of a BatchNorm, which are averages already


class TeacherLoss(nn.Module):
    """Run the momentum network on the second view, then compare both with the annotation.

    Args:
        loss: the `SpocoLoss`.
        teacher: the momentum network (`momentum_copy`), never trained by gradient.
        position_scale: see `coordinates.add_positions`.
        inferer: how to run the teacher; as the trainer runs the student.
        cuda_graphs: record what a GPU does, see `cuda_graphs`.
    """

    def __init__(
        self,
        loss: SpocoLoss,
        teacher: nn.Module,
        position_scale: float = 0.0,
        inferer: Inferer | None = None,
        cuda_graphs: bool = False,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.comparison = _Comparison(loss, teacher, position_scale, inferer or SimpleInferer())
        self.recorded_comparison = Recorded(self.comparison, RECORDED_VOXELS)
        self.cuda_graphs = cuda_graphs and type(loss).forward is SpocoLoss.forward  # not for a loss of one's own

    def forward(self, student_embeddings: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """(B, E, *spatial), {teacher view (B, C, *spatial), label (B, 1, *spatial), ...} -> scalar."""
        active = tuple(name for name, weight in self.loss.weights.items() if weight)
        view = target[TEACHER_VIEW] if "consistency" in active else student_embeddings.detach()  # nobody looks at it
        first = [target[FIRST_FOREGROUND]] if FIRST_FOREGROUND in target else []
        # without kernels the GPU is asked for numbers again and again, which cannot be recorded
        if not (self.cuda_graphs and runs_triton(student_embeddings)):
            return self.loss(*self.comparison.embeddings(student_embeddings, view, active), target[LABEL], *first)
        annotation = self.loss.read(target[LABEL], student_embeddings.shape)
        inputs = student_embeddings, view, target[LABEL], annotation.numbers, *first
        means = self.recorded_comparison(*inputs, most=annotation.most, active=active)
        return self.loss.weigh(means, bool(first))


class _Comparison(nn.Module):
    """The part of `TeacherLoss` that a GPU does without being asked how many voxels or objects there are."""

    def __init__(self, loss: SpocoLoss, teacher: nn.Module, position_scale: float, inferer: Inferer) -> None:
        super().__init__()
        self.loss, self.teacher = loss, teacher
        self.position_scale, self.inferer = position_scale, inferer

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_view: Tensor,
        labels: Tensor,
        numbers: Tensor,
        first_foreground: Tensor | None = None,
        *,
        most: int,
        active: Sequence[str],
    ) -> Tensor:
        """Compare the two networks' embeddings.

        Args:
            student_embeddings, teacher_view, labels: (B, E, *spatial), (B, C, *spatial), (B, 1, *spatial).
            numbers, most: of the labels' `Annotation`.
            first_foreground: (B, 1, *spatial), where there is one.
            active: terms of the loss that have a weight, on which it depends what is computed.

        Returns:
            as `SpocoLoss.compare`.
        """
        student, teacher = self.embeddings(student_embeddings, teacher_view, active)
        return self.loss.compare(student, teacher, labels, first_foreground, given_numbers=(numbers, most))

    def embeddings(self, student: Tensor, teacher_view: Tensor, active: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Of student and teacher, with positions; the student's twice where nobody would look at the teacher's."""
        student = add_positions(student, self.position_scale)
        if "consistency" not in active:
            return student, student.detach()
        with torch.no_grad():
            return student, add_positions(self.inferer(teacher_view, self.teacher), self.position_scale)


class StopAtNan:
    """Handler that ends the training at a loss or gradient that is no finite number, before it reaches the weights.

    In mixed precision the gradient is left to the trainer's scaler, which skips such steps.

    Args:
        path: gets the batch that led to it, for inspection by `torch.load`.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._check_loss)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._check_gradient)

    def _check_loss(self, engine: Trainer) -> None:
        self._check(engine, "loss", engine.state.output["loss"].detach())

    def _check_gradient(self, engine: SupervisedTrainer) -> None:
        if not engine.amp:
            gradients = [p.grad for p in engine.network.parameters() if p.grad is not None]
            self._check(engine, "gradient's norm", nn.utils.get_total_norm(gradients))

    def _check(self, engine: Trainer, name: str, value: Tensor) -> None:
        if bool(torch.isfinite(value)):
            return
        batch = {key: torch.as_tensor(engine.state.batch[key]).cpu() for key in TENSORS if key in engine.state.batch}
        with whole_file(self.path) as temporary:
            write_tensors(temporary, batch)
        raise InputError(
            f"{self.path}: holds the batch of iteration {engine.state.iteration}, whose {name} was found to be "
            f"{float(value)}, expected a finite number; the weights are those of the iteration before."
        )


class GradientClipping:
    """Handler that clips the gradient's norm before each step: one odd patch must not undo the training.

    Args:
        optimizer: whose parameters to clip.
        max_norm: the largest norm that is left alone.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, max_norm: float) -> None:
        self.optimizer, self.max_norm = optimizer, max_norm

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Trainer) -> None:
        if engine.amp and engine.scaler is not None:
            engine.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, self.max_norm)


class EpochLoss(Average):
    """Trainer handler: the loss and each of its terms, as means over an epoch and over all processes.

    An Ignite metric that brings its names along: `epoch_loss` and `terms/NAME` in `engine.state.metrics`, from where
    any logger takes them that comes after it.

    Args:
        loss: whose `terms` to average.
        device: where they are summed up; the network's, so that no step waits for a transfer.
    """

    def __init__(self, loss: SpocoLoss, device: torch.device | str = "cpu") -> None:
        super().__init__(lambda output: torch.stack(list(loss.terms.values())), device)
        self.loss = loss

    def attach(self, engine: Engine, name: str = "epoch_loss", usage: str | MetricUsage = EpochWise.usage_name) -> None:
        """Register with a trainer."""
        super().attach(engine, name, usage)

    def completed(self, engine: Engine, name: str) -> None:
        """Put the means of an epoch in `engine.state.metrics`."""
        means = dict(zip(self.loss.terms, self.compute().tolist(), strict=True))
        engine.state.metrics[name] = sum(self.loss.weights[term] * mean for term, mean in means.items())
        engine.state.metrics.update({f"terms/{term}": mean for term, mean in means.items()})
