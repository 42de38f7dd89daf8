"""Whether Triton's kernels can be used: GPU programs that do in one launch what takes PyTorch dozens.

PyTorch for Linux brings Triton along. Where it is missing, or cannot compile (it needs a C compiler), the loss is
computed with PyTorch's own operations, as on a CPU, to the same result.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

from .pairwise import HingeAndKernel

logger = logging.getLogger(__name__)


def runs_triton(tensor: Tensor) -> bool:
    """Whether kernels run where this tensor lies."""
    return tensor.device.type == "cuda" and kernels_work(tensor.device)


@lru_cache
def kernels_work(device: torch.device) -> bool:
    """Whether Triton is installed, and can compile for a device."""
    if find_spec("triton") is None:
        return False
    from .triton_anchors import walk_on_gpu
    from .triton_borders import border_term_on_gpu
    from .triton_objects import distances_to_own, sums_of_objects
    from .triton_pairs import pairwise_sums_on_gpu

    try:
        with torch.enable_grad():
            zeros, ones = torch.zeros(1, 1, 1, device=device, requires_grad=True), torch.ones(1, 2, 1, device=device)
            number = torch.zeros(1, 1, dtype=torch.int32, device=device)
            means = sums_of_objects(zeros, number, 1)
            sums = pairwise_sums_on_gpu(zeros, means, number == 0, ones, HingeAndKernel(1.0, 1.0))
            borders = border_term_on_gpu(zeros, number, number == 0, number == 0, 1, 1.0, 1.0)
            (sums.sum() + distances_to_own(zeros, means, number).sum() + borders.sum()).backward()
            walk_on_gpu(zeros.detach(), number.long(), number == 0, 1.0, 1)
    except Exception as error:  # a compiler fails in many ways, and none of them may end a training
        logger.warning("%s: Triton does not work here, so the loss takes longer: %s", device, error)
        return False
    return True
