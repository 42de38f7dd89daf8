"""Ids on the command line that no config has."""

import json
import logging
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from scripts.run.options import RULES
from scripts.run.spelling import check_spelling

CONFIGS = Path(__file__).parents[2] / "spoco_bundle" / "configs"
TRAIN, INFERENCE, FLAT = (str(CONFIGS / f"{name}.json") for name in ("train", "inference", "2d"))
PROGRAM = "/anywhere/site-packages/monai/bundle/__main__.py"


def command(*arguments: str, configs: str = TRAIN) -> list[str]:
    return [PROGRAM, "run", "training", "--config_file", configs, *arguments]


class TestRefused:
    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ("--epoch", "--epochs"),
            ("--EPOCHS", "--epochs"),
            ("--patchsize", "--patch_size"),
            ("--learningrate", "--learning_rate"),
            ("--dataset_dirs", "--dataset_dir"),
            ("--los#consistency_weight", "--loss"),
            ("--object-fractions", "--object_fraction"),
            ("--config_files", "--config_file"),
        ],
    )
    @pytest.mark.parametrize("form", ["{} 3", "{}=3"])
    def test_what_is_nearly_an_id(self, given: str, meant: str, form: str) -> None:
        first = given.split("#")[0].replace("-", "_").replace("__", "--", 1)
        with pytest.raises(ValueError, match=rf"^{first}: found no such id in train.json; expected {meant}\?$"):
            check_spelling(command(*form.format(given).split()))

    def test_all_config_files_are_named(self) -> None:
        with pytest.raises(ValueError, match=r"in train.json, 2d.json; expected --epochs\?"):
            check_spelling(command("--epoch", "3", configs=f"['{TRAIN}','{FLAT}']"))

    def test_one_dash_is_enough_for_fire(self) -> None:
        with pytest.raises(ValueError, match=r"^--epoch: .*expected --epochs\?$"):
            check_spelling(command("-epoch", "3"))

    def test_of_a_workflow_too(self) -> None:
        workflow = [PROGRAM, "run_workflow", "--workflow_type", "infer", "--config_file", INFERENCE]
        check_spelling(workflow)
        with pytest.raises(ValueError, match=r"^--min_sizze: .*expected --min_size\?$"):
            check_spelling([*workflow, "--min_sizze", "300"])

    def test_ids_of_a_file_of_arguments(self, tmp_path: Path) -> None:
        file = tmp_path / "arguments.json"
        file.write_text(json.dumps({"config_file": [TRAIN, FLAT], "epoch": 3}))
        with pytest.raises(
            ValueError, match=r"^--epoch: found no such id in train.json, 2d.json; expected --epochs\?$"
        ):
            check_spelling([PROGRAM, "run", "training", "--args_file", str(file)])

    def test_of_the_command_line_beside_such_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "arguments.json"
        file.write_text(json.dumps({"config_file": TRAIN}))
        with pytest.raises(ValueError, match=r"^--epoch: "):
            check_spelling([PROGRAM, "run", "training", "--args_file", str(file), "--epoch", "3"])


@pytest.mark.parametrize("name", ["initialize", "run", "finalize"])
def test_what_monai_runs_if_it_is_there_is_known(name: str, caplog: pytest.LogCaptureFixture) -> None:
    check_spelling(command(f"--{name}", "['$print(1)']"))
    assert not caplog.records


class TestValuesThatMonaiTakesForSomethingElse:
    def test_none_where_something_is_set(self) -> None:
        with pytest.raises(ValueError, match=r"^--pretrained: found None, which MONAI leaves out, expected '\$None'"):
            check_spelling(command("--pretrained", "None"))
        check_spelling(command("--pretrained", "$None", "--ignore_label", "None"))

    @pytest.mark.parametrize("option", ["--ckpt_dir", "--dataset_dir", "--images"])
    def test_a_number_sign_in_a_path(self, option: str) -> None:
        with pytest.raises(ValueError, match=rf"^{option}: found run#1 with #, which MONAI changes to ::"):
            check_spelling(command(option, "run#1"))

    @pytest.mark.parametrize("option", ["--ckpt_dir", "--dataset_dir", "--output_dir", "--pretrained"])
    @pytest.mark.parametrize(("folder", "number"), [("2026_11_28", 20261128), ("0x10", 16), ("1_2", 12)])
    def test_a_folder_that_is_another_number(self, option: str, folder: str, number: int) -> None:
        expected = rf"^{option}: found {folder}, which MONAI takes for {number}, expected a path, such as \./{folder}"
        with pytest.raises(ValueError, match=expected):
            check_spelling(command(option, folder))
        check_spelling(command(option, str(number)))
        check_spelling(command(option, f"./{folder}"))


class TestAccepted:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["--epochs", "3", "--loss#consistency_weight", "0.5", "--object_fraction=0.2"],
            ["--train#shared_geometry#0#object_share", "0", "--train::dataset::cache_rate", "0"],
            ["--tracking", "mlflow", "--logging_file", "logging.conf", "--meta_file", "metadata.json"],
            ["--background-label", "7"],
            ["--tracking", "mlflow", "--tracking_uri", "here", "--experiment_name", "mine", "--run_name", "first"],
            ["--workflow_type", "train", "--properties_path", "properties.json", "--_meta_#version", "1"],
            ["--noamp", "--early_stop_patience", "-8", "--", "--trace"],
        ],
    )
    def test_ids_of_the_configs_and_of_monai(self, arguments: list[str], caplog: pytest.LogCaptureFixture) -> None:
        check_spelling(command(*arguments))
        assert not caplog.records

    def test_ids_of_an_overlay(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        overlay = tmp_path / "my.json"
        overlay.write_text('{"my_weight": 2, "loss#instance_weight": "@my_weight"}')
        check_spelling(command("--my_weight", "3", configs=f"['{TRAIN}','{overlay}']"))
        assert not caplog.records

    @pytest.mark.parametrize("name", RULES)
    @pytest.mark.parametrize("overlay", ["2d", "next_objects", "cityscapes"])
    def test_no_option_of_another_command_is_refused(self, name: str, overlay: str) -> None:
        """`patch_size`, of training alone, resembles the `batch_size` that 2d.json brings into inference."""
        configs = f"['{INFERENCE}','{CONFIGS / overlay}.json']"
        check_spelling(command(f"--{name}=1", configs=configs))

    def test_no_option_of_training_is_mistaken_for_one_of_inference(self, caplog: pytest.LogCaptureFixture) -> None:
        ids = [name for name in ConfigParser.load_config_file(TRAIN) if "#" not in name]
        with caplog.at_level(logging.WARNING):
            check_spelling(command(*[f"--{name}=1" for name in ids], configs=INFERENCE))
        assert "--seed: there is no such id in inference.json, so it changes nothing" in caplog.messages

    @pytest.mark.parametrize("program", ["/usr/bin/pytest", "/anywhere/monailabel/__main__.py", ""])
    def test_other_programs(self, program: str) -> None:
        check_spelling([program, *command("--epoch", "3")[1:]])

    def test_a_command_without_configs(self) -> None:
        check_spelling([PROGRAM, "run", "--epoch", "3"])

    def test_other_commands_of_monai(self) -> None:
        check_spelling([PROGRAM, "verify_net_in_out", *command("--epoch", "3")[2:]])
