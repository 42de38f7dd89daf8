"""What is said once, and now and then."""

from __future__ import annotations

import logging
import time

import pytest

from scripts.notices import SILENCE, SaidOnce, counted_aloud


def test_a_message_is_said_once_of_each_file(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("said once")
    logger.addFilter(SaidOnce())
    for file in ("a.tif", "a.tif", "b.tif", "a.tif"):
        logger.warning("%s: found no voxel size", file)
    assert caplog.messages == ["a.tif: found no voxel size", "b.tif: found no voxel size"]


@pytest.mark.parametrize(
    ("seconds_an_item", "expected"), [(SILENCE / 100, []), (SILENCE / 2, ["2 of 5"]), (SILENCE, ["1 of 5", "2 of 5"])]
)
def test_what_takes_long_is_counted_aloud(
    seconds_an_item: float, expected: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    done = []
    for item in counted_aloud("abcde", logging.getLogger("counted"), "%d of %d"):
        done.append(item)
        now += seconds_an_item
    assert done == [*"abcde"]
    assert caplog.messages[: len(expected)] == expected
    assert bool(caplog.messages) == bool(expected)
