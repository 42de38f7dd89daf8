"""The foreground that a training starts with: of each image found once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import torch
from ignite.engine import Engine
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.inferers import SimpleInferer
from monai.transforms import Compose, Lambda
from torch import nn
from torch.utils.data import get_worker_info

from scripts.network.foreground import SHARPNESS
from scripts.training.first_foreground import FIRST_FOREGROUND, AddFirstForegroundd, SegmentUncached


def as_read_from_a_file(entry: dict[str, float]) -> dict[str, MetaTensor]:
    value = entry["image"]
    return {"image": MetaTensor(torch.full((1, 2, 2), value), meta={"filename_or_obj": f"{value}.tif"})}


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

    def test_processes_that_load_data_segment_nothing(self) -> None:
        """Two epochs, of which each has processes of its own; a cache that has room for one of three images."""

        def infer(image: torch.Tensor, network: nn.Module) -> torch.Tensor:
            assert get_worker_info() is None
            return network(image)

        add = AddFirstForegroundd("image", self.network(), infer)
        data = [{"image": value} for value in (1.0, 2.0, 3.0)]
        transform = Compose([Lambda(as_read_from_a_file), add])
        dataset = CacheDataset(data, transform, cache_num=1, progress=False)
        SegmentUncached(dataset, transform)(Engine(lambda engine, batch: None))
        loader = DataLoader(dataset, batch_size=3, num_workers=2)
        for _ in range(2):
            (batch,) = loader
            assert torch.allclose(
                batch[FIRST_FOREGROUND][:, 0, 0, 0], torch.sigmoid(SHARPNESS * torch.tensor([1.0, 2.0, 3.0]))
            )
