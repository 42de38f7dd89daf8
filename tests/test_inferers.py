"""Sliding windows over student and teacher."""

from pathlib import Path

import pytest
import torch
from torch import nn

from scripts.inferers import EmbeddingInferer


def test_without_teacher_the_students_embeddings_only() -> None:
    image = torch.rand(1, 1, 12, 20)
    assert torch.allclose(EmbeddingInferer((8, 8))(image, nn.Identity()), image, atol=1e-5)


def test_the_teachers_embeddings_follow(tmp_path: Path) -> None:
    teacher = nn.Conv2d(1, 1, 1)
    weights = {"weight": torch.full((1, 1, 1, 1), 2.0), "bias": torch.ones(1)}
    torch.save(weights, tmp_path / "teacher.pt")
    image = torch.rand(1, 1, 12, 20)
    inferer = EmbeddingInferer((8, 8), teacher=teacher, teacher_path=str(tmp_path / "teacher.pt"))
    with torch.no_grad():
        both = inferer(image, nn.Identity())
    assert both.shape == (1, 2, 12, 20)
    assert torch.allclose(both[:, 1:], 2 * image + 1, atol=1e-5)


def test_refuses_an_overlap_outside_of_0_to_1() -> None:
    with pytest.raises(ValueError, match=r"overlap must lie in \[0, 1\), got 1"):
        EmbeddingInferer((8, 8), overlap=1)


@pytest.mark.parametrize(("shape", "window"), [((30, 70), (24, 32)), ((32, 31), (32, 24)), ((5, 40), (8, 32))])
def test_the_window_shrinks_to_a_small_image(shape: tuple[int, int], window: tuple[int, int]) -> None:
    seen = set()

    def network(image: torch.Tensor) -> torch.Tensor:
        seen.add(tuple(image.shape[2:]))
        return image

    inferer = EmbeddingInferer((32, 32), divisor=(8, 8))
    assert inferer(torch.rand(1, 1, *shape), network).shape[2:] == shape
    assert seen == {window}
    inferer(torch.rand(1, 1, 40, 40), network)
    assert (32, 32) in seen  # the next image may be larger
