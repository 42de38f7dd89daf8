"""The processes of a distributed training."""

import pytest

from scripts.run.processes import process_rank


def test_the_rank_is_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    assert process_rank() == 3


def test_a_training_that_torchrun_did_not_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="^RANK: found no such environment variable, expected that torchrun sets it"):
        process_rank()
