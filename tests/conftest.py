"""What holds for all tests.

Hypothesis tries few examples in `make test`, many with ``pytest --hypothesis-profile thorough``. Where there is no GPU,
Triton's kernels are interpreted, which must be settled before Triton is imported.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import settings
from monai.utils import set_determinism

from scripts.notices import SaidOnce
from scripts.synthetic.images import synthetic_nuclei

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


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """One small volume whose three sides differ, and its labels."""
    image, labels = synthetic_nuclei((20, 24, 28), object_diameter=12, seed=1)
    for folder, array in (("images", image), ("labels", labels.astype(np.uint16))):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "nuclei.tif", array, metadata={"axes": "ZYX"})
    return tmp_path


@pytest.fixture
def clean_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what the configs do to a process: error messages, seeds, module path."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield
    set_determinism(None)
