"""Weights and settings on disk."""

import json
import re
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from scripts.network.checkpoints import (
    WeightsCheckpointLoader,
    load_weights,
    read_settings,
    remind_of_special_labels,
    start_from,
    starting_weights,
    trained_voxel_shape,
    weights_fit,
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


class TestLoadWeights:
    def test_loads_a_bare_state_dict(self, saved: Path) -> None:
        network = nn.Linear(3, 2)
        load_weights(network, saved)
        assert torch.equal(network.weight, torch.load(saved)["weight"])

    def test_refuses_another_shape_and_names_it(self, saved: Path) -> None:
        with pytest.raises(ValueError, match=r"model.pt: .*weight has the shape \(2, 3\) instead of \(2, 4\)"):
            load_weights(nn.Linear(4, 2), saved)

    def test_refuses_another_kind_of_numbers_and_names_it(self, saved: Path) -> None:
        torch.save({name: tensor.long() for name, tensor in nn.Linear(3, 2).state_dict().items()}, saved)
        with pytest.raises(ValueError, match=r"weight is of torch\.int64 instead of torch\.float32"):
            load_weights(nn.Linear(3, 2), saved)

    def test_refuses_another_architecture_and_names_the_entry(self, saved: Path) -> None:
        with pytest.raises(ValueError, match="no entry 0.weight"):
            load_weights(nn.Sequential(nn.Linear(3, 2)), saved)
        with pytest.raises(ValueError, match="a further entry bias"):
            load_weights(nn.Linear(3, 2, bias=False), saved)

    def test_refuses_a_broken_file(self, saved: Path) -> None:
        saved.write_bytes(saved.read_bytes()[:100])
        with pytest.raises(ValueError, match=r"model.pt: found a file that torch cannot read"):
            load_weights(nn.Linear(3, 2), saved)

    @pytest.mark.parametrize(
        ("content", "difference"),
        [
            ([1, 2], "a list instead of a state_dict"),
            ({"epoch": 3}, "no entry weight"),
            ({"weight": "heavy"}, "weight is a str instead of a tensor"),
        ],
    )
    def test_refuses_what_is_no_state_dict(self, saved: Path, content: object, difference: str) -> None:
        torch.save(content, saved)
        with pytest.raises(ValueError, match=rf"model.pt: found weights of another architecture \({difference}\)"):
            load_weights(nn.Linear(3, 2), saved)

    def test_refuses_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"model.pt: found no such file"):
            load_weights(nn.Linear(3, 2), tmp_path / "model.pt")

    def test_the_handler_loads_when_the_engine_starts(self, saved: Path) -> None:
        network = nn.Linear(3, 2)
        seen = []
        engine = Engine(lambda _, batch: seen.append(network.weight.clone()))
        WeightsCheckpointLoader(network, str(saved)).attach(engine)
        engine.run([0])
        assert torch.equal(seen[0], torch.load(saved)["weight"])


class TestWeightsFit:
    def test_those_of_the_same_network(self, saved: Path) -> None:
        assert weights_fit(nn.Linear(3, 2), saved)

    def test_others_do_not(self, saved: Path, tmp_path: Path) -> None:
        assert not weights_fit(nn.Linear(4, 2), saved)
        assert not weights_fit(nn.Linear(3, 2), None)
        (tmp_path / "broken.pt").write_bytes(b"broken")
        assert not weights_fit(nn.Linear(3, 2), tmp_path / "broken.pt")


