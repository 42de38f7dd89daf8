"""The paper's benchmarks, in their own layouts with their own overlays, and several channels in 3D."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from benchmark_data import CAR, PERSON, write_cities, write_plants
from bundle_runs import (
    BUNDLE,
    DEVICE,
    EAGER_INFERENCE,
    EVALUATE,
    INFERENCE,
    TINY_TRAINING,
    TRAIN,
    nuclei,
    refusal_of,
    run_here,
    write_pair,
)
from monai.bundle import ConfigParser
from PIL import Image

from scripts.files.readers import read_volume

EAGER = {"foreground": "everywhere", "min_size": 1}
TINY = {**DEVICE, "filters": [8, 16, 32], "epochs": 1, "iterations_per_epoch": 2, "val_interval": 1, "num_workers": 0}


def segment_and_score(overlay: str, images: Path, weights: Path, results: Path, **ids: Any) -> dict[str, Any]:
    """Run inference and evaluation; returns metrics.json."""
    folders = {"dataset_dir": images, "ckpt_dir": weights, "output_dir": results}
    run_here([*INFERENCE, overlay], **folders, **DEVICE, **ids)
    run_here([TRAIN[0], overlay, EVALUATE[1]], **folders, **DEVICE, **ids)
    return json.loads((results / "metrics.json").read_text(encoding="utf-8"))


def read_ids(path: Path) -> np.ndarray:
    ids = np.asarray(Image.open(path))
    assert ids.dtype == np.uint16
    return ids


def test_classes_that_were_trained_are_those_that_are_found(tmp_path: Path) -> None:
    """One class, without an overlay: labels of another class, painted background and ignored voxels beside it."""
    image, labels = nuclei((64, 64), seed=1)
    ids = np.where(labels % 2, 1000 + labels, np.where(labels, 2000 + labels, 0)).astype(np.uint16)
    ids[:4], ids[-4:] = 7, 9
    write_pair(tmp_path, image, ids)
    folders = {"dataset_dir": tmp_path, "ckpt_dir": tmp_path / "weights", "output_dir": tmp_path / "output"}
    tiny = {**TINY, "patch_size": [32, 32], "pretrained": "null", "spacing": "image"}
    special = {"background_label": 7, "ignore_label": 9}
    run_here([*TRAIN, "2d.json"], **folders, **tiny, **special, classes=[1])
    metrics = segment_and_score("2d.json", tmp_path, tmp_path / "weights", tmp_path / "output", **EAGER, **special)
    instances = tifffile.imread(tmp_path / "output" / "nuclei_instances.tif")
    assert set(np.unique(instances[instances > 0]) // 1000) == {1}
    assert list(metrics["per_class"]) == ["1"]


class TestCvppp:
    """A1: plantXXX_rgb.png, plantXXX_label.png and plantXXX_fg.png in one folder."""

    @pytest.fixture(scope="class")
    def a1(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Three plants to train on, 001 to 003, and two to score by, 100 and 101; with the weights trained."""
        folder = tmp_path_factory.mktemp("CVPPP2017_LSC_training") / "training" / "A1"
        write_plants(write_plants(folder, range(1, 4)), range(100, 102))
        outputs = {"ckpt_dir": folder.parent / "weights", "output_dir": folder.parent / "output"}
        ids = {"dataset_dir": folder, "plants": "plant0*", "patch_size": [32, 32], "min_size": 10}
        run_here([*TRAIN, "cvppp.json"], **ids, **outputs, **TINY)
        return folder

    def test_leaves_of_new_plants_are_scored(self, a1: Path, tmp_path: Path) -> None:
        ids = {"plants": "plant1*", "foreground": "everywhere"}
        metrics = segment_and_score("cvppp.json", a1, a1.parent / "weights", tmp_path, **ids)
        assert list(metrics["images"]) == ["plant100_rgb", "plant101_rgb"]
        assert 0 < metrics["mean"]["sbd"] < 1
        assert metrics["mean"]["dic"] == np.mean([plant["dic"] for plant in metrics["images"].values()])
        for plant, scores in metrics["images"].items():
            leaves = np.asarray(Image.open(a1 / plant.replace("rgb", "label.png")))
            instances = read_ids(tmp_path / f"{plant}_instances.png")
            assert instances.shape == leaves.shape == (80, 72)
            assert scores["dic"] == abs(int(instances.max()) - int(leaves.max()))

    def test_the_truth_is_whole_whatever_share_was_trained_on(self, a1: Path, tmp_path: Path) -> None:
        ids = {"plants": "plant1*", "foreground": "everywhere"}
        whole, share = (
            segment_and_score("cvppp.json", a1, a1.parent / "weights", tmp_path / name, **ids, **fraction)
            for name, fraction in {"whole": {}, "share": {"object_fraction": 0.25}}.items()
        )
        assert whole == share

    @pytest.mark.parametrize("configs", [("cvppp.json", "next_objects.json"), ("next_objects.json", "cvppp.json")])
    def test_annotated_leaves_are_not_listed_as_next(self, a1: Path, tmp_path: Path, configs: tuple[str, str]) -> None:
        folders = {"dataset_dir": a1, "ckpt_dir": a1.parent / "weights", "output_dir": tmp_path}
        run_here([*INFERENCE, *configs], **folders, **DEVICE, plants="plant0*", foreground="everywhere", min_size=1)
        for line in csv.DictReader((tmp_path / "next_objects.csv").open()):
            leaves = np.asarray(Image.open(a1 / f"{line['image'].removesuffix('_rgb')}_label.png"))
            assert leaves[int(line["y_voxel"]), int(line["x_voxel"])] == 0

    def test_leaves_lie_inside_the_plant_where_its_mask_is_given(self, a1: Path, tmp_path: Path) -> None:
        ids = {"plants": "plant1*", "masks": str(a1 / "plant1*_fg.png"), "min_size": 1}
        segment_and_score("cvppp.json", a1, a1.parent / "weights", tmp_path, **ids)
        for number in (100, 101):
            inside = np.asarray(Image.open(a1 / f"plant{number}_fg.png")) > 0
            instances = read_ids(tmp_path / f"plant{number}_rgb_instances.png") > 0
            disagree = (inside != instances).sum() / inside.sum()
            assert disagree < 0.15  # the rim: leaves are found on a coarser grid

    def test_images_without_labels_are_segmented(self, a1: Path, tmp_path: Path) -> None:
        testing = tmp_path / "testing" / "A1"
        testing.mkdir(parents=True)
        shutil.copy(a1 / "plant100_rgb.png", testing / "plant777_rgb.png")
        folders = {"dataset_dir": testing, "ckpt_dir": a1.parent / "weights", "output_dir": tmp_path / "results"}
        run_here([*INFERENCE, "cvppp.json"], **folders, **DEVICE)
        assert read_ids(tmp_path / "results" / "plant777_rgb_instances.png").shape == (80, 72)

    def test_what_training_was_given_holds_for_inference_too(self, a1: Path) -> None:
        settings = json.loads((a1.parent / "weights" / "model.json").read_text(encoding="utf-8"))
        assert settings["in_channels"] == 3
        # the 10 pixels it was given, and not the 30 of the overlay, in working ones
        assert settings["smallest_instance"] == pytest.approx(10 / np.prod(settings["spacing"]))

    def test_a_label_map_of_colours_is_refused(self, a1: Path, tmp_path: Path) -> None:
        folder = write_plants(tmp_path / "A1", range(1, 3))
        Image.open(folder / "plant002_label.png").convert("RGB").save(folder / "plant002_label.png")
        message = refusal_of([*TRAIN, "cvppp.json"], dataset_dir=folder, ckpt_dir=tmp_path, output_dir=tmp_path, **TINY)
        sentence = r"plant002_label\.png: found a label map of 3 channels, expected one channel of integer ids"
        assert re.search(sentence, message), message


