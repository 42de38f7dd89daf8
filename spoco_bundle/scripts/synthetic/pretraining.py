"""Synthetic volumes as a data set: what the shipped weights are trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import Dataset, MetaTensor

from .images import random_sample


class SyntheticDataset(Dataset):
    """Volume number i is `random_sample(shape, first_seed + i)`, generated when asked for.

    Args:
        shape: of each volume.
        length: how many volumes there are.
        first_seed: of volume 0.
        background_label: id written where no object is: here, unlike in a user's annotation, that is known.
        transform: applied to each {"image": (1, *shape) float32, "label": (1, *shape) int32}.
    """

    def __init__(
        self,
        shape: Sequence[int],
        length: int,
        first_seed: int,
        background_label: int,
        transform: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        super().__init__(data=range(length), transform=transform)
        self.shape, self.first_seed, self.background_label = tuple(shape), first_seed, background_label

    def _transform(self, index: int) -> Any:
        image, labels = random_sample(self.shape, seed=self.first_seed + index)
        labels = np.where(labels == 0, self.background_label, labels).astype(np.int32)
        affine = torch.eye(len(self.shape) + 1)
        name = f"synthetic_{self.first_seed + index}"
        meta = {"spatial_shape": np.array(self.shape), "original_affine": affine, "filename_or_obj": name}
        sample = {
            "image": MetaTensor(torch.from_numpy(image.astype(np.float32))[None], affine=affine, meta=dict(meta)),
            "label": MetaTensor(torch.from_numpy(labels)[None], affine=affine, meta=dict(meta)),
        }
        return sample if self.transform is None else self.transform(sample)
