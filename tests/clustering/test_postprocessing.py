"""Clustering as a dictionary transform."""

import pytest
import torch
from monai.data import MetaTensor

from scripts.clustering.postprocessing import CHOSEN_KEY, ClusterEmbeddingsd


def two_objects_on_background() -> torch.Tensor:
    """(2, 14, 18): channel 0 is the foreground, channel 1 tells the two objects, which touch, apart."""
    pred = torch.full((2, 14, 18), -1.0)
    pred[0, 4:10, 4:14] = 1.0
    pred[1, 4:10, 4:9], pred[1, 4:10, 9:14] = 3.0, -3.0
    return pred


def test_the_first_dimension_tells_where_objects_are() -> None:
    pred = two_objects_on_background()
    instances = ClusterEmbeddingsd("pred", embedding_dim=2, min_size=5)({"pred": pred})["pred"]
    assert instances.shape == (1, 14, 18)
    assert instances.dtype == torch.int32
    assert torch.equal(instances[0] > 0, pred[0] > 0)
    assert instances.max() == 2


def test_everywhere_leaves_no_voxel_out() -> None:
    cluster = ClusterEmbeddingsd("pred", embedding_dim=2, min_size=5, foreground="everywhere")
    instances = cluster({"pred": two_objects_on_background()})["pred"]
    assert (instances > 0).all()
    assert instances.max() == 3


