"""The SPOCO training step as parts of MONAI's stock `SupervisedTrainer`.

The batch holds two photometric views of each patch, the student's and the teacher's. The trainer runs the student;
the teacher runs inside the loss, so that mixed precision, compilation and multi-GPU stay MONAI's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer
from monai.utils import convert_to_tensor
from torch import Tensor, nn

from ..losses.annotation import Annotation
from ..losses.spoco import SpocoLoss
from ..losses.triton_support import runs_triton
from ..network.positions import add_positions
from .cuda_graphs import Recorded
from .first_foreground import FIRST_FOREGROUND

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


class TeacherLoss(nn.Module):
    """Run the momentum network on the second view, then compare both with the annotation.

    Args:
        loss: the `SpocoLoss`.
        teacher: the momentum network (`momentum_copy`), never trained by gradient.
        position_scale: see `positions.add_positions`.
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
        means = self.recorded_comparison(*inputs, room=annotation.room, active=active)
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
        room: int,
        active: Sequence[str],
    ) -> Tensor:
        """Compare the two networks' embeddings.

        Args:
            student_embeddings, teacher_view, labels: (B, E, *spatial), (B, C, *spatial), (B, 1, *spatial).
            numbers, room: of the labels' `Annotation`.
            first_foreground: (B, 1, *spatial), where there is one.
            active: terms of the loss that have a weight, on which it depends what is computed.

        Returns:
            as `SpocoLoss.compare`.
        """
        student, teacher = self.embeddings(student_embeddings, teacher_view, active)
        special = self.loss.background_label, self.loss.ignore_label
        annotation = Annotation.of(labels[:, 0], *special, given_numbers=(numbers, room))
        return self.loss.compare(student, teacher, annotation, first_foreground)

    def embeddings(self, student: Tensor, teacher_view: Tensor, active: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Of student and teacher, with positions; the student's twice where nobody would look at the teacher's."""
        student = add_positions(student, self.position_scale)
        if "consistency" not in active:
            return student, student.detach()
        with torch.no_grad():
            return student, add_positions(self.inferer(teacher_view, self.teacher), self.position_scale)
