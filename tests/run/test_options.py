"""Which options are refused before a run starts, and with which sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.run.options import check_options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", "cpu"),
        ("device", torch.device("cpu")),
        ("epochs", 1),
        ("early_stop_patience", None),
        ("learning_rate", 1),
        ("min_size", 0),
        ("object_fraction", 1.0),
        ("spacing", "image"),
        ("spacing", [2, 0.5, 0.5]),
        ("patch_size", (16, 32, 32)),
        ("output_dir", 2024),
        ("output_dir", Path("results")),
        ("images", "scans/*.tif"),
        ("images", ["a.tif", "b.tif"]),
        ("amp", True),
        ("cuda_graphs", False),
        ("filters", [8, 16, 32]),
    ],
)
def test_accepted(name: str, value: Any) -> None:
    check_options(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("spatial_dims", 4, "one of 2, 3"),
        ("device", "gpu", "a device of this machine, such as cpu or cuda:0"),
        ("device", "cuda:99", "a device of this machine"),
        ("epochs", 0, "a whole number of at least 1"),
        ("epochs", 2.5, "a whole number of at least 1"),
        ("epochs", True, "a whole number of at least 1"),
        ("val_interval", 0, "a whole number of at least 1"),
        ("batch_size", 0, "a whole number of at least 1"),
        ("seed", "abc", "a whole number of at least 0"),
        ("min_size", -1, "a whole number of at least 0"),
        ("early_stop_patience", "null", "a whole number of at least 1, or '$None'"),
        ("learning_rate", -1, "a number above 0"),
        ("learning_rate", float("nan"), "a number above 0"),
        ("learning_rate", float("inf"), "a number above 0"),
        ("delta_var", -1, "a number above 0"),
        ("position_scale", -0.1, "a number of at least 0"),
        ("object_fraction", 2, "a number in (0, 1]"),
        ("overlap", 1.0, "a number in [0, 1)"),
        ("spacing", [1, 1], "one of objects, image, or a list with one entry for each axis of the images, each a"),
        ("patch_size", [0, 0, 0], "a list with one entry for each axis of the images, each a whole number of at least"),
        ("patch_size", 32, "a list with one entry for each axis"),
        ("patch_size", "abc", "a list with one entry for each axis"),
        ("filters", [16, 32], "a list of at least 3, each a multiple of 8"),
        ("filters", [8, 8, 8], "a list of at least 3, each a multiple of 8, the last at least 16"),
        ("clustering", "kmeans", "one of auto, mean_shift, hdbscan, consistency"),
        ("foreground", "somewhere", "one of estimated, everywhere"),
        ("classes", 26, "a list of at least 1, each a whole number from 1 to 9999, none twice, or '$None'"),
        ("classes", [26, 26], "a list of at least 1, each a whole number from 1 to 9999, none twice, or '$None'"),
        ("classes", [3000000], "a list of at least 1, each a whole number from 1 to 9999, none twice, or '$None'"),
        ("background_label", 2**63, "a whole number from 1 to 9223372036854775807, or '$None'"),
        ("smallest_instance", "abc", "a number above 0"),
        (
            "working_spacing",
            2.0,
            "a list with one entry for each axis of the images, each a number above 0, or '$None'",
        ),
        ("output_dir", 0.1, "a path; write ./NAME where NAME alone could be a number"),
        ("output_dir", ["a"], "a path; write ./NAME where NAME alone could be a number or a list"),
        ("images", 7, "a list of paths or a glob pattern, or '$None'"),
        ("amp", "yes", "one of True, False"),
        ("amp", 1.0, "one of True, False"),
        ("largest_patch", 16, "a list with one entry for each axis"),
        ("pretrained", 5.5, "a path"),
        ("memory_format", "abc", "one of torch's"),
    ],
)
def test_refused(name: str, value: Any, expected: str) -> None:
    sentence = re.escape(f"{name}: found {value!r}, expected {expected}")
    with pytest.raises(ValueError, match=f"^{sentence}.*\\.$"):
        check_options(**{name: value})


def test_an_embedding_holds_more_than_positions() -> None:
    check_options(spatial_dims=3, embedding_dim=3, position_scale=0.0)
    with pytest.raises(ValueError, match="^embedding_dim: found 3, expected more than the 3 axes"):
        check_options(spatial_dims=3, embedding_dim=3, position_scale=0.25)


def test_painted_background_and_what_is_ignored_have_two_ids() -> None:
    check_options(background_label=None, ignore_label=None)
    with pytest.raises(ValueError, match="^ignore_label: found 7, which is background_label as well"):
        check_options(background_label=7, ignore_label=7)


def test_a_list_has_an_entry_for_each_axis_of_the_images() -> None:
    check_options(spatial_dims=2, spacing=[1.0, 1.0])
    with pytest.raises(ValueError, match=r"^spacing: found \[1\.0, 1\.0, 1\.0\]"):
        check_options(spatial_dims=2, spacing=[1.0, 1.0, 1.0])
