"""Embeddings averaged over mirror images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_configs import parser
from torch import Tensor

from scripts.network.dynunet import embedding_network
from scripts.network.flips import flipped_axes, mean_over_flips
from scripts.network.inferers import EmbeddingInferer


def to_the_right(images: Tensor) -> Tensor:
    """Of a row: as dimension 0 the pixel on its right, as dimension 1 by how much that is brighter."""
    right = images.roll(-1, -1)
    return torch.cat([right, right - images], 1)


class TestMean:
    def test_the_mean_of_two_views_by_hand(self) -> None:
        """Of 1, 2, 4 the right neighbours are 2, 4, 1; of 4, 2, 1 they are 2, 1, 4, mirrored back 4, 1, 2."""
        mean = mean_over_flips(to_the_right, torch.tensor([[[1.0, 2.0, 4.0]]]), axes=[0], has_displacements=False)
        assert mean.tolist() == [[[3.0, 2.5, 1.5], [(1 + 3) / 2, (2 - 1) / 2, (-3 - 2) / 2]]]

    def test_displacements_point_the_other_way_in_a_mirror_image(self) -> None:
        mean = mean_over_flips(to_the_right, torch.tensor([[[1.0, 2.0, 4.0]]]), axes=[0], has_displacements=True)
        assert mean.tolist() == [[[3.0, 2.5, 1.5], [(1 - 3) / 2, (2 + 1) / 2, (-3 + 2) / 2]]]

    def test_without_axes_there_is_one_view(self) -> None:
        images = torch.rand(1, 1, 4, 5)
        assert torch.equal(mean_over_flips(to_the_right, images, axes=[], has_displacements=True), to_the_right(images))

    @pytest.mark.parametrize("axes", [[0], [2], [0, 2], [0, 1, 2]])
    @pytest.mark.parametrize("has_displacements", [False, True])
    def test_mirror_images_get_mirrored_embeddings(self, axes: list[int], has_displacements: bool) -> None:
        """Whatever the network: that is what the mean is for."""
        torch.manual_seed(0)
        network = torch.nn.Conv3d(1, 5, 3, padding=1)
        images = torch.rand(2, 1, 4, 5, 6)
        for axis in axes:
            with torch.no_grad():
                embeddings, mirrored = (
                    mean_over_flips(network, views, axes, has_displacements)
                    for views in (images, images.flip(2 + axis))
                )
            expected = embeddings.flip(2 + axis)
            if has_displacements:
                expected[:, 1 + axis] *= -1
            torch.testing.assert_close(mirrored, expected)

    def test_half_precision_is_summed_up_in_single_precision(self) -> None:
        assert mean_over_flips(torch.Tensor.half, torch.rand(1, 1, 4, 4), [0, 1], False).dtype == torch.float32


class TestWhatIsFlipped:
    @pytest.mark.parametrize(("dims", "all_axes", "without_y"), [(2, [0, 1], [1]), (3, [0, 1, 2], [0, 2])])
    def test_what_the_training_flipped(self, dims: int, all_axes: list[int], without_y: list[int]) -> None:
        assert flipped_axes(True, dims, upside_down=0.5) == all_axes
        assert flipped_axes(True, dims, upside_down=0.0) == without_y
        assert flipped_axes(False, dims, upside_down=0.5) == []

    @pytest.mark.parametrize("names", [("inference.json",), ("train.json", "evaluate.json")], ids="+".join)
    def test_the_training_says_whether(self, names: tuple[str, ...], tmp_path: Path) -> None:
        settings = {"spatial_dims": 3, "flips": True, "upside_down": 0}
        (tmp_path / "model.json").write_text(json.dumps(settings))

        def used(**ids: Any) -> list[int]:
            config = parser(*names, ckpt_dir=str(tmp_path), **ids)
            return config.get_parsed_content("inferer" if len(names) == 1 else "validate#inferer").flipped_axes

        assert used() == [0, 2]
        assert used(flips=False) == []

    @pytest.mark.parametrize("names", [("inference.json",), ("train.json", "evaluate.json")], ids="+".join)
    @pytest.mark.parametrize(("foreground", "flips"), [("estimated", True), ("everywhere", False)])
    def test_else_whether_there_is_a_background(
        self, names: tuple[str, ...], foreground: str, flips: bool, tmp_path: Path
    ) -> None:
        assert parser(*names, ckpt_dir=str(tmp_path), foreground=foreground).get_parsed_content("flips") is flips
        assert parser("train.json", foreground=foreground).get_parsed_content("flips") is flips


@pytest.mark.parametrize("roi_size", [0, 16])
def test_an_image_in_windows(roi_size: int) -> None:
    """Of 19 voxels, continued to a multiple of the strides: at the other end in each view."""
    torch.manual_seed(0)
    network = embedding_network(3, 1, 8, [8, 16, 32]).eval()
    images = torch.rand(1, 1, 19, 24, 20)
    options = {"divisor": [4, 4, 4], "position_scale": 0.25, "mode": "gaussian"}
    with torch.no_grad():
        found = EmbeddingInferer(roi_size, flipped_axes=[0, 1, 2], **options)(images, network)
        whole = EmbeddingInferer([32] * 3, **options)
        mirrored = whole(images.flip(2), network).flip(2)
        mirrored[:, 1] *= -1
        assert found.shape == mirrored.shape
        views = EmbeddingInferer(roi_size, flipped_axes=[0], **options)(images, network)
        torch.testing.assert_close(views, (whole(images, network) + mirrored) / 2, atol=1e-4, rtol=1e-4)
