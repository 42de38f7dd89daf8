"""Positions in the embeddings: their values, and that nothing is lost on the way."""

from __future__ import annotations

import pytest
import torch

from scripts.network.positions import add_positions, add_positions_


class TestAddPositions:
    def test_the_dimensions_after_the_first_hold_the_position(self) -> None:
        result = add_positions(torch.zeros(1, 4, 3, 5), scale=0.5)
        assert result[0, 0].abs().max() == 0
        assert result[0, 1, :, 0].tolist() == [-0.5, 0, 0.5]
        assert result[0, 2, 0].tolist() == [-1, -0.5, 0, 0.5, 1]
        assert result[0, 3].abs().max() == 0

    def test_neighbours_are_one_scale_apart_in_3d(self) -> None:
        result = add_positions(torch.zeros(2, 4, 4, 4, 4), scale=0.25)
        assert (result[:, :, 1, 2, 3] - result[:, :, 1, 2, 2]).norm(dim=1).tolist() == [0.25, 0.25]

    def test_a_scale_of_0_adds_nothing(self) -> None:
        embeddings = torch.rand(1, 2, 3, 3)
        assert add_positions(embeddings, scale=0) is embeddings

    def test_refuses_embeddings_too_short_to_hold_it(self) -> None:
        with pytest.raises(ValueError, match="embedding_dim must exceed the 3 axes to hold positions, got 3"):
            add_positions(torch.zeros(1, 3, 2, 2, 2), scale=0.25)

    def test_the_embeddings_given_stay_as_they_are(self) -> None:
        embeddings = torch.zeros(1, 4, 3, 5)
        add_positions(embeddings, scale=0.5)
        assert embeddings.abs().max() == 0

    def test_unless_it_is_done_in_place(self) -> None:
        embeddings = torch.rand(1, 4, 2, 3, 4)
        expected = add_positions(embeddings, scale=0.25)
        assert add_positions_(embeddings, scale=0.25) is embeddings
        torch.testing.assert_close(embeddings, expected)

    def test_half_precision_would_round_positions(self) -> None:
        assert add_positions(torch.zeros(1, 3, 2, 2, dtype=torch.float16), scale=0.25).dtype == torch.float32

    def test_the_gradient_passes_through(self) -> None:
        embeddings = torch.rand(1, 4, 3, 5, requires_grad=True)
        add_positions(embeddings, scale=0.5).sum().backward()
        assert (embeddings.grad == 1).all()