class TestInsideAMask:
    """Two objects side by side in one region, whatever the foreground axis says."""

    def cluster(self, mask: torch.Tensor, **options: object) -> torch.Tensor:
        step = ClusterEmbeddingsd("pred", embedding_dim=2, min_size=5, **options)
        return step({"pred": two_objects_on_background(), "mask": mask[None]})["pred"][0]

    def test_instances_fill_the_mask(self) -> None:
        mask = torch.zeros(14, 18, dtype=torch.int32)
        mask[4:10, 2:16] = 255
        instances = self.cluster(mask)
        assert torch.equal(instances > 0, mask > 0)
        assert instances[5, 5] != instances[5, 12]

    def test_each_class_is_clustered_alone(self) -> None:
        mask = torch.zeros(14, 18, dtype=torch.int32)
        mask[4:7, 4:14], mask[7:10, 4:14], mask[10:, :] = 26, 24, 7
        instances = self.cluster(mask, classes=[24, 26])
        class_of = {id_: set(mask[instances == id_].tolist()) for id_ in instances.unique().tolist()}
        assert class_of == {0: {0, 7}, 1: {24}, 2: {24}, 3: {26}, 4: {26}}

    @pytest.mark.parametrize(
        ("value", "classes", "wanted"), [(13, [26], "one of the classes [26]"), (0, None, "anything")]
    )
    def test_a_mask_without_a_place_for_instances_is_told(
        self, value: int, classes: list[int] | None, wanted: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As one of Cityscapes' train ids instead of its label ids."""
        mask = torch.zeros(14, 18, dtype=torch.int32)
        mask[4:10, 2:16] = value
        assert self.cluster(mask, classes=classes).max() == 0
        (message,) = caplog.messages
        assert f"found the values {'0, 13' if value else '0'} in its mask, expected {wanted}" in message


def test_min_size_counts_voxels_of_the_file() -> None:
    pred = two_objects_on_background()  # objects of 30 voxels, each 4 voxels of the file
    meta_pred = MetaTensor(pred, meta={"spatial_shape": (28, 36)})
    assert ClusterEmbeddingsd("pred", 2, min_size=100)({"pred": meta_pred})["pred"].max() == 2
    assert ClusterEmbeddingsd("pred", 2, min_size=130)({"pred": meta_pred})["pred"].max() == 0
    assert ClusterEmbeddingsd("pred", 2, min_size=100)({"pred": pred})["pred"].max() == 0


def test_without_min_size_voxels_of_the_working_grid_count() -> None:
    pred = two_objects_on_background()  # objects of 30 voxels
    coarse, original = torch.diag(torch.tensor([2.0, 2.0, 1.0])), torch.eye(3)
    for image in (pred, MetaTensor(pred, affine=coarse, meta={"original_affine": original})):
        for smallest, count in ((28.5, 2), (31.5, 0)):
            cluster = ClusterEmbeddingsd("pred", 2, min_size=0, smallest_instance=smallest)
            assert cluster({"pred": image})["pred"].max() == count


def test_small_instances_that_were_not_drawn_together_are_dropped() -> None:
    pred = torch.cat(
        [
            two_objects_on_background()[:1],
            0.25 * torch.stack(torch.meshgrid(torch.arange(14.0), torch.arange(18.0), indexing="ij")),
        ]
    )
    # an object of 60 pixels, as far apart in the embedding as in the image
    options = {"embedding_dim": 3, "min_size": 10}
    assert ClusterEmbeddingsd("pred", **options)({"pred": pred})["pred"].max() == 1
    assert ClusterEmbeddingsd("pred", **options, position_scale=0.25)({"pred": pred})["pred"].max() == 0
    everywhere = ClusterEmbeddingsd("pred", **options, position_scale=0.25, foreground="everywhere")
    assert (everywhere({"pred": pred})["pred"] > 0).all()


class TestScores:
    def pred(self) -> torch.Tensor:
        """The two objects again, the second one with embeddings that drift from -1 to 1."""
        pred = two_objects_on_background()
        pred[1, 4:10, 9:14] += torch.linspace(-1, 1, 6)[:, None]
        return pred

    def test_each_instance_has_one(self) -> None:
        result = ClusterEmbeddingsd("pred", embedding_dim=2, min_size=5)({"pred": self.pred()})
        sure, unsure = (result["pred"][0, 5, x].item() - 1 for x in (5, 12))
        assert result["pred_scores"].shape == (2,)
        assert result["pred_scores"][sure] > 0.9
        assert result["pred_scores"][unsure] == pytest.approx(0.75, abs=0.01)  # mean of 2^-d^2, d = 0.2, 0.6, 1

    def test_those_below_min_score_are_dropped(self) -> None:
        cluster = ClusterEmbeddingsd("pred", embedding_dim=2, min_size=5, min_score=0.8)
        result = cluster({"pred": self.pred()})
        assert result["pred"][0, 5, 5] == result["pred"].max() == 1
        assert result["pred"][0, 5, 12] == 0
        assert result["pred_scores"].shape == (1,)

    def test_nothing_found_nothing_scored(self) -> None:
        result = ClusterEmbeddingsd("pred", embedding_dim=2)({"pred": torch.full((2, 6, 6), -1.0)})
        assert result["pred"].max() == 0
        assert result["pred_scores"].shape == (0,)


@pytest.mark.parametrize(("is_blank", "count"), [(True, 0), (torch.tensor(True), 0), (torch.tensor(False), 1)])
def test_where_nothing_is_to_be_seen_there_is_no_instance(
    is_blank: bool | torch.Tensor, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = ClusterEmbeddingsd("pred", embedding_dim=8, foreground="everywhere")
    pred = MetaTensor(torch.zeros(8, 6, 6, 6), meta={"filename_or_obj": "a.tif"})
    result = cluster({"pred": pred, "is_blank": is_blank})
    assert result["pred"].max() == count
    assert caplog.messages == ([] if count else ["a.tif: found one value everywhere, and so no instances"])
    assert result["pred_scores"].shape == (count,)


def test_the_teachers_embeddings_follow_the_students() -> None:
    pred = two_objects_on_background()
    cluster = ClusterEmbeddingsd("pred", embedding_dim=2, method="consistency", min_size=5)
    agreeing, silent = torch.cat([pred, pred]), torch.cat([pred, torch.zeros_like(pred)])
    assert cluster({"pred": agreeing})["pred"].max() == 2
    assert cluster({"pred": silent})["pred"].max() == 0


def test_a_refusal_names_the_image() -> None:
    pred = MetaTensor(torch.full((2, 6, 6), torch.nan), meta={"filename_or_obj": "a.tif"})
    with pytest.raises(ValueError, match=r"^a\.tif: embeddings must be finite, got 72 NaN or infinite values$"):
        ClusterEmbeddingsd("pred", embedding_dim=2)({"pred": pred})


def test_refuses_unknown_choices() -> None:
    with pytest.raises(ValueError, match="method must be one of auto, .* got 'kmeans'"):
        ClusterEmbeddingsd("pred", 2, method="kmeans")
    with pytest.raises(ValueError, match="foreground must be one of .* got 'otsu'"):
        ClusterEmbeddingsd("pred", 2, foreground="otsu")
    with pytest.raises(ValueError, match=r"min_score must lie in \[0, 1\], got 50"):
        ClusterEmbeddingsd("pred", 2, min_score=50)
    for share in (2, -0.1, float("nan"), "a"):
        with pytest.raises(ValueError, match=r"foreground_threshold must lie in \[0, 1\], got"):
            ClusterEmbeddingsd("pred", 2, foreground_threshold=share)
    with pytest.raises(ValueError, match="min_size must not be negative, got -1"):
        ClusterEmbeddingsd("pred", 2, min_size=-1)
    for threshold in (0, -1, float("nan"), "high"):
        with pytest.raises(ValueError, match="merge_threshold must be a positive number"):
            ClusterEmbeddingsd("pred", 2, merge_threshold=threshold)


def test_thresholds_in_the_data_count() -> None:
    pred = two_objects_on_background()
    cluster = ClusterEmbeddingsd("pred", embedding_dim=2, min_size=5)
    assert cluster({"pred": pred})["pred"].max() == 2
    assert cluster({"pred": pred, CHOSEN_KEY: {"foreground_threshold": 1.0, "merge_threshold": 2.0}})["pred"].max() == 0
    assert cluster({"pred": pred, CHOSEN_KEY: {"foreground_threshold": 0.0, "merge_threshold": 1e6}})["pred"].max() == 1
