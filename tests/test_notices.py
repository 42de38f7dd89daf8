"""What is said once."""

from __future__ import annotations

import logging

import pytest

from scripts.notices import SaidOnce


def test_a_message_is_said_once_of_each_file(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("said once")
    logger.addFilter(SaidOnce())
    for file in ("a.tif", "a.tif", "b.tif", "a.tif"):
        logger.warning("%s: found no voxel size", file)
    assert caplog.messages == ["a.tif: found no voxel size", "b.tif: found no voxel size"]
