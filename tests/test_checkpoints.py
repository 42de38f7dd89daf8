"""Weights and settings on disk."""

from pathlib import Path

import pytest
import torch
from torch import nn

from scripts.checkpoints import WeightsLoader, begin_training, load_weights, read_settings, start_from


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

    def test_refuses_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"model.pt: found no such file"):
            load_weights(nn.Linear(3, 2), tmp_path / "model.pt")

    def test_the_handler_loads_when_the_engine_starts(self, saved: Path) -> None:
        network = nn.Linear(3, 2)
        WeightsLoader(network, str(saved))(None)
        assert torch.equal(network.weight, torch.load(saved)["weight"])


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
    def test_what_training_writes_inference_reads(self, tmp_path: Path) -> None:
        begin_training(tmp_path / "new", {"embedding_dim": 8}, resumed=False)
        assert read_settings(tmp_path / "new") == {"embedding_dim": 8}

    def test_nothing_written_nothing_known(self, tmp_path: Path) -> None:
        assert read_settings(tmp_path) == {}

    def test_refuses_broken_settings(self, tmp_path: Path) -> None:
        (tmp_path / "model.json").write_text("{")
        with pytest.raises(ValueError, match=r"model.json: found broken JSON"):
            read_settings(tmp_path)
        (tmp_path / "model.json").write_text("[]")
        with pytest.raises(ValueError, match="found list, expected a JSON object"):
            read_settings(tmp_path)

    def test_earlier_weights_are_kept_under_another_name(self, saved: Path) -> None:
        content = saved.read_bytes()
        begin_training(saved.parent, {}, resumed=False)
        assert (saved.parent / "model_before_1.pt").read_bytes() == content
        saved.write_bytes(b"second")
        begin_training(saved.parent, {}, resumed=False)
        assert (saved.parent / "model_before_1.pt").read_bytes() == content
        assert (saved.parent / "model_before_2.pt").read_bytes() == b"second"

    def test_a_resumed_training_goes_on_with_its_own_weights(self, saved: Path) -> None:
        begin_training(saved.parent, {}, resumed=True)
        assert saved.exists()
