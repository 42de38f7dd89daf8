"""Sliding windows over student and teacher."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

from scripts.network import features
from scripts.network.dynunet import embedding_network
from scripts.network.inferers import EmbeddingInferer, fitting_window, largest_window


class Watched(nn.Module):
    """Returns what it is given, and remembers its shape."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(tuple(image.shape[2:]))
        return image


class TestTeacher:
    def test_without_teacher_the_students_embeddings_only(self) -> None:
        image = torch.rand(1, 1, 12, 20)
        assert torch.allclose(EmbeddingInferer((8, 8))(image, nn.Identity()), image, atol=1e-5)

    def test_the_teachers_embeddings_follow(self, tmp_path: Path) -> None:
        teacher = nn.Conv2d(1, 1, 1)
        weights = {"weight": torch.full((1, 1, 1, 1), 2.0), "bias": torch.ones(1)}
        torch.save(weights, tmp_path / "teacher.pt")
        image = torch.rand(1, 1, 12, 20)
        inferer = EmbeddingInferer((8, 8), teacher=teacher, teacher_path=str(tmp_path / "teacher.pt"))
        with torch.no_grad():
            both = inferer(image, nn.Identity())
        assert both.shape == (1, 2, 12, 20)
        assert torch.allclose(both[:, 1:], 2 * image + 1, atol=1e-5)

    @torch.no_grad()
    def test_the_teachers_weights_are_read_once(self, tmp_path: Path) -> None:
        path = tmp_path / "teacher.pt"
        torch.save(nn.Conv2d(1, 1, 1).state_dict(), path)
        image = torch.rand(1, 1, 8, 8)
        inferer = EmbeddingInferer((8, 8), teacher=nn.Conv2d(1, 1, 1), teacher_path=str(path))
        first = inferer(image, nn.Identity())
        path.unlink()
        assert torch.equal(inferer(image, nn.Identity()), first)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_positions_are_not_rounded_to_half_precision(dtype: torch.dtype) -> None:
    image = torch.zeros(1, 3, 4, 2000, dtype=dtype)
    along_x = EmbeddingInferer((8, 2048), position_scale=0.25)(image, nn.Identity())[0, 2, 0]
    assert torch.equal(along_x.diff(), torch.full((1999,), 0.25))


class TestFittingWindow:
    @pytest.mark.parametrize(
        ("length", "overlap", "expected"),
        [
            (32, 0.0, 32),
            (31, 0.0, 32),  # one voxel is missing
            (5, 0.5, 8),
            (33, 0.0, 24),  # two windows of 17 would do, the next multiple of 8 is 24
            (41, 0.5, 32),  # two of 24 would reach only 36
            (48, 0.5, 32),  # two, the second from 16 on
            (64, 0.0, 32),
            (65, 0.0, 24),  # three of 22
        ],
    )
    def test_by_hand(self, length: int, overlap: float, expected: int) -> None:
        assert fitting_window(length, largest=32, overlap=overlap, step=8) == expected

    @pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.7])
    def test_as_few_windows_as_of_the_largest(self, overlap: float) -> None:
        for length in range(1, 300):
            count = {}
            for window in (64, fitting_window(length, 64, overlap, 8)):
                network = Watched()
                SlidingWindowInferer((window,) * 2, overlap=overlap)(torch.zeros(1, 1, length, 1), network)
                count[window] = len(network.seen)
            assert len(set(count.values())) == 1, (length, count)


class TestLargestWindow:
    @pytest.mark.parametrize(
        ("shape", "voxels", "expected"),
        [
            ((8, 16), 128, [8, 16]),  # the image itself
            ((7, 13), 128, [8, 16]),  # and what is missing to the next multiple
            ((8, 40), 128, [8, 16]),  # 8 * 24 is too much
            ((40, 40), 800, [24, 32]),  # of two that are equally long the first becomes shorter
        ],
    )
    def test_by_hand(self, shape: tuple[int, ...], voxels: int, expected: list[int]) -> None:
        assert largest_window(shape, [8, 8], voxels) == expected

    def test_never_less_than_the_network_can_take(self) -> None:
        assert largest_window((1, 300, 300), [4, 8, 8], voxels=1) == [4, 8, 8]


