"""Patches that hold annotated objects."""

import numpy as np
import torch

from scripts.transforms.cropping import OBJECTS, FindObjectsd, RandCropAtObjectd


def labels_with(*boxes: tuple[int, int, int]) -> torch.Tensor:
    """A 64 x 64 map with squares (row, column, id) of 4 pixels."""
    labels = torch.zeros(1, 64, 64, dtype=torch.int32)
    for row, column, id_ in boxes:
        labels[0, row : row + 4, column : column + 4] = id_
    return labels


def patches(labels: torch.Tensor, count: int = 200, object_share: float = 0.9, **special: int) -> list[dict]:
    crop = RandCropAtObjectd(["image", "label"], "label", (16, 16), object_share)
    crop.set_random_state(0)
    data = FindObjectsd("label", **special)({"image": labels * 2.0, "label": labels})
    return [crop(data) for _ in range(count)]


def test_objects_are_found_by_their_ids() -> None:
    labels = labels_with((10, 20, 2**31 - 1), (50, 0, 70_000), (50, 8, 70_000), (5, 5, 9))
    found = FindObjectsd("label", background_label=9)({"label": labels})[OBJECTS]
    assert found == [
        (70_000, (slice(50, 54), slice(0, 12))),
        (2**31 - 1, (slice(10, 14), slice(20, 24))),
    ]


def test_a_patch_is_a_copy() -> None:
    labels = labels_with((10, 20, 1))
    for patch in patches(labels, count=3):
        assert OBJECTS not in patch
        patch["label"].zero_()
    assert labels.sum() == 16


def test_image_and_label_are_cropped_alike() -> None:
    for patch in patches(labels_with((10, 20, 1)), count=20):
        assert patch["image"].shape == patch["label"].shape == (1, 16, 16)
        assert torch.equal(patch["image"], patch["label"] * 2.0)


def test_every_patch_holds_an_object_when_asked_for() -> None:
    assert all(patch["label"].any() for patch in patches(labels_with((0, 0, 1), (60, 60, 2)), object_share=1.0))


def test_the_other_patches_lie_anywhere() -> None:
    """Of which hardly one holds an object in the corner."""
    share = np.mean([bool(patch["label"].any()) for patch in patches(labels_with((0, 0, 1)), object_share=0.25)])
    assert 0.15 < share < 0.35


def test_chances_grow_with_the_root_of_the_size() -> None:
    labels = labels_with((50, 50, 2))
    labels[0, :20, :40] = 1
    labels[0, 45:55, 40:60] = 2  # a quarter of it, so half the chance
    share = np.mean([bool((patch["label"] == 2).any()) for patch in patches(labels, object_share=1.0)])
    assert 0.23 < share < 0.43


def test_the_object_lies_anywhere_in_the_patch() -> None:
    rows = [patch["label"][0].nonzero()[:, 0].float().mean() for patch in patches(labels_with((30, 30, 1)))]
    rows = [float(row) for row in rows if row == row]
    assert min(rows) < 3
    assert max(rows) > 12
    assert np.std(rows) > 2


def test_special_labels_are_no_objects() -> None:
    labels = labels_with((50, 50, 1), (5, 5, 9), (5, 30, 8))
    drawn = patches(labels, object_share=1.0, background_label=9, ignore_label=8)
    assert all((patch["label"] == 1).any() for patch in drawn)


def test_an_image_without_objects_is_cropped_anywhere() -> None:
    """The rows, which have numbers of their own here, say where."""
    crop = RandCropAtObjectd(["image", "label"], "label", (16, 16))
    crop.set_random_state(0)
    data = FindObjectsd("label")({"image": torch.arange(64.0)[None, :, None].expand(1, 64, 64), "label": labels_with()})
    firsts = [crop(data)["image"][0, 0, 0].item() for _ in range(200)]
    assert min(firsts) < 5
    assert max(firsts) > 64 - 16 - 5


def test_a_patch_as_large_as_the_image_is_the_image() -> None:
    labels = labels_with((3, 3, 1))[:, :16, :16]
    assert torch.equal(patches(labels, count=1)[0]["label"], labels)
