"""The parts of a training are put together right: what each one is given, and what the whole then does."""

from __future__ import annotations

import copy
import inspect
import re
from pathlib import Path
from pydoc import locate

import numpy as np
import pytest
import torch
from bundle_configs import BUNDLE, components, parser, read
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose

from scripts.clustering.methods import METHODS
from scripts.run.options import RULES
from scripts.synthetic.images import synthetic_nuclei
from scripts.training.first_foreground import FIRST_FOREGROUND
from scripts.transforms.cropping import FindObjectsd

VIEWS = ("image", "teacher_image")
CONFIGURATIONS = [
    ("train.json",),
    ("train.json", "2d.json"),
    ("train.json", "cityscapes.json"),
    ("train.json", "multi_gpu_train.json"),
    ("train.json", "pretrain.json"),
    ("train.json", "evaluate.json"),
    ("inference.json",),
    ("inference.json", "next_objects.json"),
]
# What a part could be given and is not, and why
NOT_GIVEN = {
    ("CheckLabelsd", "background_label"),  # of a mask, which has classes
    ("CheckLabelsd", "ignore_label"),
    ("EmbeddingInferer", "teacher"),  # only for `consistency`
    ("EmbeddingInferer", "flipped_axes"),  # what looks at images before a training
    ("InstanceMetricsHandler", "classes"),  # the best weights are chosen by all
    ("PictureHandler", "event_writer"),  # an evaluation has no curves
    ("RestoreGridd", "min_size"),  # of regions that are no instances
    ("prepare_two_views", "device"),  # the trainer gives it
}

# Ids that a config has for an overlay, next_objects.json, which checks them
CHECKED_LATER = {"inference.json": {"labels", "background_label", "ignore_label"}}
DERIVED = {"spatial_dims", "working_spacing"}  # from 2d.json and from spacing, which users give


@pytest.mark.parametrize("name", ["train.json", "inference.json", "evaluate.json"])
def test_each_option_that_has_a_rule_is_checked(name: str) -> None:
    config = read(name)
    checked = {option for group in config["options"].values() for option in group}
    assert (config.keys() & RULES.keys()) - checked == CHECKED_LATER.get(name, set())


