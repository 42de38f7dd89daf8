"""What the weights that a training starts from take for foreground: worth keeping, where they know one.

Few annotated objects say little about what an object is, and the positive-unlabelled term (see `foreground`) assumes
that they are a fair sample. If one image has all its objects annotated and another one of sixty, the term is content
with the first kind; and with few images it learns the annotated objects by heart and takes all others for background.
So a training that starts from weights with a foreground of their own keeps near to it, voxel by voxel, where nothing is
annotated, as learning without forgetting does with whole classes (Li and Hoiem, ECCV 2016).
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from threading import Lock
from typing import Any

import torch
from monai.config import KeysCollection
from monai.inferers import Inferer
from monai.transforms import MapTransform
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import get_worker_info

from ..files.image_files import file_of
from ..geometry.tensors import plain_tensor
from ..network.foreground import foreground_logit

FIRST_FOREGROUND = "first_foreground"
# Threads that fill a cache come here at once: an inferer knows one window size at a time, and memory has an end.
ONE_AT_A_TIME = Lock()


class AddFirstForegroundd(MapTransform):
    """Add the foreground probability (1, *spatial) that a network sees now, also if it is trained later.

    It is kept for each file: an image that a cache has no room for is read again for each patch, but not segmented.

    Args:
        keys: the image (C, *spatial), as the network takes it; of one file always the same.
        network: of which a copy is kept.
        inferer: how to run it on a whole image.
        device: where to run it; processes that load data take the CPU.
    """

    def __init__(
        self, keys: KeysCollection, network: nn.Module, inferer: Inferer, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(keys)
        self.network = copy.deepcopy(network).requires_grad_(False).eval().cpu()
        self.inferer, self.device = inferer, device
        self.probabilities: dict[str, Tensor] = {}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            file = file_of(result[key])
            with ONE_AT_A_TIME:
                probability = self.probabilities.get(file)
                if probability is None:
                    probability = self._segment(result[key])
                if file:
                    self.probabilities[file] = probability
            result[FIRST_FOREGROUND] = probability
        return result

    @torch.no_grad()
    def _segment(self, image: Any) -> Tensor:
        device = torch.device("cpu" if get_worker_info() else self.device)
        network = self.network if device.type == "cpu" else copy.deepcopy(self.network).to(device)
        images = plain_tensor(torch.as_tensor(image))[None].to(device)
        return foreground_logit(self.inferer(images, network), axis=1).float().sigmoid().cpu()


def keeping_term(logit: Tensor, first: Tensor, unlabeled: Tensor) -> Tensor:
    """Mean cross-entropy of the foreground to the first one where nothing is annotated.

    Args:
        logit, first, unlabeled: (..., N) logit now, probability at first, voxels that count (bool).

    Returns:
        (...); 0 without such a voxel.
    """
    entropy = binary_cross_entropy_with_logits(logit, first, reduction="none")
    return (entropy * unlabeled).sum(-1) / unlabeled.sum(-1).clamp_min(1)
