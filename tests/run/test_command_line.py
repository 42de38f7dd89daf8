"""What a command says, as one text: the same for commands that come to the same."""

import json
from pathlib import Path

import pytest

from scripts.run.command_line import configuration

PROGRAM = "/anywhere/site-packages/monai/bundle/__main__.py"


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "train.json"
    file.write_text(json.dumps({"epochs": 20, "loss": {"delta_dist": 2.0, "kernel": {"at": 0.5}}, "output_dir": "out"}))
    return str(file)


def text(config: str, *given: str) -> dict[str, str]:
    command = [PROGRAM, "run", "training", "--config_file", config, *given]
    return configuration(command, without=["epochs", "output_dir"])


def test_a_nested_id_makes_a_difference(config: str) -> None:
    assert text(config) != text(config, "--loss#delta_dist", "3.0")
    assert text(config, "--loss#delta_dist", "3.0")["given ids"] == '{"loss#delta_dist": "3.0"}'


def test_so_does_an_overlay(config: str, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.json"
    overlay.write_text(json.dumps({"loss#kernel#at": 0.7}))
    assert text(config) != text(f"['{config}','{overlay}']")


def test_and_what_the_config_holds(config: str) -> None:
    before = text(config)
    Path(config).write_text(Path(config).read_text().replace("0.5", "0.6"))
    assert text(config) != before


@pytest.mark.parametrize("given", [["--epochs", "30"], ["--output_dir", "other"], ["--not_in_the_config", "1"]])
def test_what_is_left_out_makes_none(config: str, given: list[str]) -> None:
    assert text(config) == text(config, *given)


def test_nor_do_the_form_and_the_order_of_ids_and_the_place_of_the_config(config: str, tmp_path: Path) -> None:
    copied = tmp_path / "copy.json"
    copied.write_text(Path(config).read_text())
    one = text(config, "--loss#delta_dist", "3.0", "--loss#kernel#at=0.7")
    assert one == text(str(copied), "--loss#kernel#at", "0.7", "--loss#delta_dist=3.0")


def test_ids_of_a_file_of_arguments_count(config: str, tmp_path: Path) -> None:
    arguments = tmp_path / "arguments.json"
    arguments.write_text(json.dumps({"loss#delta_dist": 3.0}))
    assert text(config) != text(config, "--args_file", str(arguments))


def test_the_command_line_counts_more_than_the_file_of_arguments(config: str, tmp_path: Path) -> None:
    arguments = tmp_path / "arguments.json"
    arguments.write_text(json.dumps({"loss#delta_dist": 3.0}))
    both = text(config, "--args_file", str(arguments), "--loss#delta_dist", "4.0")
    assert both["given ids"] == '{"loss#delta_dist": "4.0"}'


def test_of_another_program_nothing_is_said(config: str) -> None:
    assert configuration(["pytest", "run", "--config_file", config]) == {}
    assert configuration([PROGRAM, "run", "training"]) == {}