class TestWindows:
    @pytest.mark.parametrize(
        ("shape", "window"),
        [((30, 70), (32, 32)), ((32, 31), (32, 32)), ((5, 40), (8, 24)), ((1, 9), (8, 16)), ((40, 20), (24, 24))],
    )
    def test_they_fit_the_image(self, shape: tuple[int, int], window: tuple[int, int]) -> None:
        inferer, network, image = EmbeddingInferer((32, 32), divisor=(8, 8)), Watched(), torch.rand(1, 1, *shape)
        torch.testing.assert_close(inferer(image, network), image)
        assert set(network.seen) == {window}
        network.seen.clear()
        inferer(torch.rand(1, 1, 64, 64), network)
        assert set(network.seen) == {(32, 32)}  # the next image may be larger

    @pytest.mark.parametrize("shape", [(30, 70), (40, 40), (64, 8), (1, 200)])
    def test_without_a_size_they_are_as_large_as_allowed(self, shape: tuple[int, int]) -> None:
        inferer, network, image = (
            EmbeddingInferer(0, divisor=(8, 8), window_voxels=1024),
            Watched(),
            torch.rand(1, 1, *shape),
        )
        torch.testing.assert_close(inferer(image, network), image)
        assert {height * width <= 1024 for height, width in network.seen} == {True}
        assert set(network.seen) == {tuple(inferer.roi_size)}
        assert (len(network.seen) == 1) == (shape == (64, 8))

    @pytest.mark.parametrize("number", [16, 16.0])
    def test_one_number_for_all_axes(self, number: float) -> None:
        network = Watched()
        EmbeddingInferer(number, divisor=(8, 8))(torch.rand(1, 1, 64, 64), network)
        assert set(network.seen) == {(16, 16)}

    def test_an_image_that_fits_is_seen_once(self) -> None:
        network = Watched()
        EmbeddingInferer((32, 32), overlap=0.5, divisor=(8, 8))(torch.rand(1, 1, 29, 32), network)
        assert network.seen == [(32, 32)]

    def test_a_small_image_is_continued_by_its_outermost_voxels(self) -> None:
        seen = []
        image = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3)
        EmbeddingInferer((8, 8), divisor=(1, 4))(image, lambda window: seen.append(window) or window)
        assert seen[0].flatten().tolist() == [1.0, 2.0, 3.0, 3.0]

    @pytest.mark.parametrize("shape", [(1, 40, 24), (9, 17, 33), (3, 3, 3), (50, 20), (1, 1)])
    def test_any_shape_passes_through_the_real_network(self, shape: tuple[int, ...]) -> None:
        network = embedding_network(len(shape), 1, 5, filters=(8, 8, 16)).eval()
        inferer = EmbeddingInferer([16] * len(shape), divisor=[4] * len(shape), mode="gaussian", position_scale=0.25)
        with torch.no_grad():
            embeddings = inferer(torch.rand(1, 1, *shape), network)
        assert embeddings.shape == (1, 5, *shape)
        assert torch.isfinite(embeddings).all()

    def test_metadata_stay(self) -> None:
        image = MetaTensor(torch.rand(1, 1, 20, 13), meta={"filename_or_obj": "a.tif"})
        embeddings = EmbeddingInferer((16, 16), divisor=(8, 8))(image, nn.Identity())
        assert embeddings.meta["filename_or_obj"] == "a.tif"

    def test_callables_that_are_no_module(self) -> None:
        image = torch.rand(1, 1, 20, 20)
        torch.testing.assert_close(EmbeddingInferer((8, 8))(image, lambda window: 2 * window), 2 * image)


class Small(nn.Module):
    """A network for whose larger windows there is not enough memory."""

    def __init__(self, voxels: int, error: Exception | None = None) -> None:
        super().__init__()
        self.voxels = voxels
        self.error = error or torch.OutOfMemoryError("CUDA out of memory.")
        self.refused: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        if image[0, 0].numel() > self.voxels:
            self.refused.append(tuple(image.shape[2:]))
            raise self.error
        return 2 * image


