"""Synthetic volumes as a data set."""

import torch

from scripts.synthetic.pretraining import SyntheticDataset


def test_volumes_depend_on_their_number_only() -> None:
    first, second = (SyntheticDataset((16, 16, 16), 10, 5, 1000) for _ in range(2))
    assert len(first) == 10
    assert torch.equal(first[3]["image"], second[3]["image"])
    assert not torch.equal(first[3]["image"], first[4]["image"])


def test_background_is_written_as_such_and_nothing_is_unlabelled() -> None:
    labels = [SyntheticDataset((32, 32), 8, 0, 1000)[number]["label"] for number in range(8)]
    assert all((label != 0).all() for label in labels)
    assert any((label == 1000).any() for label in labels)


def test_the_transform_is_applied() -> None:
    dataset = SyntheticDataset((16, 16), 1, 0, 1000, transform=lambda sample: sample["image"].shape)
    assert dataset[0] == (1, 16, 16)
