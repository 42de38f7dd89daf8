"""Dense tissue is told from scattered objects by a few annotated ones."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.synthetic.images import synthetic_membranes, synthetic_nuclei
from scripts.training.surroundings import VOXELS, choose_foreground, features_of_objects, told_from_surroundings
from scripts.transforms.cropping import FindObjectsd


def annotate(image: np.ndarray, labels: np.ndarray, every: int) -> dict[str, Any]:
    """One object in so many is annotated."""
    scaled = (image - image.min()) / np.ptp(image)
    sparse = np.where(labels % every == 1 % every, labels, 0).astype(np.int32)
    sample = {
        "image": MetaTensor(torch.from_numpy(scaled.astype(np.float32))[None]),
        "label": MetaTensor(torch.from_numpy(sparse)[None]),
    }
    return FindObjectsd("label")(sample)


def nuclei(shape: tuple[int, ...], seed: int, density: float = 0.3) -> dict[str, Any]:
    return annotate(*synthetic_nuclei(shape, 12, density=density, seed=seed), every=4)


def tissue(shape: tuple[int, ...], seed: int) -> dict[str, Any]:
    return annotate(*synthetic_membranes(shape, 12, seed=seed), every=4)


SHAPES = pytest.mark.parametrize("shape", [(40, 48, 48), (160, 160)])


class TestChoice:
    @SHAPES
    @pytest.mark.parametrize("seed", range(3))
    def test_scattered_objects_have_a_background(self, shape: tuple[int, ...], seed: int) -> None:
        assert choose_foreground([{}], lambda entry: nuclei(shape, seed)) == "estimated"

    @SHAPES
    @pytest.mark.parametrize("seed", range(3))
    def test_dense_tissue_has_none(self, shape: tuple[int, ...], seed: int) -> None:
        assert choose_foreground([{}], lambda entry: tissue(shape, seed)) == "everywhere"

    def test_crowded_objects_that_touch_have_one(self) -> None:
        assert choose_foreground([{}], lambda entry: nuclei((64, 64, 64), 0, density=0.8)) == "estimated"

    @pytest.mark.parametrize("seed", range(3))
    def test_objects_brighter_or_darker_than_their_background_have_one(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        labels = synthetic_nuclei((160, 160), 14, density=0.2, seed=seed)[1]
        contrast = random.permutation(np.resize([0, 60, 60, -60], labels.max() + 1))
        contrast[0] = 0
        image = 100 + contrast[labels] + random.normal(0, 6, labels.shape)
        assert choose_foreground([{}], lambda entry: annotate(image, labels, every=2)) == "estimated"

    def test_painted_background_decides_without_a_look(self) -> None:
        assert choose_foreground([{}], lambda entry: pytest.fail("read a file"), background_label=9) == "estimated"

    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_too_few_objects_decide_nothing(self, count: int) -> None:
        sample = tissue((40, 48, 48), 0)
        sample["objects"] = sample["objects"][:count]
        assert choose_foreground([{}], lambda entry: sample) == "estimated"

    @pytest.mark.parametrize(
        ("estimated", "everywhere", "expected"),
        [
            (0.4, 0.8, "everywhere"),
            (0.8, 0.6, "estimated"),
            (0.5, 0.5, "estimated"),
            (0.01, 0.1, "estimated"),  # neither finds them
            (math.nan, math.nan, "estimated"),
        ],
    )
    def test_of_too_few_objects_a_network_that_knows_some_tells(
        self, estimated: float, everywhere: float, expected: str
    ) -> None:
        sample = tissue((40, 48, 48), 0)
        sample["objects"] = sample["objects"][:2]
        overlaps = {"estimated": estimated, "everywhere": everywhere}
        assert choose_foreground([{}], lambda entry: sample, overlaps=lambda: overlaps) == expected

    @pytest.mark.parametrize(
        ("area", "estimated", "everywhere", "expected"),
        [
            (0.52, 0.8, 0.4, "estimated"),  # above 0.74 - 0.7 / 3, as clearly found better with a background
            (0.50, 0.8, 0.4, "everywhere"),
            (0.64, 0.52, 0.50, "everywhere"),  # 0.74 - 0.7 / 3 * 0.02 / 0.2 = 0.72
            (0.71, 0.52, 0.50, "everywhere"),
            (0.73, 0.52, 0.50, "estimated"),
            (0.96, 0.1, 0.6, "everywhere"),
            (0.98, 0.1, 0.6, "estimated"),
            (0.73, 0.3, 0.1, "everywhere"),  # hardly found with either
            (0.75, 0.1, 0.3, "estimated"),
            (0.75, math.nan, math.nan, "estimated"),
        ],
    )
    def test_where_the_classifier_is_not_sure_the_network_counts_as_well(
        self, area: float, estimated: float, everywhere: float, expected: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("scripts.training.surroundings.told_from_surroundings", lambda objects: area)
        sample = tissue((40, 48, 48), 0)
        sample["objects"] = sample["objects"][:3]
        overlaps = {"estimated": estimated, "everywhere": everywhere}
        assert choose_foreground([{}], lambda entry: sample, overlaps=lambda: overlaps) == expected

    def test_it_is_not_asked_where_something_else_tells(self) -> None:
        sample = tissue((40, 48, 48), 0)
        asked: dict[str, Any] = {"overlaps": lambda: pytest.fail("asked")}
        assert choose_foreground([{}], lambda entry: sample, **asked) == "everywhere"
        assert choose_foreground([{}], lambda entry: sample, background_label=9, **asked) == "estimated"

    @pytest.mark.parametrize(("count", "choice"), [(3, "estimated"), (12, "everywhere")])
    def test_few_objects_must_look_the_more_like_their_surroundings(
        self, count: int, choice: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("scripts.training.surroundings.told_from_surroundings", lambda objects: 0.68)
        sample = tissue((40, 48, 48), 0)
        sample["objects"] = sample["objects"][:count]
        assert len(sample["objects"]) == count
        assert choose_foreground([{}], lambda entry: sample) == choice

    def test_objects_among_annotated_ones_are_dense_tissue(self) -> None:
        image, labels = synthetic_membranes((40, 48, 48), 12, seed=0)
        labels[labels == 5] = 0  # nearly everything is annotated
        assert choose_foreground([{}], lambda entry: annotate(image, labels, every=1)) == "everywhere"

    def test_objects_among_ignored_voxels_decide_nothing(self) -> None:
        image, labels = synthetic_membranes((40, 48, 48), 12, seed=0)
        sample = annotate(image, labels, every=4)
        sample["label"][sample["label"] == 0] = 99
        assert choose_foreground([{}], lambda entry: sample) == "estimated"

    def test_of_many_files_some_are_read(self) -> None:
        seen = []

        def transform(entry: dict[str, Any]) -> dict[str, Any]:
            seen.append(entry["number"])
            return tissue((64, 64), seed=entry["number"])

        assert choose_foreground([{"number": n} for n in range(20)], transform) == "everywhere"
        assert seen == [0, 3, 6, 9, 12, 15, 18]

    def test_the_same_again(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            for _ in range(2):
                choose_foreground([{}], lambda entry: nuclei((40, 48, 48), 0))
        first, second = (record.getMessage() for record in caplog.records)
        assert first == second
        assert "foreground: estimated" in first


@pytest.mark.parametrize("shape", [(60, 60), (1, 60, 60)])  # a thick slice is one voxel of a coarse working grid
def test_features_are_those_of_the_object_and_of_what_is_near(shape: tuple[int, ...]) -> None:
    image, labels = np.zeros((60, 60)), np.zeros((60, 60), int)
    image[20:30, 20:30] = 1.0  # the object
    image[50:] = 5.0  # far away
    labels[20:30, 20:30] = 1
    sample = annotate(image.reshape(shape), labels.reshape(shape), every=2)
    [(inside, around)] = features_of_objects(sample, np.random.default_rng(0))
    assert inside.shape == around.shape
    assert inside[:, 0].min() > around[:, 0].max()  # the first feature is the smoothed intensity


def test_an_object_that_annotated_ones_surround_has_no_features() -> None:
    labels = np.zeros((60, 60), int)
    labels[15:35, 15:32] = 2  # around the other one, but for what is more than two columns to the right of it
    labels[20:30, 20:30] = 1
    sample = annotate(np.random.default_rng(0).random(labels.shape), labels, every=1)
    features = features_of_objects(sample, np.random.default_rng(0))
    assert sorted((len(inside), len(around)) for inside, around in features) == [(0, 0), (VOXELS, VOXELS)]


def test_one_channel_that_differs_is_enough() -> None:
    gray = nuclei((160, 160), 0)
    noise = torch.rand(1, 160, 160, generator=torch.Generator().manual_seed(0))
    gray["image"] = MetaTensor(torch.cat([noise, gray["image"].as_tensor()]))
    objects = list(features_of_objects(gray, np.random.default_rng(0)))
    assert told_from_surroundings(objects) > 0.8