class TestTooLittleMemory:
    image = torch.rand(1, 1, 1024, 600)

    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory."),
            RuntimeError("MPS backend out of memory (MPS allocated: 9.57 GiB, max allowed: 27.20 GiB)."),
        ],
    )
    def test_windows_are_halved_until_they_fit(self, error: RuntimeError) -> None:
        network = Small(120_000, error)
        embeddings = EmbeddingInferer(0, divisor=[8, 8])(self.image, network)
        assert torch.allclose(embeddings, 2 * self.image)
        # seen at once, put together on the device and on the host; then in windows of 307,200 pixels, and 153,600
        assert network.refused == [(1024, 600), (1024, 600), (416, 344)]

    def test_windows_of_a_given_size_stay(self) -> None:
        network = Small(300_000)
        with pytest.raises(torch.OutOfMemoryError):
            EmbeddingInferer([1024, 600])(self.image, network)
        assert network.refused == [(1024, 600), (1024, 600)]

    @pytest.mark.parametrize("device", [None, "cpu"])
    def test_at_first_the_embeddings_lie_where_the_inferer_was_told_to(
        self, device: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        devices = []

        def stitch(self: SlidingWindowInferer, image: Tensor, network: nn.Module, device: str | None) -> Tensor:
            devices.append(device)
            return network(image)

        monkeypatch.setattr(SlidingWindowInferer, "__call__", stitch)
        EmbeddingInferer(0, divisor=[8, 8], device=device)(self.image, nn.Identity())
        assert devices == [device]

    def test_another_error_is_none_of_memory(self) -> None:
        network = Small(0, RuntimeError("CUDA error: an illegal memory access was encountered"))
        with pytest.raises(RuntimeError, match="illegal memory access"):
            EmbeddingInferer(0, divisor=[8, 8])(self.image, network)
        assert len(network.refused) == 1

    def test_there_is_an_end(self) -> None:
        with pytest.raises(torch.OutOfMemoryError):
            EmbeddingInferer(0, divisor=[8, 8])(self.image, Small(0))


class Doubled(nn.Module):
    """A network with a layer that cannot be computed in windows."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(2 * image)


class TestWindowsAgree:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = embedding_network(2, 1, 8, filters=(8, 8, 16)).eval()
        half_empty = torch.rand(1, 1, 32, 66) * (torch.arange(66) < 32)

    def inferer(self, size: int = 16, **others: Any) -> EmbeddingInferer:
        return EmbeddingInferer((size, size), divisor=(4, 4), mode="gaussian", **others)

    @torch.no_grad()
    @pytest.mark.parametrize("size", [4, 16, 28])
    def test_with_the_image_seen_at_once(self, size: int) -> None:
        at_once = self.inferer(128)(self.half_empty, self.network)
        windowed = self.inferer(size)(self.half_empty, self.network)
        torch.testing.assert_close(windowed, at_once, atol=1e-4, rtol=1e-4)

    @torch.no_grad()
    def test_so_do_automatic_ones(self) -> None:
        at_once = EmbeddingInferer(0, divisor=(4, 4))(self.half_empty, self.network)
        windowed = EmbeddingInferer(0, divisor=(4, 4), window_voxels=2000)(self.half_empty, self.network)
        torch.testing.assert_close(windowed, at_once, atol=1e-4, rtol=1e-4)

    @torch.no_grad()
    @pytest.mark.parametrize("size", [0, 256])
    def test_however_the_weights_are_stored(self, size: int) -> None:
        """PyTorch's GroupNorm of a large image differs, see `group_norm`."""
        image = torch.rand(1, 1, 1024, 1024) * (torch.arange(1024) < 700)
        expected = EmbeddingInferer(0, divisor=(4, 4))(image, self.network)
        network = copy.deepcopy(self.network).to(memory_format=torch.channels_last)
        assert (network(image) - expected).abs().max() > 1e-3
        found = EmbeddingInferer(size, divisor=(4, 4))(image, network)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

    @torch.no_grad()
    @pytest.mark.parametrize(
        ("windows", "kept"),
        [
            ({"roi_size": 0, "window_voxels": 32 * 68 // 2}, True),
            ({"roi_size": 0, "window_voxels": 32 * 68 // 2 - 1}, False),  # an image of more than two windows
            ({"roi_size": 16, "window_voxels": 32 * 68}, False),  # who gives a size wants little memory
        ],
    )
    def test_all_convolutions_are_kept_where_that_takes_no_more_memory_than_one_window_may(
        self, windows: dict[str, int], kept: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given: list[bool] = []

        def image_features(image: Tensor, window: Any, store: Any, keep_all: bool) -> features.Features:
            given.append(keep_all)
            return features.image_features(image, window, store, keep_all)

        monkeypatch.setattr("scripts.network.inferers.image_features", image_features)
        found = EmbeddingInferer(divisor=(4, 4), **windows)(self.half_empty, self.network)
        assert given == [kept]
        at_once = EmbeddingInferer(0, divisor=(4, 4))(self.half_empty, self.network)
        torch.testing.assert_close(found, at_once, atol=1e-4, rtol=1e-4)

    @torch.no_grad()
    def test_which_those_of_monai_do_not(self) -> None:
        at_once = self.inferer(128)(self.half_empty, self.network)
        windowed = SlidingWindowInferer((16, 16), overlap=0.25, mode="gaussian")(self.half_empty, self.network)
        assert (windowed - at_once).abs().max() > 0.1

    @torch.no_grad()
    def test_images_of_a_batch_do_not_share_their_statistics(self) -> None:
        images = torch.cat([self.half_empty, 5 * torch.rand(1, 1, 32, 66)])
        windowed = self.inferer()(images, self.network)
        torch.testing.assert_close(windowed, self.inferer(128)(images, self.network), atol=1e-4, rtol=1e-4)

    @torch.no_grad()
    def test_the_teachers_too(self) -> None:
        both = self.inferer(teacher=self.network)(self.half_empty, self.network)
        torch.testing.assert_close(both[:, 8:], both[:, :8])

    @torch.no_grad()
    def test_metadata_and_positions_are_those_of_any_image(self) -> None:
        image = MetaTensor(self.half_empty, meta={"filename_or_obj": "a.tif"})
        windowed = self.inferer(position_scale=0.25)(image, self.network)
        at_once = self.inferer(128, position_scale=0.25)(image, self.network)
        assert windowed.meta["filename_or_obj"] == "a.tif"
        torch.testing.assert_close(windowed, at_once, atol=1e-4, rtol=1e-4)

    @torch.no_grad()
    def test_an_unknown_layer_sees_single_windows(self, caplog: pytest.LogCaptureFixture) -> None:
        windowed = EmbeddingInferer((16, 16))(self.half_empty, Doubled())
        expected = SlidingWindowInferer((16, 16), overlap=0.25)(self.half_empty, Doubled())
        assert windowed.shape == expected.shape
        assert "Doubled: windows see and normalize only themselves" in caplog.text


class TestRefused:
    @pytest.mark.parametrize("overlap", [1, -0.1, 1.5, float("nan"), "0.5", None, [0.5, 0.5]])
    def test_overlaps(self, overlap: Any) -> None:
        with pytest.raises(ValueError, match=r"overlap must be a number in \[0, 1\), got") as refusal:
            EmbeddingInferer((8, 8), overlap=overlap)
        assert str(refusal.value).endswith(repr(overlap))

    @pytest.mark.parametrize("roi_size", [[64, 64], [64] * 4, [], None])
    def test_windows_with_another_number_of_axes(self, roi_size: Any) -> None:
        with pytest.raises(ValueError, match=r"roi_size must have 3 entries, one an axis, got") as refusal:
            EmbeddingInferer(roi_size, divisor=[8, 8, 8])
        assert str(refusal.value).endswith(repr(roi_size))

    @pytest.mark.parametrize("size", [0, -1, 4, 60, 64.0, "64"])
    def test_windows_that_the_network_cannot_take(self, size: Any) -> None:
        with pytest.raises(
            ValueError, match=r"roi_size must hold multiples of \[4, 8, 8\], at least one, got"
        ) as refusal:
            EmbeddingInferer([64, size, 64], divisor=[4, 8, 8])
        assert str(refusal.value).endswith(str([64, size, 64]))

    @pytest.mark.parametrize("roi_size", [0, 64])
    def test_a_number_without_the_number_of_axes(self, roi_size: int) -> None:
        with pytest.raises(ValueError, match=rf"divisor must be given where .* got roi_size {roi_size}$"):
            EmbeddingInferer(roi_size)

    def test_a_number_that_the_network_cannot_take(self) -> None:
        with pytest.raises(
            ValueError, match=r"roi_size must hold multiples of \[4, 8, 8\], at least one, got \[60, 60, 60\]"
        ):
            EmbeddingInferer(60, divisor=[4, 8, 8])
