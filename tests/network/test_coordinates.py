"""Coordinate channels: their values, and that they tell differences of position, not places."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor

from scripts.network.coordinates import (
    AddCoordinatesd,
    add_positions,
    add_positions_,
    coordinate_channels,
    input_channels,
)


def phase_differences(channels: Tensor, axis: int, step: int) -> Tensor:
    """Cosine of the phase between places `step` apart along an axis, from its sine and cosine channel."""
    sine, cosine = channels[2 * axis], channels[2 * axis + 1]
    size = sine.shape[axis] - step
    here, there = (wave.narrow(axis, 0, size) for wave in (sine, cosine)), (step, size)
    return sum(wave * other.narrow(axis, *there) for wave, other in zip(here, (sine, cosine), strict=True))


class TestByHand:
    def test_one_axis(self) -> None:
        sine, cosine = coordinate_channels((5,), period=4, offset=(0,))
        torch.testing.assert_close(sine, torch.tensor([0.0, 1.0, 0.0, -1.0, 0.0]), atol=1e-6, rtol=0)
        torch.testing.assert_close(cosine, torch.tensor([1.0, 0.0, -1.0, 0.0, 1.0]), atol=1e-6, rtol=0)

    def test_offset_is_in_voxels(self) -> None:
        sine, cosine = coordinate_channels((2,), period=8, offset=(1,))
        torch.testing.assert_close(sine, torch.tensor([math.sqrt(0.5), 1.0]))
        torch.testing.assert_close(cosine, torch.tensor([math.sqrt(0.5), 0.0]), atol=1e-6, rtol=0)

    def test_axes_in_order_sine_before_cosine(self) -> None:
        channels = coordinate_channels((2, 3), period=4, offset=(0, 0))
        assert channels.shape == (4, 2, 3)
        assert channels.dtype == torch.float32
        assert channels[:, 1, 2].round().tolist() == [1, 0, 0, -1]  # y = 1: (1, 0), x = 2: (0, -1)
        assert (channels[0] == channels[0, :, :1]).all()  # the wave along y is the same at each x

    def test_a_window_continues_the_volume(self) -> None:
        volume = coordinate_channels((20, 30), period=11, offset=(0, 0))
        window = coordinate_channels((6, 7), period=11, offset=(5, 13))
        torch.testing.assert_close(window, volume[:, 5:11, 13:20])

    @pytest.mark.parametrize(
        ("channels", "spatial_dims", "period", "expected"),
        [(1, 3, 32, 7), (2, 2, 32, 6), (1, 3, None, 1), (3, 2, 0, 3)],
    )
    def test_input_channels(self, channels: int, spatial_dims: int, period: float | None, expected: int) -> None:
        assert input_channels(channels, spatial_dims, period) == expected


class TestTransform:
    @pytest.mark.parametrize("spatial", [(6, 8), (4, 6, 8)])
    def test_channels_come_after_the_image(self, spatial: tuple[int, ...]) -> None:
        image = torch.rand(2, *spatial)
        result = AddCoordinatesd("image", period=5)({"image": image})["image"]
        assert len(result) == input_channels(2, len(spatial), 5)
        assert torch.equal(result[:2], image)
        assert torch.equal(result[2:], coordinate_channels(spatial, 5, [0] * len(spatial)))

    def test_the_same_ones_for_every_key(self) -> None:
        data = {"student": torch.rand(1, 6, 8), "teacher": torch.rand(1, 6, 8), "label": torch.ones(1, 6, 8)}
        result = AddCoordinatesd(["student", "teacher"], period=5, random_offset=True)(data)
        assert torch.equal(result["student"][1:], result["teacher"][1:])
        assert torch.equal(result["teacher"][:1], data["teacher"])
        assert result["label"] is data["label"]

    def test_the_input_is_left_as_it_is(self) -> None:
        data = {"image": torch.rand(1, 6, 8)}
        AddCoordinatesd("image", period=5)(data)
        assert data["image"].shape == (1, 6, 8)

    def test_inference_always_starts_at_zero(self) -> None:
        transform, data = AddCoordinatesd("image", period=5), {"image": torch.rand(1, 6, 8)}
        assert torch.equal(transform(data)["image"], transform(data)["image"])

    def test_training_shifts_the_waves(self) -> None:
        transform, data = (
            AddCoordinatesd("image", period=5, random_offset=True),
            {"image": torch.rand(1, 6, 8)},
        )
        transform.set_random_state(0)
        first, second = transform(data)["image"], transform(data)["image"]
        assert not torch.allclose(first[1:], second[1:])
        transform.set_random_state(0)
        assert torch.equal(transform(data)["image"], first)

    def test_compose_seeds_it(self) -> None:
        data = {"image": torch.rand(1, 6, 8)}
        pipelines = [Compose([AddCoordinatesd("image", 5, random_offset=True)]) for _ in range(2)]
        first, second = (pipeline.set_random_state(7)(data)["image"] for pipeline in pipelines)
        assert torch.equal(first, second)

    def test_differences_of_position_survive_the_shift(self) -> None:
        transform = AddCoordinatesd("image", period=7, random_offset=True)
        transform.set_random_state(0)
        for _ in range(5):
            channels = transform({"image": torch.rand(1, 9, 10)})["image"][1:]
            for axis in (0, 1):
                expected = torch.tensor(math.cos(2 * math.pi * 3 / 7))
                difference = phase_differences(channels, axis, step=3)
                torch.testing.assert_close(difference, expected.expand_as(difference), atol=1e-5, rtol=0)

    def test_offsets_cover_the_period_on_each_axis(self) -> None:
        transform = AddCoordinatesd("image", period=7, random_offset=True)
        transform.set_random_state(0)
        offsets = np.array([transform.draw_offset(2) for _ in range(500)])
        assert offsets.min() >= 0
        assert offsets.max() < 7
        assert np.abs(offsets.mean(0) - 3.5).max() < 0.4
        assert abs(np.corrcoef(offsets.T)[0, 1]) < 0.2

    @pytest.mark.parametrize("period", [None, 0])
    def test_no_period_leaves_images_untouched(self, period: float | None) -> None:
        data = {"image": torch.rand(1, 6, 8)}
        assert AddCoordinatesd("image", period, random_offset=True)(data)["image"] is data["image"]

    def test_meta_is_kept(self) -> None:
        affine = np.diag([2.0, 0.5, 0.5, 1.0])
        image = MetaTensor(torch.rand(1, 4, 6, 8), affine=affine, meta={"filename_or_obj": "a.tif"})
        image.applied_operations = [{"class": "SomethingBefore"}]
        result = AddCoordinatesd("image", period=5)({"image": image})["image"]
        assert isinstance(result, MetaTensor)
        assert result.meta["filename_or_obj"] == "a.tif"
        np.testing.assert_array_equal(result.affine, affine)
        assert result.applied_operations == [{"class": "SomethingBefore"}]

    def test_arrays_become_tensors(self) -> None:
        result = AddCoordinatesd("image", period=5)({"image": np.ones((1, 6, 8), np.float32)})["image"]
        assert isinstance(result, Tensor)
        assert result.dtype == torch.float32


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
