"""What holds for all tests.

Hypothesis tries few examples in `make test`, many with ``pytest --hypothesis-profile thorough``. Where there is no GPU,
Triton's kernels are interpreted, which must be settled before Triton is imported.
"""

from __future__ import annotations

import logging
import os

import pytest
import torch
from hypothesis import settings

from scripts.notices import SaidOnce

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

settings.register_profile("quick", max_examples=250, deadline=None)
settings.register_profile("thorough", max_examples=10_000, deadline=None)
settings.load_profile("quick")


@pytest.fixture(autouse=True)
def nothing_was_said() -> None:
    """Each test hears what an earlier one has heard."""
    for logger in logging.Logger.manager.loggerDict.values():
        for said in getattr(logger, "filters", ()):
            if isinstance(said, SaidOnce):
                said.said.clear()
