"""The way back from the working grid to that of the file."""

import math

import pytest
import torch
from image_samples import image
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCropd, Flipd, MapTransform, Rotate90d, SpatialPadd

from scripts.transforms.resampling import ResampleToSpacingd
from scripts.transforms.restoring import RestoreGridd
from scripts.transforms.voxel_sizes import AssumeVoxelSized


def test_labels_return_to_the_grid_of_the_file() -> None:
    source = image((4, 8, 6), (2, 1, 1))
    working = ResampleToSpacingd("image", (2, 2, 2))({"image": source})["image"]
    restored = RestoreGridd("pred")({"image": working, "pred": torch.ones(1, 4, 4, 3, dtype=torch.int32)})["pred"]
    assert restored.shape == (1, 4, 8, 6)
    assert restored.dtype == torch.int32
    assert torch.equal(restored.affine, source.affine)


def test_an_image_that_no_file_holds_keeps_its_own_grid() -> None:
    affine = torch.diag(torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64))
    for spacing in ((2.0, 2.0), None):
        working = ResampleToSpacingd("image", spacing)({"image": MetaTensor(torch.rand(1, 4, 8), affine=affine)})[
            "image"
        ]
        pred = torch.ones(1, *working.shape[1:], dtype=torch.int32)
        restored = RestoreGridd("pred")({"image": working, "pred": pred})["pred"]
        assert restored.shape == (1, 4, 8)
        assert torch.equal(restored.affine, affine)


def test_small_instances_are_counted_on_the_grid_of_the_file() -> None:
    working = ResampleToSpacingd("image", (1, 2))({"image": image((1, 12), (1, 1))})["image"]
    data = {"image": working, "pred": torch.tensor([[[1, 0, 2, 2, 0, 3]]], dtype=torch.int32)}
    data["pred_scores"] = torch.tensor([0.1, 0.2, 0.3])
    restored = RestoreGridd("pred", min_size=3)(data)
    assert restored["pred"].flatten().tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    assert restored["pred_scores"].tolist() == pytest.approx([0.2])
    assert data["pred_scores"].shape == (3,)


def test_small_instances_of_a_class_are_dropped_and_the_others_keep_their_ids() -> None:
    working = ResampleToSpacingd("image", (1, 2))({"image": image((1, 8), (1, 1))})["image"]
    data = {"image": working, "pred": torch.tensor([[[24000, 0, 24001, 24001]]], dtype=torch.int32)}
    restored = RestoreGridd("pred", min_size=3, classes=[24])(data)["pred"]
    assert restored.flatten().tolist() == [0, 0, 0, 0, 24001, 24001, 24001, 24001]


@pytest.mark.parametrize(
    "moved",
    [
        Flipd("image", spatial_axis=1),
        Rotate90d("image"),
        CenterSpatialCropd("image", roi_size=(8, 10)),
        SpatialPadd("image", spatial_size=(8, 13), method="end"),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_an_image_that_lies_elsewhere_than_its_file_is_refused(moved: MapTransform) -> None:
    """Its map would not lie on what was seen."""
    data = ResampleToSpacingd("image", (2, 1.5))(moved({"image": image((8, 12), (1, 1))}))
    data["pred"] = torch.ones(1, *data["image"].shape[1:], dtype=torch.int32)
    with pytest.raises(ValueError, match=r"cells\.tif: found an image that was flipped, turned, cut or padded"):
        RestoreGridd("pred")(data)


def test_voxels_may_be_taken_to_be_longer_than_the_file_says() -> None:
    longer = AssumeVoxelSized("image", voxel_size=[3.0, 2.0], stated=[True, True])
    source = image((4, 8), (1, 1))
    source.meta["stated_voxel_size"] = [math.nan, math.nan]
    data = ResampleToSpacingd("image", (2, 2))(longer({"image": source}))
    assert data["image"].shape == (1, 6, 8)
    data["pred"] = torch.ones(1, 6, 8, dtype=torch.int32)
    assert RestoreGridd("pred")(data)["pred"].shape == (1, 4, 8)


class TestMask:
    """A mask of the file with borders where voxels of the working grid, twice as large, have none."""

    def restored(self, classes: list[int] | None) -> list[int]:
        file_mask = image((2, 10), (1, 1), torch.int64)
        file_mask[:] = torch.tensor([0, 24, 24, 24, 24, 26, 26, 26, 9, 0])
        data = {"image": image((2, 10), (1, 1)), "mask": file_mask, "file_mask": file_mask}
        data = ResampleToSpacingd(["image", "mask"], (1, 2), label_keys="mask")(data)
        inside = data["mask"] > 0 if classes is None else torch.isin(data["mask"], torch.tensor(classes))
        of_class = (data["mask"] == 26) & (classes is not None)
        data["pred"] = (inside * (1 + of_class)).to(torch.int32)
        restored = RestoreGridd("pred", classes=classes)(data)["pred"][0]
        assert torch.equal(restored[0], restored[1])
        return restored[0].tolist()

    def test_instances_lie_in_the_mask_of_the_file(self) -> None:
        assert self.restored(None) == [0, 1, 1, 1, 1, 1, 1, 1, 1, 0]

    def test_instances_lie_in_their_class(self) -> None:
        assert self.restored([24, 26]) == [0, 1, 1, 1, 1, 2, 2, 2, 0, 0]

    def test_no_instance_lies_in_a_class_that_is_not_asked_for(self) -> None:
        mask = image((1, 4), (1, 1), torch.int64)
        mask[:] = torch.tensor([24, 24, 9, 9])
        pred = torch.tensor([[[1, 1, 2, 2]]], dtype=torch.int32)
        data = {"image": image((1, 4), (1, 1)), "mask": mask, "file_mask": mask, "pred": pred}
        assert RestoreGridd("pred", classes=[24])(data)["pred"].flatten().tolist() == [1, 1, 0, 0]
