"""The foreground that a training starts with: how it is kept, and what keeping it asks for."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer
from torch import nn

from scripts.losses import SpocoLoss
from scripts.losses.first_foreground import FIRST_FOREGROUND, AddFirstForegroundd, keeping_term
from scripts.network.foreground import SHARPNESS


class TestKeepingTerm:
    def test_by_hand(self) -> None:
        logit = torch.tensor([0.0, 2.0, -5.0])
        first, unlabeled = torch.tensor([0.5, 1.0, 1.0]), torch.tensor([True, True, False])
        expected = (math.log(2) + math.log(1 + math.exp(-2))) / 2
        assert keeping_term(logit, first, unlabeled).item() == pytest.approx(expected)

    def test_it_is_least_where_nothing_has_changed(self) -> None:
        first, everything = torch.tensor([0.1, 0.6, 0.9]), torch.ones(3, dtype=torch.bool)
        logit = torch.logit(first).requires_grad_()
        keeping_term(logit, first, everything).backward()
        assert logit.grad.abs().max() < 1e-6

    def test_nothing_unlabelled_is_nothing_to_keep(self) -> None:
        assert keeping_term(torch.ones(2, 3), torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool)).tolist() == [0, 0]


class TestLoss:
    STUDENT = torch.zeros(1, 4, 2, 2)
    LABELS = torch.tensor([[[[0, 0], [7, 7]]]])

    def terms(self, first: torch.Tensor | None, weight: float = 1.0) -> dict[str, torch.Tensor]:
        loss = SpocoLoss(first_foreground_weight=weight)
        loss(self.STUDENT, self.STUDENT, self.LABELS, first)
        return loss.terms

    def test_only_unlabelled_voxels_count(self) -> None:
        one = self.terms(torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]]))["first_foreground"]
        other = self.terms(torch.tensor([[[[1.0, 1.0], [1.0, 1.0]]]]))["first_foreground"]
        assert one.item() == other.item() == pytest.approx(math.log(2))

    def test_without_a_first_foreground_or_a_weight_there_is_no_such_term(self) -> None:
        assert "first_foreground" not in self.terms(None)
        assert "first_foreground" not in self.terms(torch.ones(1, 1, 2, 2), weight=0)


class TestAdd:
    def network(self) -> nn.Conv2d:
        network = nn.Conv2d(1, 3, 1)
        nn.init.ones_(network.weight)
        nn.init.zeros_(network.bias)
        return network

    def test_threads_take_turns(self) -> None:
        """A cache is filled by threads, and an inferer that looks at two images at once mixes up their windows."""
        inside, together = 0, []

        def infer(image: torch.Tensor, network: nn.Module) -> torch.Tensor:
            nonlocal inside
            inside += 1
            together.append(inside)
            time.sleep(0.01)
            inside -= 1
            return network(image)

        add = AddFirstForegroundd("image", self.network(), infer)
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(add, [{"image": torch.zeros(1, 4, 4)}] * 8))
        assert together == [1] * 8

    def test_an_image_is_segmented_once(self) -> None:
        """A cache may have no room for it, and it is read again for each patch."""
        segmented = []

        def infer(image: torch.Tensor, network: nn.Module) -> torch.Tensor:
            segmented.append(image)
            return network(image)

        add = AddFirstForegroundd("image", self.network(), infer)
        images = [
            MetaTensor(torch.full((1, 2, 2), value), meta={"filename_or_obj": f"{value}.tif"}) for value in (1.0, 2.0)
        ]
        once, again = ([add({"image": image})[FIRST_FOREGROUND] for image in images] for _ in range(2))
        assert len(segmented) == 2
        assert all(torch.equal(first, second) for first, second in zip(once, again, strict=True))
        assert not torch.equal(*once)

    def test_the_probability_of_each_voxel(self) -> None:
        image = torch.tensor([[[-1.0, 0.0, 0.5]]])
        data = AddFirstForegroundd("image", self.network(), SimpleInferer())({"image": image})
        assert torch.allclose(data[FIRST_FOREGROUND], torch.sigmoid(SHARPNESS * image))

    def test_training_the_network_changes_nothing(self) -> None:
        network = self.network()
        add = AddFirstForegroundd("image", network, SimpleInferer())
        before = add({"image": torch.ones(1, 4, 4)})[FIRST_FOREGROUND]
        nn.init.constant_(network.weight, -3.0)
        assert torch.equal(add({"image": torch.ones(1, 4, 4)})[FIRST_FOREGROUND], before)
        assert not before.requires_grad
