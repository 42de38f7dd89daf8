"""The bundle as MONAI and its model zoo see it: configs, metadata and weights that fit together."""

from __future__ import annotations

import ast
import itertools
import json
import logging
import os
import re
import sys
from pathlib import Path
from pydoc import locate
from typing import Any, ClassVar

import pytest
import torch
from bundle_configs import BUNDLE, CONFIGS, NAMES, REPOSITORY, components, parser, read, values
from image_samples import SHARED
from monai.bundle import (
    ConfigComponent,
    ConfigParser,
    ckpt_export,
    create_workflow,
    verify_metadata,
    verify_net_in_out,
)
from monai.bundle.utils import DEFAULT_HANDLERS_ID
from monai.bundle.workflows import _apply_logging_file
from monai.fl.client.monai_algo import disable_ckpt_loaders
from monai.transforms import Compose
from packaging.markers import default_environment
from packaging.requirements import Requirement

from scripts.network.foreground import THRESHOLD
from scripts.training.calibration import ThresholdCalibration
from scripts.training.grid_probe import GridProbe
from scripts.transforms.cropping import OBJECTS

TRAIN, INFERENCE, EVALUATE, METADATA = map(read, ("train.json", "inference.json", "evaluate.json", "metadata.json"))
# what a client of MONAI Label may change is defined in one place of its own, methods of clustering as a choice
DISPLAYABLE = INFERENCE["displayable_configs"]
SHOWN = {id_: value for id_, value in DISPLAYABLE.items() if INFERENCE[id_] == f"@displayable_configs#{id_}"}
INFERENCE_IDS = {**INFERENCE, **SHOWN, "clustering": DISPLAYABLE["clustering"][0]}
CHANNELS = METADATA["network_data_format"]["inputs"]["image"]["num_channels"]


