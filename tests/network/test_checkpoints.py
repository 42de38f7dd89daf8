"""Weights and settings on disk."""

import os
import resource
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from scripts.files.whole_files import UnwritableFile
from scripts.network.checkpoints import (
    BestWeightsSaver,
    WeightsLoader,
    load_weights,
    read_settings,
    start_from,
    starting_weights,
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
        WeightsLoader(network, str(saved))(None)
        assert torch.equal(network.weight, torch.load(saved)["weight"])


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
        assert torch.equal(start_from(nn.Linear(3, 2), saved).weight, torch.load(saved)["weight"])

    def test_keeps_random_weights_where_nothing_fits(self, saved: Path, caplog: pytest.LogCaptureFixture) -> None:
        network = nn.Linear(4, 2)
        before = network.weight.clone()
        assert torch.equal(start_from(network, saved).weight, before)
        assert "random weights" in caplog.text
        assert torch.equal(start_from(network, None).weight, before)


class TestSettings:
    def test_nothing_written_nothing_known(self, tmp_path: Path) -> None:
        assert read_settings(tmp_path) == {}

    def test_refuses_broken_settings(self, tmp_path: Path) -> None:
        (tmp_path / "model.json").write_text("{")
        with pytest.raises(ValueError, match=r"model.json: found broken JSON"):
            read_settings(tmp_path)
        (tmp_path / "model.json").write_text("[]")
        with pytest.raises(ValueError, match="found list, expected a JSON object"):
            read_settings(tmp_path)

    @pytest.mark.parametrize(("trained", "asked", "remedy"), [(2, 3, "add configs"), (3, 2, "leave configs")])
    def test_weights_for_other_images_say_which_config_fits(
        self, tmp_path: Path, trained: int, asked: int, remedy: str
    ) -> None:
        (tmp_path / "model.json").write_text(f'{{"spatial_dims": {trained}}}')
        with pytest.raises(ValueError, match=f"model.json: found weights for {trained}D images.*{remedy}"):
            read_settings(tmp_path, asked)
        assert read_settings(tmp_path, trained) == {"spatial_dims": trained}


class TestBestWeightsSaver:
    """The weights are those of the best validation; their bias tells which one that was."""

    @pytest.fixture
    def network(self) -> nn.Linear:
        return nn.Linear(3, 2)

    @staticmethod
    def saver(folder: Path, network: nn.Module) -> BestWeightsSaver:
        return BestWeightsSaver(str(folder), {"model.pt": network}, {"embedding_dim": 8})

    @staticmethod
    def validate(saver: BestWeightsSaver, value: float) -> None:
        """One validation whose key metric is `value`, with a network whose bias is `value`."""
        nn.init.constant_(saver.networks["model.pt"].bias, value)
        engine = Engine(lambda engine, batch: None)
        engine.state.metrics, engine.state.key_metric_name = {"iou": value}, "iou"
        saver(engine)

    @staticmethod
    def saved_value(folder: Path) -> float:
        return float(torch.load(folder / "model.pt", weights_only=True)["bias"][0])

    def test_the_best_weights_stay(self, tmp_path: Path, network: nn.Linear) -> None:
        saver = self.saver(tmp_path, network)
        for value in (1.0, 3.0, 2.0):
            self.validate(saver, value)
        assert self.saved_value(tmp_path) == 3.0

    def test_a_resumed_training_remembers_the_best(self, tmp_path: Path, network: nn.Linear) -> None:
        first = self.saver(tmp_path, network)
        self.validate(first, 3.0)
        resumed = self.saver(tmp_path, network)
        resumed.load_state_dict(first.state_dict())
        self.validate(resumed, 2.0)
        assert self.saved_value(tmp_path) == 3.0
        assert {path.name for path in tmp_path.iterdir()} == {"model.pt", "model.json"}

    def test_a_resumed_training_without_its_weights_keeps_the_best_from_then_on(
        self, tmp_path: Path, network: nn.Linear, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = self.saver(tmp_path / "first", network)
        self.validate(first, 3.0)
        resumed = self.saver(tmp_path / "second", network)
        resumed.load_state_dict(first.state_dict())
        assert "second: found other weights than this training wrote" in caplog.text
        for value in (1.0, 2.0, 1.5):
            self.validate(resumed, value)
        assert self.saved_value(tmp_path / "second") == 2.0

    def test_a_resumed_training_destroys_no_weights_of_another_folder(
        self, saved: Path, tmp_path: Path, network: nn.Linear
    ) -> None:
        content = saved.read_bytes()
        first = self.saver(tmp_path / "first", network)
        self.validate(first, 3.0)
        resumed = self.saver(saved.parent, network)
        resumed.load_state_dict(first.state_dict())
        self.validate(resumed, 4.0)
        assert (saved.parent / "model_before_1.pt").read_bytes() == content

    def test_two_trainings_at_once_lose_nothing(self, tmp_path: Path) -> None:
        one, other = self.saver(tmp_path, nn.Linear(3, 2)), self.saver(tmp_path, nn.Linear(3, 2))
        for saver, value in ((one, 1.0), (other, 2.0), (one, 3.0)):
            self.validate(saver, value)
        biases = {float(torch.load(path, weights_only=True)["bias"][0]) for path in tmp_path.glob("model*.pt")}
        assert biases == {1.0, 2.0, 3.0}

    def test_weights_that_are_written_again_are_not_kept_twice(self, tmp_path: Path, network: nn.Linear) -> None:
        """A training that is killed right after it wrote them writes the same ones again."""
        interrupted = self.saver(tmp_path, network)
        self.validate(interrupted, 1.0)
        state = {**interrupted.state_dict(), "written": dict(interrupted.written)}
        self.validate(interrupted, 2.0)
        resumed = self.saver(tmp_path, network)
        resumed.load_state_dict(state)
        self.validate(resumed, 2.0)
        assert {path.name for path in tmp_path.iterdir()} == {"model.pt", "model.json"}

    def test_what_belongs_together_is_kept_under_one_number(self, tmp_path: Path, network: nn.Linear) -> None:
        self.validate(self.saver(tmp_path, network), 1.0)
        for value in (2.0, 3.0):
            networks = {"model.pt": network, "teacher.pt": nn.Linear(3, 2)}
            self.validate(BestWeightsSaver(str(tmp_path), networks, {"value": value}), value)
        assert not (tmp_path / "teacher_before_1.pt").exists()
        assert (tmp_path / "teacher_before_2.pt").exists()
        assert '"value": 2.0' in (tmp_path / "model_before_2.json").read_text()

    def test_inference_reads_the_settings(self, tmp_path: Path, network: nn.Linear) -> None:
        self.validate(self.saver(tmp_path / "new", network), 1.0)
        assert read_settings(tmp_path / "new") == {"embedding_dim": 8}

    def test_earlier_weights_stay_until_there_are_better_ones(self, saved: Path, network: nn.Linear) -> None:
        content = saved.read_bytes()
        saver = self.saver(saved.parent, network)
        assert saved.read_bytes() == content
        self.validate(saver, 1.0)
        assert (saved.parent / "model_before_1.pt").read_bytes() == content

    def test_on_a_full_disk_all_earlier_files_stay_in_their_place(self, saved: Path, network: nn.Linear) -> None:
        """Weights that cannot be saved end the training; the limit on the size of a file stands in for the disk."""
        folder = saved.parent
        saver = BestWeightsSaver(str(folder), {"model.pt": network, "teacher.pt": nn.Linear(3, 2000)}, {})
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
            with pytest.raises(UnwritableFile, match=r"teacher\.pt: found that it cannot be written"):
                self.validate(saver, 1.0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_all_files_are_written_before_one_takes_its_place(
        self, tmp_path: Path, network: nn.Linear, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A training that is killed before that leaves what was there, settings included."""
        saver = self.saver(tmp_path, network)
        self.validate(saver, 1.0)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

        def killed(*paths: object) -> None:
            written = {path.name for path in tmp_path.iterdir()} - before.keys()
            assert {name.split(".", 2)[2] for name in written} == before.keys()  # .12345678.model.pt
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            self.validate(saver, 2.0)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_each_training_keeps_those_of_the_one_before(self, saved: Path, network: nn.Linear) -> None:
        self.validate(self.saver(saved.parent, network), 1.0)
        self.validate(self.saver(saved.parent, network), 2.0)
        assert self.saved_value(saved.parent) == 2.0
        assert {path.name for path in saved.parent.glob("*.pt")} == {
            "model.pt",
            "model_before_1.pt",
            "model_before_2.pt",
        }