def test_each_option_that_has_a_rule_is_documented() -> None:
    documented = re.findall(r"`(\w+)`", (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8"))
    assert RULES.keys() - documented == DERIVED


def test_a_client_of_monai_label_may_choose_each_method_of_clustering() -> None:
    assert read("inference.json")["displayable_configs"]["clustering"] == list(METHODS)


def test_several_processes_initialize_all_that_one_does_in_its_order() -> None:
    one, several = (read(name)["initialize"] for name in ("train.json", "multi_gpu_train.json"))
    assert [step for step in several if step in one] == one


@pytest.mark.parametrize("names", CONFIGURATIONS, ids="+".join)
def test_each_part_is_given_all_options_that_it_knows(names: tuple[str, ...]) -> None:
    """An id that a part takes under the same name, and is not given, would change nothing there."""
    config = parser(*names).get()
    for part in components(config):
        if part["_target_"].startswith("scripts."):
            name = part["_target_"].rpartition(".")[2]
            for option in inspect.signature(locate(part["_target_"])).parameters:
                given = option not in config or option in part or (name, option) in NOT_GIVEN
                assert given, f"{name} is not given {option}"


def shortened(folder: Path, **ids: object) -> ConfigParser:
    """The training with a small network on small patches, two epochs of three steps."""
    paths = {"dataset_dir": str(folder), "ckpt_dir": str(folder / "weights"), "output_dir": str(folder / "output")}
    tiny = {"patch_size": [16, 16, 16], "filters": [8, 16, 32], "pretrained": "null", "spacing": "image"}
    length = {"epochs": 2, "iterations_per_epoch": 3, "val_interval": 9, "device": "cpu"}
    return parser("train.json", **paths, **tiny, **length, **ids)


def weights_of(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


class TestTraining:
    def test_the_teacher_follows_the_student_and_stays_behind(self, dataset: Path, clean_process: None) -> None:
        config = shortened(dataset)
        config.get_parsed_content("initialize")
        student, teacher = config.get_parsed_content("network"), config.get_parsed_content("teacher")
        start = weights_of(student)
        assert torch.equal(weights_of(teacher), start)
        config.get_parsed_content("train#trainer").run()
        student_moved = (weights_of(student) - start).norm()
        teacher_moved = (weights_of(teacher) - start).norm()
        assert 0 < teacher_moved < student_moved

    def test_an_epoch_draws_as_many_patches_as_it_is_said_to_have(self, dataset: Path, clean_process: None) -> None:
        config = shortened(dataset, batch_size=4)
        config.get_parsed_content("initialize")
        loader = config.get_parsed_content("train#dataloader")
        assert len(loader) == 3
        assert [len(batch["image"]) for batch in loader] == [4, 4, 4]

    def test_processes_draw_other_patches(self) -> None:
        """Of one seed."""
        handlers = parser("train.json")["train#handlers"]
        (seed,) = (part["seed"] for part in handlers if part["_target_"].endswith("SeedEachEpoch"))
        drawn = {rank: parser("train.json", seed=3, rank=rank, one=seed).get_parsed_content("one") for rank in (0, 1)}
        assert drawn[0] == 3
        assert drawn[1] != 3

    @pytest.mark.parametrize(
        "handler",
        [
            "KeepFreedMemory",
            "SegmentUncached",
            "GradientGuard",
            "MovingAverage",
            "LrScheduleHandler",
            "EventWriterHandler",
        ],
    )
    def test_its_handlers(self, handler: str) -> None:
        targets = [part["_target_"].rpartition(".")[2] for part in parser("train.json")["train#handlers"]]
        assert targets.count(handler) == 1

    def test_thresholds_are_shared_before_the_best_weights_are_written_with_them(self) -> None:
        handlers = parser("train.json")["validate#handlers"]
        assert handlers.index("@calibration") < handlers.index("@best_weights")


class TestViews:
    """A patch of an image that equals its label map, as the training turns, flips and changes it."""

    def patches(self, *lists: str) -> list[dict[str, torch.Tensor]]:
        ids = {"patch_size": [16, 16, 16], "first_foreground_weight": 1.0, "objects_voxel_shape": [1.0] * 3}
        config = parser("train.json", **ids)
        steps = [step for name in lists for step in config.get_parsed_content(f"train#{name}")]
        labels = torch.from_numpy(synthetic_nuclei((24, 28, 32), 12, seed=0)[1].astype(np.int32))[None]
        image = MetaTensor(labels.float() / labels.max())
        data = FindObjectsd("label")({"image": image, "label": MetaTensor(labels), FIRST_FOREGROUND: image.clone()})
        drawn = []
        for seed in range(20):
            patch = Compose(copy.deepcopy(steps)).set_random_state(seed)(dict(data))
            patch["label"] = patch["label"].float() / labels.max()
            drawn.append({name: torch.as_tensor(patch[name]) for name in (*VIEWS, "label", FIRST_FOREGROUND)})
        return drawn

    def test_geometry_moves_image_labels_and_first_foreground_alike(self) -> None:
        patches = self.patches("shared_geometry")
        for patch in patches:
            for name in (*VIEWS, FIRST_FOREGROUND):
                assert torch.equal(patch[name], patch["label"])
        assert len({tuple(patch["label"].flatten().tolist()) for patch in patches}) > 10

    @pytest.mark.parametrize(("part", "changed", "unchanged"), [("student", 0, 1), ("teacher", 1, 0)])
    def test_photometry_changes_one_view_alone(self, part: str, changed: int, unchanged: int) -> None:
        patches = self.patches("shared_geometry", f"{part}_photometry")
        assert sum(not torch.equal(patch[VIEWS[changed]], patch["label"]) for patch in patches) > 10
        assert all(torch.equal(patch[VIEWS[unchanged]], patch["label"]) for patch in patches)

    def test_the_training_changes_both_views_each_in_its_own_way(self, dataset: Path, clean_process: None) -> None:
        config = shortened(dataset)
        config.get_parsed_content("initialize")
        patches = [config.get_parsed_content("train#dataset")[0] for _ in range(10)]
        assert sum(not torch.equal(patch["image"], patch["teacher_image"]) for patch in patches) > 8