class TestWorkflows:
    @pytest.mark.parametrize(("name", "kind"), [("train.json", "train"), ("inference.json", "infer")])
    def test_monai_finds_all_it_asks_for(self, name: str, kind: str, dataset: Path, clean_process: None) -> None:
        workflow = create_workflow(
            config_file=str(CONFIGS / name),
            workflow_type=kind,
            logging_file=False,
            bundle_root=str(BUNDLE),
            dataset_dir=str(dataset),
            ckpt_dir=str(dataset),
            output_dir=str(dataset),
            patch_size=[16, 16, 16],
        )
        assert workflow.check_properties() == []

    @pytest.mark.parametrize(("config", "engine"), [(TRAIN, "trainer"), (TRAIN, "validator"), (INFERENCE, "evaluator")])
    def test_tracking_finds_the_handlers_it_adds_to(self, config: dict[str, Any], engine: str) -> None:
        """`--tracking mlflow` appends to a list of this id, which the engine of that id must refer to."""
        parsed, ids = ConfigParser(config), DEFAULT_HANDLERS_ID[engine]
        assert isinstance(parsed[ids["handlers"]], list)
        assert f"@{ids['handlers']}" in parsed[ids["id"]].values()

    def test_a_client_of_federated_learning_evaluates_the_weights_that_it_is_sent(self) -> None:
        """MONAI FL leaves out what it takes for a loader of weights."""
        evaluation = parser("train.json", "evaluate.json")
        disable_ckpt_loaders(evaluation)
        (handler,) = (part for part in evaluation["validate#handlers"] if "model.pt" in part.get("path", ""))
        assert handler["_disabled_"]

    @pytest.mark.parametrize("name", NAMES)
    def test_every_named_component_exists(self, name: str) -> None:
        for config in components(read(name)):
            module = ConfigComponent(config, id=name).resolve_module_name()
            assert locate(str(module)) is not None, f"{name}: no {config['_target_']}"

    @pytest.mark.parametrize("name", NAMES)
    def test_no_path_of_one_machine(self, name: str) -> None:
        # what starts with a slash, unless it is joined to an id as in "$str(@bundle_root) + '/models'"
        absolute = re.compile(r"^(/|~|[A-Za-z]:[\\/])|(?<!\+ )'/")
        assert [value for value in values(read(name)) if isinstance(value, str) and absolute.search(value)] == []

    @pytest.mark.parametrize(("images", "repeated"), [(3, False), (2, False), (1, True)])
    def test_no_image_counts_twice_in_a_validation_on_two_gpus(
        self, images: int, repeated: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", "2")
        config = parser("train.json", "multi_gpu_train.json", **{"validate#dataset": "$[{}] * " + str(images)})
        assert config.get_parsed_content("validate#dataloader#sampler#even_divisible") == repeated

    def test_each_of_several_processes_keeps_a_broken_batch_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RANK", "3")
        monkeypatch.setenv("LOCAL_RANK", "0")
        config = parser("train.json", "multi_gpu_train.json", output_dir="out", trained_network=None)
        (handler,) = (part for part in config["train#handlers"] if part["_target_"].endswith("GradientGuard"))
        assert handler["path"] == "@nan_batch"
        assert config.get_parsed_content("nan_batch") == "out/nan_batch_rank_3.pt"

    @pytest.mark.parametrize(
        ("device", "platform", "cores", "workers"),
        [
            ("cuda", "linux", 16, 4),
            ("cuda", "linux", 2, 1),
            ("cuda", "linux", 1, 0),
            ("cuda", "win32", 16, 0),  # starting a process takes seconds there, once an epoch
            ("cpu", "linux", 16, 0),
        ],
    )
    def test_processes_cut_patches_where_a_gpu_waits_for_them(
        self, device: str, platform: str, cores: int, workers: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        config = parser("train.json", device=f"$torch.device('{device}')")
        assert config.get_parsed_content("num_workers") == workers

    @pytest.mark.parametrize(("platform", "workers"), [("linux", 8), ("darwin", 0), ("win32", 0)])
    def test_so_do_those_of_cityscapes(self, platform: str, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where processes are not forked each would begin with a copy of 14 GB of images."""
        monkeypatch.setattr(sys, "platform", platform)
        assert parser("train.json", "cityscapes.json").get_parsed_content("num_workers") == workers

    def test_the_log_goes_to_the_console(self, monkeypatch: pytest.MonkeyPatch) -> None:
        root = logging.getLogger()
        monkeypatch.setattr(root, "handlers", [])
        monkeypatch.setattr(root, "level", root.level)
        _apply_logging_file(str(CONFIGS / "logging.conf"))
        assert [type(handler) for handler in root.handlers] == [logging.StreamHandler]


@pytest.mark.parametrize(
    ("images", "trained", "validated"), [(1, 1, 1), (12, 12, 9), (29, 29, 9), (30, 27, 3), (3000, 2950, 50)]
)
def test_a_tenth_of_the_images_is_held_out_where_there_are_many(images: int, trained: int, validated: int) -> None:
    config = ConfigParser({name: TRAIN[name] for name in ("held_out", "training_data", "validation_data")})
    config["data"] = list(range(images))
    training, validation = map(config.get_parsed_content, ("training_data", "validation_data"))
    assert (len(training), len(validation)) == (trained, validated)
    assert trained == images or not set(training) & set(validation)


class TestTrainingFollowsTheForeground:
    SEEN: ClassVar = {"voxel_shape": [1.0] * 3, "few_objects": True}  # what else the training files would tell

    @pytest.mark.parametrize(
        ("foreground", "terms"),
        [
            ("everywhere", {"foreground": 0.0, "first_foreground": 0.0, "border": 3.0}),  # no background to learn
            ("estimated", {"foreground": 0.1, "first_foreground": 1.0, "border": 0.0}),  # the shipped weights know one
        ],
    )
    def test_terms_of_the_loss(self, foreground: str, terms: dict[str, float]) -> None:
        loss = parser("train.json", **self.SEEN, foreground=foreground).get_parsed_content("loss")
        assert {name: loss.weights[name] for name in terms} == terms

    @pytest.mark.parametrize(
        ("ids", "weight"),
        [
            ({"pretrained": None}, 0.1),  # few objects are soon learned by heart, and all others taken for background
            ({"pretrained": None, "few_objects": False}, 1.0),
            ({"pretrained": None, "background_label": 9}, 1.0),  # what is painted keeps them from that
            ({"few_objects": False}, 0.1),
            ({"background_label": 9}, 0.1),  # a few strokes are no reason to forget the foreground of the weights
            ({"few_objects": False, "background_label": 9}, 1.0),
        ],
    )
    def test_weight_of_the_foreground(self, ids: dict[str, Any], weight: float) -> None:
        train = parser("train.json", **{**self.SEEN, "foreground": "estimated", **ids})
        assert train.get_parsed_content("foreground_weight") == weight

    def test_random_weights_have_no_foreground_to_keep(self) -> None:
        train = parser("train.json", **self.SEEN, foreground="estimated", pretrained=None)
        assert train.get_parsed_content("loss").weights["first_foreground"] == 0
        assert train.get_parsed_content("train#maps") == ["image", "label"]

    def test_painted_background_leaves_the_first_foreground_where_nothing_is_painted(self) -> None:
        train = parser("train.json", **self.SEEN, foreground="estimated", background_label=9)
        assert train.get_parsed_content("loss").weights["first_foreground"] == 1

    def test_pretraining_that_goes_on_learns_the_foreground_anew(self) -> None:
        loss = parser("train.json", "pretrain.json", pretrained="@shipped_weights").get_parsed_content("loss")
        assert (loss.weights["foreground"], loss.weights["first_foreground"]) == (1, 0)

    @pytest.mark.parametrize(("foreground", "validated"), [("everywhere", "teacher"), ("estimated", "network")])
    def test_in_dense_tissue_the_momentum_network_is_the_one_to_keep(self, foreground: str, validated: str) -> None:
        ids = {"pretrained": None, "filters": [8, 16, 32], "voxel_shape": [1.0] * 3, "foreground": foreground}
        train = parser("train.json", **ids)
        networks = {name: train.get_parsed_content(name) for name in ("network", "teacher")}
        kept, other = networks.pop(validated), *networks.values()
        assert train.get_parsed_content("inference_network") is kept
        assert train.get_parsed_content("other_network") is other
        assert TRAIN["validate"]["evaluator"]["network"] == "@inference_network"
        assert TRAIN["best_weights"]["networks"] == {"model.pt": "@inference_network", "teacher.pt": "@other_network"}

    @pytest.mark.parametrize("names", [("train.json",), ("train.json", "2d.json")])
    def test_where_up_and_down_differ_no_patch_is_turned_over(self, names: tuple[str, ...]) -> None:
        dims = 4 - len(names)
        ids = {"upside_down": 0.0, "patch_size": [8] * dims, "objects_voxel_shape": [1.0] * dims}
        train = parser(*names, **ids, first_foreground_weight=0.0)
        turn = Compose(train.get_parsed_content("train#shared_geometry")[1:]).set_random_state(0)
        downwards = torch.arange(8.0)[None, :, None] if dims == 2 else torch.arange(8.0)[None, None, :, None]
        volume = downwards.expand(1, *[8] * dims)
        turned = [turn({"image": volume, "label": volume})["image"] for _ in range(100)]
        assert all(torch.equal(one, volume) for one in turned)

    def test_an_evaluation_takes_the_one_that_was_kept(self, tmp_path: Path) -> None:
        evaluation = parser("train.json", "evaluate.json", ckpt_dir=str(tmp_path), foreground="everywhere")
        assert evaluation.get_parsed_content("inference_network") is evaluation.get_parsed_content("network")


def test_a_client_of_monai_label_can_change_what_is_displayed() -> None:
    """As its generic app does: update the section, parse again, build the parts."""
    inference = parser("inference.json")
    changed = {"clustering": "hdbscan", "delta_var": 0.7, "min_size": 12, "merge_threshold": 3.0, "min_score": 0.4}
    inference["displayable_configs"].update({**changed, "flips": True, "roi_size": [32] * 3, "overlap": 0.5})
    inference.parse()
    cluster = inference.get_parsed_content("cluster")
    used = [cluster.method, cluster.delta_var, cluster.min_size, cluster.merge_threshold, cluster.min_score]
    assert used == list(changed.values())
    inferer = inference.get_parsed_content("inferer")
    assert (inferer.roi_size, inferer.overlap, inferer.flipped_axes) == ([32] * 3, 0.5, [0, 1, 2])


class TestTrainingAndInferenceAgree:
    """What the network was trained on is what it is shown later."""

    # what training writes beside the weights and inference reads: settings, and what each validation chooses
    WRITTEN = TRAIN["best_weights"]["settings"]
    CHOSEN = ThresholdCalibration(embedding_dim=8).chosen()
    READ = re.compile(r"\$(?:@displayable_configs#\w+ or )?@settings\.get\('(\w+)'(?:, (.+))?\)")

    def settings_of(self, config: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
        """Id -> (name of the setting, its default as written in the config)."""
        matches = {id_: self.READ.fullmatch(value) for id_, value in config.items() if isinstance(value, str)}
        return {id_: (match[1], match[2]) for id_, match in matches.items() if match}

    def test_ids_of_both_have_one_definition(self) -> None:
        shared = (TRAIN.keys() & INFERENCE.keys()) - self.settings_of(INFERENCE_IDS).keys()
        differing = {id_ for id_ in shared if TRAIN[id_] != INFERENCE_IDS[id_]}
        # training measures them, inference is told
        of_the_data = {"working_spacing", "smallest_instance", "stated_axes", "in_pixels", "voxel_size"}
        own = {"cluster", "imports", "initialize", "network", "options", "run", "settings", "writable"}
        assert differing <= own | of_the_data

    def test_inference_reads_only_settings_that_training_writes(self) -> None:
        assert {name for name, _ in self.settings_of(INFERENCE_IDS).values()} <= {*self.WRITTEN, *self.CHOSEN}

    def test_without_settings_inference_assumes_the_defaults_of_training(self) -> None:
        train = parser("train.json")
        for id_, (name, default) in self.settings_of(INFERENCE_IDS).items():
            written = self.WRITTEN.get(name, "").lstrip("@")
            from_data = isinstance(TRAIN.get(written), dict) or name in self.CHOSEN
            if default is None or from_data:
                continue
            if default.startswith("@"):  # follows another id
                assert TRAIN[written] == f"${default}", id_
            else:
                assert ast.literal_eval(default) == train.get_parsed_content(written), id_

    def test_without_settings_the_foreground_is_that_without_annotation(self) -> None:
        assert ast.literal_eval(self.settings_of(INFERENCE_IDS)["foreground_threshold"][1]) == THRESHOLD

    def test_evaluation_reads_the_settings_as_inference_does(self) -> None:
        assert self.settings_of(EVALUATE) == self.settings_of(INFERENCE_IDS)

    @pytest.mark.parametrize("ids", [{}, {"voxel_shape": [4.0, 1.0, 1.0], "filters": [8, 16, 32], "in_channels": 2}])
    def test_both_build_the_same_network(self, ids: dict[str, Any]) -> None:
        ids = {"voxel_shape": [1.0, 1.0, 1.0], **ids}
        states = [
            {
                name: tuple(tensor.shape)
                for name, tensor in parser(*config, **ids).get_parsed_content("network_def").state_dict().items()
            }
            for config in (["train.json"], ["inference.json"], ["train.json", "evaluate.json"])
        ]
        assert states[0] == states[1] == states[2]

    def test_both_preprocess_an_image_alike(self, dataset: Path) -> None:
        ids = {
            "dataset_dir": str(dataset),
            "ckpt_dir": str(dataset),
            "working_spacing": [1.25, 0.8, 1.0],
            "voxel_shape": [1.25, 1.0, 1.0],
            "patch_size": [16, 16, 16],
        }
        train, inference = parser("train.json", **ids), parser("inference.json", **ids)
        train.get_parsed_content("imports")
        entry = train.get_parsed_content("data")[0]
        seen = inference.get_parsed_content("preprocessing")(dict(entry))["image"]
        validated = train.get_parsed_content("validate#preprocessing")(dict(entry))["image"]
        for transform in [
            *train.get_parsed_content("load").transforms,
            *train.get_parsed_content("train#cached_transforms"),
        ]:
            entry = transform(entry)
        assert seen.shape == (CHANNELS, 16, 30, 28)
        assert torch.equal(validated, seen)
        assert torch.equal(entry["image"], seen)
        assert entry["label"].shape[1:] == seen.shape[1:]

    @pytest.mark.parametrize("config", [["inference.json"], ["train.json", "evaluate.json"]])
    def test_the_size_of_the_objects_decides_the_grid_when_it_is_given(self, config: list[str], tmp_path: Path) -> None:
        (tmp_path / "model.json").write_text('{"spacing": [3.0, 1.0, 1.0]}', encoding="utf-8")
        ids = {"ckpt_dir": str(tmp_path)}
        assert parser(*config, **ids).get_parsed_content("working_spacing") == [3.0, 1.0, 1.0]
        ids["object_size"] = [16.0, 8.0, 8.0]
        assert parser(*config, **ids).get_parsed_content("working_spacing") == [1.0, 0.5, 0.5]

    def test_weights_to_start_from_are_asked_for_the_grid_and_random_ones_are_not(
        self, dataset: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(GridProbe, "__call__", lambda self, spacings: [float(one[0] > 0.6) for one in spacings])
        files = {"dataset_dir": str(dataset), "spacing": "objects", "object_fraction": 0.1}
        for pretrained, stays in ((TRAIN["pretrained"], False), (None, True)):
            train = parser("train.json", pretrained=pretrained, **files)
            suggested, chosen = map(train.get_parsed_content, ("suggested_spacing", "working_spacing"))
            assert (chosen == suggested) is stays

    @pytest.mark.parametrize("part", ["train", "validate"])
    def test_what_is_not_random_is_done_once(self, dataset: Path, part: str) -> None:
        ids = {"dataset_dir": str(dataset), "ckpt_dir": str(dataset), "patch_size": [16, 16, 16]}
        train = parser("train.json", **ids)
        train.get_parsed_content("imports")
        cached = train.get_parsed_content(f"{part}#dataset")._cache[0]
        assert isinstance(cached["image"], torch.Tensor)
        assert cached["image"].max() == 1  # normalised
        assert part == "validate" or cached[OBJECTS]

    def test_both_cluster_alike(self) -> None:
        assert TRAIN["cluster"] == {**INFERENCE["cluster"], "embeddings_key": "embeddings"}

    def test_evaluation_does_not_choose_thresholds_by_the_truth_that_it_is_to_meet(self, tmp_path: Path) -> None:
        evaluation = parser("train.json", "evaluate.json", ckpt_dir=str(tmp_path))  # without model.json
        cluster = evaluation.get_parsed_content("cluster")
        assert (cluster.merge_threshold, cluster.foreground_threshold) == (None, THRESHOLD)
        data = {"pred": torch.randn(8, 4, 4, 4), "label": torch.ones(1, 4, 4, 4, dtype=torch.int32)}
        assert evaluation.get_parsed_content("calibration")(data) is data

    def test_both_bring_instances_back_alike(self) -> None:
        training, inference = (
            [step for step in config["transforms"] if isinstance(step, dict) and step.get("keys") == "pred"]
            for config in (TRAIN["validate"]["postprocessing"], INFERENCE["postprocessing"])
        )
        before_saving = itertools.takewhile(lambda step: "SaveInstances" not in step["_target_"], inference)
        assert training == list(before_saving)

    # of the teacher, and over mirror images: not in the validations of a training
    ASKED = {key: value for key, value in INFERENCE["inferer"].items() if key.startswith(("teacher", "flipped"))}

    def test_both_slide_the_same_window(self) -> None:
        validation, inference = (
            {key: value for key, value in config.items() if key not in self.ASKED}
            for config in (TRAIN["validate"]["inferer"], INFERENCE["inferer"])
        )
        assert validation == inference

    def test_evaluation_asks_the_teacher_as_inference_does(self) -> None:
        assert {key: EVALUATE[f"validate#inferer#{key}"] for key in self.ASKED} == self.ASKED
        assert EVALUATE["teacher_def"] == INFERENCE["teacher_def"]


def pins(python_version: str) -> dict[str, str]:
    """Package -> exact version in requirements.txt for a Python version."""
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line.split("#")[0]) for line in lines if line.split("#")[0].strip()]
    environment = {**default_environment(), "python_version": python_version}
    result = {}
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", requirement
            assert requirement.name not in result, requirement
            result[requirement.name] = specifier.version
    return result


# What the model zoo's schema asks of metadata.json, as a schema: the original would have to be downloaded.
TEXT, OBJECT = {"type": "string"}, {"type": "object"}
REQUIRED_TEXTS = ["schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description"]
REQUIRED_TEXTS += ["authors", "copyright"]
OPTIONAL_TEXTS = ["data_source", "data_type", "image_classes", "label_classes", "pred_classes", "intended_use"]
TENSORS = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
        "properties": {
            **dict.fromkeys(("type", "format", "dtype"), TEXT),
            "num_channels": {"type": "integer"},
            "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
            "value_range": {"type": "array", "items": {"type": "number"}},
            "is_patch_data": {"type": "boolean"},
            "channel_def": OBJECT,
        },
    },
}
SCHEMA = {
    "type": "object",
    "required": [*REQUIRED_TEXTS, "changelog", "required_packages_version", "network_data_format"],
    "properties": {
        **dict.fromkeys(REQUIRED_TEXTS + OPTIONAL_TEXTS, TEXT),
        **dict.fromkeys(("changelog", "required_packages_version"), OBJECT),
        "references": {"type": "array", "items": TEXT},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": dict.fromkeys(("inputs", "outputs", "post_processed_outputs"), TENSORS),
        },
    },
}


class TestMetadata:
    def test_it_is_valid(self, tmp_path: Path) -> None:
        schema = tmp_path / "schema.json"  # a file that is there already is not downloaded
        schema.write_text(json.dumps(SCHEMA), encoding="utf-8")
        verify_metadata(meta_file=str(CONFIGS / "metadata.json"), filepath=str(schema))

    def test_its_version_is_the_newest_in_the_changelog_and_that_of_the_project(self) -> None:
        version = METADATA["version"]
        assert next(iter(METADATA["changelog"])) == version
        assert f'version = "{version}"' in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")

    def test_its_packages_are_those_of_the_requirements(self) -> None:
        named = {
            "torch": METADATA["pytorch_version"],
            "monai": METADATA["monai_version"],
            "numpy": METADATA["numpy_version"],
            **METADATA["required_packages_version"],
        }
        assert named == pins("3.11")

    def test_both_python_versions_get_the_same_packages(self) -> None:
        assert pins("3.10").keys() == pins("3.11").keys()

    def test_torch_is_installed_first(self) -> None:
        assert next(iter(pins("3.10"))) == "torch"

    def test_each_input_channel_is_described(self) -> None:
        image = METADATA["network_data_format"]["inputs"]["image"]
        assert len(image["channel_def"]) == image["num_channels"]
        assert parser("inference.json").get_parsed_content("in_channels") == image["num_channels"]

    def test_its_licence_is_that_of_the_project(self) -> None:
        bundled, outer = ((folder / "LICENSE").read_text(encoding="utf-8") for folder in (BUNDLE, REPOSITORY))
        assert bundled == outer
        assert "Apache License" in bundled
        assert METADATA["license"] == "Apache-2.0"


class TestNetwork:
    """The two commands that the model zoo runs in the bundle's folder."""

    FILES = {"meta_file": "configs/metadata.json", "config_file": "configs/inference.json"}

    @pytest.fixture(autouse=True)
    def _in_the_bundle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(BUNDLE)

    @pytest.mark.parametrize("n", [1, 3])
    def test_it_takes_and_returns_what_the_metadata_say(self, n: int) -> None:
        verify_net_in_out("network_def", **self.FILES, device="cpu", n=n)

    def test_it_exports_to_torchscript(self, tmp_path: Path) -> None:
        network = parser("inference.json").get_parsed_content("network_def").eval()
        torch.save(network.state_dict(), tmp_path / "model.pt")
        exported = tmp_path / "model.ts"
        ckpt_export("network_def", filepath=str(exported), ckpt_file=str(tmp_path / "model.pt"), **self.FILES)
        image = torch.rand(1, CHANNELS, 8, 16, 8)
        with torch.no_grad():
            torch.testing.assert_close(torch.jit.load(exported)(image), network(image))

    @pytest.mark.parametrize(("folder", "overlays"), [("models", []), ("models/2d", ["2d.json"])])
    def test_the_shipped_weights_fit_and_are_small(self, folder: str, overlays: list[str]) -> None:
        weights = BUNDLE / folder / "model.pt"
        network = parser("inference.json", *overlays).get_parsed_content("network_def")
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        assert weights.stat().st_size <= 16 * 2**20
        assert Path(parser("train.json", *overlays).get_parsed_content("pretrained")) == weights

    @pytest.mark.parametrize("overlay", ["cvppp.json", "cityscapes.json"])
    def test_a_benchmark_leaves_them_alone(self, overlay: str) -> None:
        """Colour images in 2D: no other training could start from what they make of the network."""
        folders = {
            parser("train.json", *names).get_parsed_content("ckpt_dir") for names in ([], ["2d.json"], [overlay])
        }
        assert len(folders) == 3


@pytest.mark.skipif(not SHARED.exists(), reason="the development images are not part of the repository")
def test_two_cells_that_say_little_are_looked_at() -> None:
    """They measure 13 slices and 30 to 41 pixels; cells of this tissue are some 25 and 45 thick."""
    train = parser(
        "train.json",
        images=[str(SHARED / "membranes3d" / "upper_image.tif")],
        labels=[str(SHARED / "membranes3d" / "upper_labels.tif")],
        object_fraction=0.05,
        seed=1,
    )
    assert max(train.get_parsed_content("suggested_spacing")[:2]) < 2
    first, second, third = train.get_parsed_content("working_spacing")
    assert 1.2 < first < 2
    assert 2 < second == third < 3.3
