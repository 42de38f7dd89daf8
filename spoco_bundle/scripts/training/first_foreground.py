"""What the weights that a training starts from take for foreground, for the term of the loss that keeps near to it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping
from threading import Lock
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.config import KeysCollection
from monai.data import CacheDataset
from monai.inferers import Inferer
from monai.transforms import MapTransform
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from ..files.image_files import file_of
from ..network.foreground import foreground_logit
from ..tensors import plain_tensor

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
        device: where to run it; processes that load data take the CPU, and forget what they add when an epoch ends (see
            `SegmentUncached`).
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
        images = plain_tensor(image)[None].to(device)
        return foreground_logit(self.inferer(images, network), axis=1).float().sigmoid().cpu()


class SegmentUncached:
    """Handler that adds the first foreground of all images that a cache has no room for, before the first epoch.

    Each epoch has new processes that load data. They begin with what the main one keeps, which so is all they need.

    Args:
        dataset: whose images a training draws.
        transform: takes an entry of its data through `AddFirstForegroundd`, the one that the dataset has as well.
    """

    def __init__(self, dataset: CacheDataset, transform: Callable[[dict[str, Any]], object]) -> None:
        self.dataset, self.transform = dataset, transform

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        for entry in self.dataset.data[self.dataset.cache_num :]:
            self.transform(dict(entry))
