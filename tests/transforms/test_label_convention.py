"""Which voxels are objects, by hand."""

from __future__ import annotations

import pytest
import torch

from scripts.transforms.label_convention import annotated_ids, where_id


def test_ids_are_neither_unlabelled_nor_background_nor_ignored() -> None:
    assert annotated_ids(torch.tensor([0, 3, 3, 70000, 9, 1]), background_label=9, ignore_label=1).tolist() == [
        3,
        70000,
    ]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64])
def test_an_id_that_the_type_of_the_labels_cannot_hold_is_nowhere(dtype: torch.dtype) -> None:
    labels = torch.tensor([0, 1, 1], dtype=dtype)
    assert where_id(labels, 1).tolist() == [False, True, True]
    for id_ in (257, 2**32, 2**32 + 1, 2**40, -1, -255):  # some of which are 0 or 1 in fewer bits
        assert not where_id(labels, id_).any()
        assert len(annotated_ids(labels, background_label=id_, ignore_label=None)) == 1
    assert not where_id(labels, None).any()
