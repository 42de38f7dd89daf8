"""Where objects are: the first embedding dimension tells."""

from __future__ import annotations

import pytest
import torch

from scripts.network.foreground import SHARPNESS, THRESHOLD, foreground_logit, is_foreground


@pytest.mark.parametrize("axis", [0, 1])
def test_the_logit_is_the_first_embedding_dimension(axis: int) -> None:
    embeddings = torch.randn(3, 3, 5)
    torch.testing.assert_close(foreground_logit(embeddings, axis), SHARPNESS * embeddings.movedim(axis, 0)[0])


def test_what_is_likelier_than_the_threshold_is_foreground() -> None:
    logit = torch.logit(torch.tensor([THRESHOLD - 0.01, THRESHOLD + 0.01]))
    embeddings = torch.stack([logit / SHARPNESS, torch.zeros(2)])
    assert is_foreground(embeddings).tolist() == [False, True]
