"""Patches without metadata: the same patches, and nothing else loses its metadata."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import CacheDataset, MetaTensor, get_track_meta
from monai.transforms import Compose, Flipd, Lambdad, RandFlipd, RandGaussianNoised, RandRotate90d, RandSpatialCropd

from scripts.transforms.plain_patches import ComposePlainPatches, RandTurnd, tilt_probability

TRANSFORMS = [
    Flipd("image", spatial_axis=0),
    RandSpatialCropd("image", roi_size=[4, 4], random_size=False),
    RandFlipd("image", prob=0.5, spatial_axis=1),
    RandGaussianNoised("image", prob=0.5),
]


def image() -> dict[str, Any]:
    return {"image": MetaTensor(torch.arange(64.0).view(1, 8, 8), affine=torch.eye(3)), "name": "a.tif"}


def patches(compose: type[Compose], cache_rate: float) -> list[dict[str, Any]]:
    transform = compose(TRANSFORMS).set_random_state(0)
    dataset = CacheDataset([image()], transform, cache_rate=cache_rate, progress=False)
    return [dataset[0] for _ in range(8)]


@pytest.mark.parametrize("cache_rate", [0.0, 1.0])
def test_the_patches_are_those_of_compose(cache_rate: float) -> None:
    for plain, usual in zip(patches(ComposePlainPatches, cache_rate), patches(Compose, cache_rate), strict=True):
        assert type(plain["image"]) is torch.Tensor
        assert torch.equal(plain["image"], usual["image"].as_tensor())
        assert plain["name"] == usual["name"]


@pytest.mark.parametrize(
    ("patch_size", "voxel_shape", "probability"),
    [
        ([32, 32, 32], [1.4, 1.0, 1.0], 0.5),
        ([32, 32, 32], [1.6, 1.0, 1.0], 0.0),
        ([16, 32, 32], [1.0, 1.0, 1.0], 0.0),
        ([32, 32], [1.0, 1.0], 0.0),
    ],
)
def test_only_cubes_of_equal_voxels_are_tilted(
    patch_size: list[int], voxel_shape: list[float], probability: float
) -> None:
    assert tilt_probability(patch_size, voxel_shape) == probability


@pytest.mark.parametrize("spatial_axes", [(-2, -1), (0, -1), (0, -2)])
def test_turns_are_those_of_monai(spatial_axes: tuple[int, int]) -> None:
    maps = {"image": torch.rand(1, 3, 4, 5), "label": torch.randint(9, (1, 3, 4, 5))}
    ours, monais = (
        turn(["image", "label"], prob=0.75, spatial_axes=spatial_axes).set_random_state(0)
        for turn in (RandTurnd, RandRotate90d)
    )
    for _ in range(16):
        turned, expected = ours(maps), monais(maps)
        for key in maps:
            assert type(turned[key]) is torch.Tensor
            assert torch.equal(turned[key], torch.as_tensor(expected[key]))


def test_what_comes_before_the_first_random_transform_keeps_its_metadata() -> None:
    assert isinstance(ComposePlainPatches(TRANSFORMS)(image(), end=1)["image"], MetaTensor)
    assert isinstance(ComposePlainPatches(TRANSFORMS[:1])(image())["image"], MetaTensor)


def test_a_compose_among_the_transforms_is_its_parts() -> None:
    """As one counts as random, its checks would see no grids, and nothing would be cached."""
    seen = []
    checks = Compose([Lambdad("image", lambda image: seen.append(type(image)) or image), *TRANSFORMS[:1]])
    transform = ComposePlainPatches([checks, *TRANSFORMS[1:]])
    dataset = CacheDataset([image()], transform, progress=False)
    assert type(dataset[0]["image"]) is type(dataset[0]["image"]) is torch.Tensor
    assert seen == [MetaTensor]


def test_the_rest_of_monai_goes_on_with_metadata() -> None:
    def refuse(_: Any) -> None:
        raise ValueError("no image is good enough")

    ComposePlainPatches(TRANSFORMS)(image())
    assert get_track_meta()
    with pytest.raises(RuntimeError):
        ComposePlainPatches([*TRANSFORMS, Lambdad("image", refuse)])(image())
    assert get_track_meta()