class TestStartingWeights:
    def test_those_that_are_there(self, saved: Path) -> None:
        assert starting_weights(str(saved), shipped="models/model.pt") == saved

    @pytest.mark.parametrize("nothing", [None, "null"])
    def test_none_on_request(self, nothing: str | None) -> None:
        assert starting_weights(nothing, shipped="models/model.pt") is None

    def test_a_file_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(
            FileNotFoundError, match=r"typo\.pt: found no such file, expected weights to start from, or"
        ):
            starting_weights(tmp_path / "typo.pt", shipped="models/model.pt")

    def test_a_folder_is_told_which_file_to_give(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"found a folder, expected the file of weights .*model\.pt\.$"):
            starting_weights(tmp_path, shipped="models/model.pt")

    def test_a_file_that_holds_no_weights_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "model.json").write_text("{}")
        with pytest.raises(ValueError, match=r"model\.json: found a file that torch cannot read .* weights to start"):
            starting_weights(tmp_path / "model.json", shipped="models/model.pt")

    def test_a_copy_of_the_bundle_without_weights_says_so(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        shipped = str(tmp_path / "models" / "model.pt")
        assert starting_weights(shipped, shipped) is None
        assert f"no weights {shipped}" in caplog.text


class TestStartFrom:
    def test_takes_weights_that_fit(self, saved: Path) -> None:
        assert torch.equal(start_from(nn.Linear(3, 2), saved, "shipped.pt").weight, torch.load(saved)["weight"])

    def test_keeps_random_weights_where_the_shipped_ones_do_not_fit(
        self, saved: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        network = nn.Linear(4, 2)
        before = network.weight.clone()
        assert torch.equal(start_from(network, saved, shipped=str(saved)).weight, before)
        assert "random weights" in caplog.text
        assert torch.equal(start_from(network, None, shipped=str(saved)).weight, before)

    def test_shipped_ones_that_were_moved_aside_are_still_shipped(self, saved: Path) -> None:
        aside = saved.rename(saved.with_name("model_before_1.pt"))
        network = nn.Linear(4, 2)
        before = network.weight.clone()
        assert torch.equal(start_from(network, aside, shipped=str(saved)).weight, before)

    def test_refuses_weights_that_somebody_named_and_that_do_not_fit(self, saved: Path) -> None:
        with pytest.raises(ValueError, match=r"model\.pt: found weights of another architecture"):
            start_from(nn.Linear(4, 2), saved, shipped="shipped.pt")


class TestSpecialLabels:
    def test_what_is_not_given_again_is_an_object(self, caplog: pytest.LogCaptureFixture) -> None:
        trained = {"background_label": 7, "ignore_label": None}
        remind_of_special_labels(trained, background_label=None, ignore_label=9)
        assert [record.getMessage() for record in caplog.records] == [
            "the weights were trained with background_label 7, which is not given now: 7 is an object"
        ]

    @pytest.mark.parametrize("trained", [{}, {"background_label": None}, {"background_label": 7}])
    def test_what_is_given_needs_no_word(self, trained: dict[str, object], caplog: pytest.LogCaptureFixture) -> None:
        remind_of_special_labels(trained, background_label=7, ignore_label=None)
        assert caplog.records == []


class TestSettings:
    def test_nothing_written_nothing_known(self, tmp_path: Path) -> None:
        assert read_settings(tmp_path) == {}

    def test_weights_without_settings_are_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "model.pt").touch()
        assert read_settings(tmp_path) == {}
        assert "model.json: found no such file beside the weights" in caplog.text

    def test_refuses_broken_settings(self, tmp_path: Path) -> None:
        (tmp_path / "model.json").write_text("{")
        with pytest.raises(ValueError, match=r"model.json: found broken JSON"):
            read_settings(tmp_path)
        (tmp_path / "model.json").write_text("[]")
        with pytest.raises(ValueError, match="found list, expected a JSON object"):
            read_settings(tmp_path)

    @pytest.mark.parametrize("settings", [{"spacing": 5}, {"voxel_shape": ["a"]}, {"stated_axes": [1, 0]}])
    def test_refuses_what_is_not_along_axes(self, tmp_path: Path, settings: dict[str, object]) -> None:
        ((name, value),) = settings.items()
        (tmp_path / "model.json").write_text(json.dumps(settings))
        with pytest.raises(ValueError, match=re.escape(f"model.json: found {name} {value!r}, expected a list")):
            read_settings(tmp_path)

    @pytest.mark.parametrize(("trained", "asked", "remedy"), [(2, 3, "add configs"), (3, 2, "leave configs")])
    def test_weights_for_other_images_say_which_config_fits(
        self, tmp_path: Path, trained: int, asked: int, remedy: str
    ) -> None:
        (tmp_path / "model.json").write_text(f'{{"spatial_dims": {trained}}}')
        with pytest.raises(ValueError, match=f"model.json: found weights for {trained}D images.*{remedy}"):
            read_settings(tmp_path, asked)
        assert read_settings(tmp_path, trained) == {"spatial_dims": trained}


class TestTrainedVoxelShape:
    """Weights beside a model.json of a network with one channel."""

    @pytest.fixture
    def weights(self, saved: Path) -> Path:
        settings = {"spatial_dims": 3, "in_channels": 1, "voxel_shape": [4.0, 1.0, 1.0]}
        saved.with_suffix(".json").write_text(json.dumps(settings))
        return saved

    def test_that_of_the_weights(self, weights: Path) -> None:
        assert trained_voxel_shape(weights, spatial_dims=3, in_channels=1) == [4.0, 1.0, 1.0]

    def test_cubes_where_none_is_written(self, weights: Path) -> None:
        weights.with_suffix(".json").write_text(json.dumps({"spatial_dims": 2, "voxel_shape": None}))
        assert trained_voxel_shape(weights, spatial_dims=2) == [1.0, 1.0]

    def test_none_of_weights_that_cannot_serve(self, weights: Path) -> None:
        assert trained_voxel_shape(weights, spatial_dims=3, in_channels=3) is None
        assert trained_voxel_shape(None, spatial_dims=3, in_channels=1) is None
        weights.with_suffix(".json").unlink()
        assert trained_voxel_shape(weights, spatial_dims=3, in_channels=1) is None