class TestCityscapes:
    """leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_{instanceIds,labelIds}.png."""

    WORKING_GRID = {
        "working_spacing": [1.0, 1.0],
        "voxel_shape": [1.0, 1.0],
        "patch_size": [32, 64],
        "min_size": 20,
        "batch_size": 2,
    }

    @pytest.fixture(scope="class")
    def cities(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("cityscapes")
        write_cities(write_cities(folder, "train", {"aachen": 2, "bochum": 2}), "val", {"frankfurt": 2})
        return folder

    @pytest.fixture(scope="class")
    def weights(self, cities: Path) -> Path:
        self.train(cities, cities.parent / "all", object_fraction=0.5)
        return cities.parent / "all"

    def train(self, cities: Path, weights: Path, **ids: Any) -> None:
        outputs = {"ckpt_dir": weights, "output_dir": weights / "output"}
        run_here([*TRAIN, "cityscapes.json"], dataset_dir=cities, **outputs, **{**TINY, **self.WORKING_GRID, **ids})

    def test_each_class_is_scored(self, cities: Path, weights: Path, tmp_path: Path) -> None:
        metrics = segment_and_score("cityscapes.json", cities, weights, tmp_path, split="val")
        assert list(metrics["images"]) == [f"frankfurt_000000_00000{frame}_leftImg8bit" for frame in (0, 1)]
        assert list(metrics["per_class"]) == ["24", "25", "26", "27", "28", "31", "32", "33"]
        for class_ in (PERSON, CAR):
            assert metrics["per_class"][str(class_)]["images"] == 2
            assert 0 <= metrics["per_class"][str(class_)]["ap50"] <= 1
        assert metrics["per_class"]["31"] == {"images": 0}

    def test_no_object_of_the_truth_is_left_out_in_whatever_order_configs_stand(
        self, cities: Path, weights: Path, tmp_path: Path
    ) -> None:
        """Objects are drawn for training alone."""
        folders = {"dataset_dir": cities, "ckpt_dir": weights, "output_dir": tmp_path}
        scores = []
        for configs in ([TRAIN[0], "cityscapes.json", EVALUATE[1]], [*EVALUATE, "cityscapes.json"]):
            run_here(configs, **folders, **DEVICE, split="val", object_fraction=0.1)
            scores.append(json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8")))
        assert scores[0] == scores[1]

    def test_instances_lie_inside_their_class_and_their_ids_tell_it(
        self, cities: Path, weights: Path, tmp_path: Path
    ) -> None:
        folders = {"dataset_dir": cities, "ckpt_dir": weights, "output_dir": tmp_path}
        run_here([*INFERENCE, "cityscapes.json"], **folders, **DEVICE, split="val", min_size=1)
        for name in ("frankfurt_000000_000000", "frankfurt_000000_000001"):
            instances = read_ids(tmp_path / f"{name}_leftImg8bit_instances.png")
            truth = cities / "gtFine" / "val" / "frankfurt" / f"{name}_gtFine_labelIds.png"
            mask = np.asarray(Image.open(truth))
            np.testing.assert_array_equal(instances // 1000, np.where(np.isin(mask, (PERSON, CAR)), mask, 0))

    def test_masks_may_come_from_another_network(self, cities: Path, weights: Path, tmp_path: Path) -> None:
        for path in (cities / "gtFine" / "val").rglob("*_labelIds.png"):
            predicted = np.asarray(Image.open(path)).copy()
            predicted[predicted == CAR] = PERSON
            (tmp_path / "predicted" / "frankfurt").mkdir(parents=True, exist_ok=True)
            Image.fromarray(predicted).save(tmp_path / "predicted" / "frankfurt" / path.name)
        masks = str(tmp_path / "predicted" / "*" / "*_labelIds.png")
        metrics = segment_and_score("cityscapes.json", cities, weights, tmp_path, split="val", masks=masks)
        assert metrics["per_class"][str(CAR)]["ap50"] == 0
        assert metrics["per_class"][str(CAR)]["dic"] == 2

    def test_a_car_in_a_crowd_of_persons_is_wrong_and_a_person_there_is_ignored(
        self, cities: Path, weights: Path, tmp_path: Path
    ) -> None:
        """Of masks in which the crowd is of either class, with all regions found as they are parted in the truth."""
        scores = {}
        for class_ in (PERSON, CAR):
            for path in (cities / "gtFine" / "val").rglob("*_instanceIds.png"):
                ids, name = np.asarray(Image.open(path)), path.name.replace("instanceIds", "labelIds")
                mask = np.where(ids == PERSON, class_, np.where(ids == 24000, PERSON, 0))
                (tmp_path / f"{class_}" / "frankfurt").mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask.astype(np.uint8)).save(tmp_path / f"{class_}" / "frankfurt" / name)
            masks = str(tmp_path / f"{class_}" / "*" / "*_labelIds.png")
            options = {"masks": masks, "merge_threshold": 100, "min_size": 1}
            results = tmp_path / f"{class_}_results"
            metrics = segment_and_score("cityscapes.json", cities, weights, results, split="val", **options)
            scores[class_] = [metrics["per_class"][str(known)]["dic"] for known in (PERSON, CAR)]
        # of two persons one is found; of two cars none, where what is found in the crowd does not count
        assert scores[PERSON] == [1, 2]
        assert scores[CAR] == [1, 1]

    def test_one_class_alone(self, cities: Path, tmp_path: Path) -> None:
        self.train(cities, tmp_path / "cars", classes=[CAR])
        metrics = segment_and_score("cityscapes.json", cities, tmp_path / "cars", tmp_path / "results", split="val")
        assert list(metrics["per_class"]) == [str(CAR)]
        for path in (tmp_path / "results").glob("*.png"):
            assert set(np.unique(read_ids(path) // 1000)) == {0, CAR}

    @pytest.mark.parametrize(("ids", "chosen"), [({}, [0]), ({"held_out": 2}, [0, 1]), ({"held_out": 0}, [])])
    def test_so_many_images_as_held_out_says_are_not_trained_on(
        self, cities: Path, ids: dict[str, int], chosen: list[int]
    ) -> None:
        parser = ConfigParser()
        parser.read_config([str(BUNDLE / "configs" / name) for name in (*TRAIN, "cityscapes.json")])
        parser.update({"dataset_dir": str(cities), **ids})
        data, trained_on = parser.get_parsed_content("data"), parser.get_parsed_content("training_data")
        assert trained_on == [pair for number, pair in enumerate(data) if number not in chosen]
        assert parser.get_parsed_content("validation_data") == ([data[number] for number in chosen] or data)

    def test_all_images_cannot_be_held_out(self, cities: Path, tmp_path: Path) -> None:
        ids = {"dataset_dir": cities, "ckpt_dir": tmp_path, "output_dir": tmp_path, **TINY, **self.WORKING_GRID}
        message = refusal_of([*TRAIN, "cityscapes.json"], **ids, held_out=4)
        assert message == "held_out: found 4, expected a whole number from 0 to 3, as there are 4 images."

    def test_a_class_without_objects_is_refused(self, cities: Path, tmp_path: Path) -> None:
        ids = {"dataset_dir": cities, "ckpt_dir": tmp_path, "output_dir": tmp_path, **TINY, **self.WORKING_GRID}
        message = refusal_of([*TRAIN, "cityscapes.json"], **ids, classes=[31])
        assert message.startswith("Found no object of the classes [31] in 4 label maps")


class TestSeveralChannels:
    """`in_channels` beyond the benchmarks: one volume, with its channels in four places."""

    def write(self, folder: Path, name: str, image: np.ndarray, labels: np.ndarray) -> None:
        """Write an image (C, Z, Y, X), with the axes that it is named after, and its labels."""
        axes, target = name.split(".")[0], folder / "images" / name
        if target.suffix == ".nii":
            nibabel.save(nibabel.Nifti1Image(image.transpose(), np.eye(4)), target)
        else:
            stored = np.moveaxis(image, 0, axes.index("c")).copy()
            tifffile.imwrite(target, stored, photometric="minisblack", metadata={"axes": axes.upper()})
        tifffile.imwrite(folder / "labels" / f"{axes}.tif", labels, metadata={"axes": "ZYX"})

    def test_three_channels_in_3d(self, tmp_path: Path) -> None:
        image, labels = nuclei((16, 24, 20), seed=1)
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir()
        for name in ("czyx.ome.tif", "zcyx.tif", "zyxc.tif", "xyzc.nii"):
            self.write(tmp_path, name, np.stack([image, image[::-1], image.max() - image]), labels)
        folders = {"dataset_dir": tmp_path, "ckpt_dir": tmp_path / "weights", "output_dir": tmp_path / "results"}
        run_here(TRAIN, **{**TINY_TRAINING, **folders, "in_channels": 3})
        run_here(INFERENCE, **folders, **EAGER_INFERENCE)
        written = [
            read_volume(path).array for path in (tmp_path / "results").glob("*_instances.*") if path.suffix != ".csv"
        ]
        assert len(written) == 4
        assert written[0].shape == (16, 24, 20)
        assert written[0].max() > 0
        for other in written[1:]:
            np.testing.assert_array_equal(other, written[0])

    def test_another_number_of_channels_is_refused(self, tmp_path: Path) -> None:
        image, labels = nuclei((16, 24, 20), seed=1)
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir()
        self.write(tmp_path, "zcyx.tif", np.stack([image] * 3), labels)
        message = refusal_of(
            TRAIN, **TINY_TRAINING, dataset_dir=tmp_path, ckpt_dir=tmp_path, output_dir=tmp_path, in_channels=2
        )
        assert re.search(r"zcyx\.tif: found 3 channels, expected 2, the number given as in_channels", message)
