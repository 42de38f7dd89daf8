"""What an annotation says about each voxel."""

import torch

from scripts.losses.annotation import Annotation

BACKGROUND, IGNORE = 98, 99


def test_voxels_of_every_kind() -> None:
    labels = torch.tensor([[0, 7, 7, BACKGROUND, IGNORE, 70_000]])
    annotation = Annotation.of(labels, BACKGROUND, IGNORE)
    assert annotation.known.tolist() == [[True, True, True, True, False, True]]
    assert annotation.annotated.tolist() == [[False, True, True, False, False, True]]
    assert annotation.background.tolist() == [[False, False, False, True, False, False]]
    assert annotation.unlabeled.tolist() == [[True, False, False, False, False, False]]
    assert annotation.numbers[annotation.annotated].tolist() == [0, 0, 1]
    assert annotation.sizes.tolist() == [[2, 1]]


def test_each_image_numbers_its_own_objects() -> None:
    labels = torch.tensor([[7, 7, 0, 70_000], [0, 0, 0, 0], [9, 0, 7, 5]])
    annotation = Annotation.of(labels, None, None)
    assert annotation.sizes.tolist() == [[2, 1, 0], [0, 0, 0], [1, 1, 1]]
    assert annotation.numbers[annotation.annotated].tolist() == [0, 0, 1, 2, 1, 0]
    assert annotation.objects.tolist() == [2, 0, 3]
    assert annotation.sum_over_objects(torch.arange(6)).tolist() == [[1, 2, 0], [0, 0, 0], [5, 4, 3]]


def test_zero_may_be_painted_background() -> None:
    assert not Annotation.of(torch.tensor([[1, 0]]), 0, None).unlabeled.any()


def test_an_id_that_the_labels_cannot_hold_is_nowhere() -> None:
    annotation = Annotation.of(torch.tensor([[0, 1]], dtype=torch.int32), 2**40, 2**32 + 1)
    assert not annotation.background.any()
    assert annotation.known.all()
