"""What is freed stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from ignite.engine import Engine

from scripts.training import freed_memory
from scripts.training.freed_memory import KeepFreedMemory

BUNDLE = Path(__file__).parents[2] / "spoco_bundle"
# minor page faults of a round in which eight blocks of 2 MiB are written and freed, after some such rounds
FAULTS = """
import resource, sys
import numpy as np
from scripts.training.freed_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.ones(2**18) for _ in range(8)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(argument: str) -> int:
    command = [sys.executable, "-c", FAULTS, argument]
    return int(subprocess.run(command, cwd=BUNDLE, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries cannot be told")
def test_freed_blocks_are_not_fetched_again() -> None:
    kept = faults("keep")
    assert kept < 100
    assert kept <= faults("")  # 4000 with small pages; a system may have large ones


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda _: object())
    assert not freed_memory.keep_freed_memory()
    engine = Engine(lambda engine, batch: None)
    KeepFreedMemory().attach(engine)
    engine.run([0], max_epochs=1)
