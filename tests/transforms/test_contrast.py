import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRangePercentiles

from scripts.transforms.contrast import ScaleContrastd


def scaled(image: torch.Tensor) -> torch.Tensor:
    return ScaleContrastd(keys="image")({"image": image})["image"]


def test_the_percentiles_become_0_and_1_and_what_is_beyond_is_cut_off() -> None:
    image = torch.arange(1001.0).reshape(1, 7, 11, 13)
    expected = ((image - 10) / (998 - 10)).clamp(0, 1)
    torch.testing.assert_close(scaled(image), expected)


def test_each_channel_is_scaled_by_itself() -> None:
    image = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0))
    both = scaled(torch.cat([image, 1000 + 50 * image]))
    torch.testing.assert_close(both[0], both[1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [40, 101])  # 64,000 and more than a million voxels
def test_an_image_with_contrast_is_scaled_as_by_monai(size: int) -> None:
    image = torch.randn(1, size, size, size, generator=torch.Generator().manual_seed(0))
    expected = ScaleIntensityRangePercentiles(1, 99.8, b_min=0, b_max=1, clip=True, channel_wise=True)(image)
    assert torch.equal(scaled(image), torch.as_tensor(expected))


def test_a_few_bright_voxels_on_an_empty_background_end_at_1() -> None:
    image = torch.full((1, 32, 32, 32), 7.0)
    image[0, 3:5, 3:5, 3:5] = 1015.0  # 8 of 32,768: the percentiles do not see them
    image[0, 4, 4, 4] = 511.0
    result = scaled(image)
    assert result.unique().tolist() == [0.0, 0.5, 1.0]


def test_a_channel_of_one_value_becomes_0() -> None:
    image = torch.stack([torch.full((8, 8), 5.0), torch.arange(64.0).reshape(8, 8)])
    assert not scaled(image)[0].any()


def test_metadata_and_integers_of_the_file_pass_through() -> None:
    affine = np.diag([3.0, 1.0, 1.0, 1.0])
    image = MetaTensor(torch.arange(64).reshape(1, 4, 4, 4).to(torch.int16), affine=affine, meta={"unit": "um"})
    result = scaled(image)
    assert isinstance(result, MetaTensor)
    assert result.meta["unit"] == "um"
    assert result.pixdim.tolist() == [3.0, 1.0, 1.0]
    assert result.dtype == torch.float32
