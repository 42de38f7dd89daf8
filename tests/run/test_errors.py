"""A user's mistake is one sentence, a defect keeps its traceback."""

import errno
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset
from monai.utils import OptionalImportError, optional_import

from scripts.files.image_files import split_suffix
from scripts.network.inferers import fitting_window
from scripts.run.errors import explain_refusals, refusal_behind

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from scripts.run.errors import explain_refusals
from scripts.files.image_files import split_suffix
explain_refusals(["/anywhere/monai/bundle/__main__.py", "run"])
try:
    {statement}
except Exception as error:
    raise RuntimeError("applying transform") from error
"""

READ_BY_TWO_THREADS = """
    import time
    from monai.data import CacheDataset
    from monai.transforms import Lambda

    def read(path):
        if path.endswith("jpg"):
            split_suffix(path)
        time.sleep(1)
        print("read", path)

    CacheDataset(["cells.jpg", "a.tif"], Lambda(read), num_workers=2, progress=False)
"""


def run(statement: str, **environment: str) -> subprocess.CompletedProcess:
    root = str(Path(__file__).parents[2] / "spoco_bundle")
    script = SCRIPT.format(root=root, statement=statement)
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env)


def wrap(function: Callable[[], object]) -> None:
    try:
        function()
    except ValueError as error:
        raise RuntimeError("applying transform") from error


def test_a_refusal_is_found_behind_the_errors_that_wrap_it() -> None:
    with pytest.raises(RuntimeError) as wrapped:
        wrap(lambda: split_suffix("cells.jpg"))
    assert "cells.jpg" in str(refusal_behind(wrapped.value))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_refusal_is_found_in_what_the_process_of_a_data_loader_says(wrapped: bool) -> None:
    def read(path: str) -> None:
        wrap(lambda: split_suffix(path)) if wrapped else split_suffix(path)

    with pytest.raises((RuntimeError, ValueError)) as passed_on:
        list(DataLoader(Dataset(["cells.jpg"], read), num_workers=1))
    with pytest.raises(ValueError, match="cells.jpg") as refused:
        split_suffix("cells.jpg")
    assert str(refusal_behind(passed_on.value)) == str(refused.value)


def test_an_argument_that_a_component_does_not_take_is_named() -> None:
    parser = ConfigParser({"loss": {"_target_": "scripts.losses.SpocoLoss", "border_wieght": 3}})
    with pytest.raises(RuntimeError) as wrapped:
        parser.get_parsed_content("loss")
    from_python_3_13 = r"(\. Did you mean 'border_weight'\?)?"
    expected = rf".*got an unexpected keyword argument 'border_wieght'{from_python_3_13}"
    assert re.fullmatch(expected, str(refusal_behind(wrapped.value)))


def test_a_type_error_behind_a_component_is_a_defect() -> None:
    parser = ConfigParser({"lost": {"_target_": "json.loads", "s": 3}})
    with pytest.raises(RuntimeError) as wrapped:
        parser.get_parsed_content("lost")
    assert refusal_behind(wrapped.value) is None


@pytest.mark.parametrize("size", [None, []])
def test_an_error_of_our_own_that_is_no_refusal_is_a_defect(size: object) -> None:
    with pytest.raises((TypeError, ValueError)) as defect:
        fitting_window(size, 64, 0.25, 8)
    assert refusal_behind(defect.value) is None


def test_a_defect_instead_of_a_refusal_is_a_defect() -> None:
    def give_up() -> None:
        try:
            split_suffix("cells.jpg")
        except ValueError:
            raise RuntimeError("a defect") from None

    with pytest.raises(RuntimeError) as defect:
        give_up()
    assert refusal_behind(defect.value) is None


def test_a_package_that_is_not_installed_is_named() -> None:
    module, _ = optional_import("no_such_package")
    with pytest.raises(OptionalImportError) as missing:
        module.anything  # noqa: B018
    assert "no_such_package" in str(refusal_behind(missing.value))


def test_an_error_from_elsewhere_is_no_refusal() -> None:
    with pytest.raises(ValueError) as elsewhere:  # noqa: PT011
        int("not a number")
    assert refusal_behind(elsewhere.value) is None


def test_a_full_disk_is_no_defect_whoever_writes_to_it() -> None:
    assert refusal_behind(OSError(errno.ENOSPC, "No space left on device")) is not None
    assert refusal_behind(OSError(errno.EIO, "Input/output error")) is None


@pytest.mark.parametrize(
    "told",
    [
        "unable to allocate shared memory(shm) for file </torch_14168_1672130241_3>: No space left on device (28)",
        "DataLoader worker (pid 9) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
        "shared memory. Please try to raise your shared memory limit.",
    ],
)
def test_too_little_shared_memory_is_no_defect(told: str) -> None:
    """A container has 64 MB, unless it is told otherwise."""
    assert "expected more of it" in str(refusal_behind(RuntimeError(told)))


def test_a_path_without_access_is_no_defect_whoever_opens_it(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as opened:
        tmp_path.read_text()
    refusal = refusal_behind(opened.value)
    assert str(tmp_path) in str(refusal)
    assert refusal_behind(PermissionError(errno.EACCES, "Permission denied", "a.png")) is not None


def test_the_log_of_a_training_shows_no_traceback_of_a_refusal_or_an_interruption(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    explain_refusals(["/anywhere/monai/bundle/__main__.py", "run"])
    log = logging.getLogger("monai.handlers.StatsHandler")
    log.addHandler(caplog.handler)
    log.info("Epoch[1] Metrics")

    def interrupt() -> None:
        raise KeyboardInterrupt

    for function in (lambda: split_suffix("cells.jpg"), interrupt, lambda: int("a defect")):
        try:
            function()
        except (ValueError, KeyboardInterrupt) as error:
            log.exception("Exception: %s", error)
    log.removeHandler(caplog.handler)
    assert [record.getMessage()[:16] for record in caplog.records] == ["Epoch[1] Metrics", "Exception: inval"]


@pytest.mark.parametrize(("path", "is_refused"), [("cells.jpg", True), (None, False)])
def test_of_a_thread_only_a_defect_is_shown(
    path: str | None, is_refused: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # Python's own, not that of pytest
    explain_refusals(["/anywhere/monai/bundle/__main__.py", "run"])
    thread = threading.Thread(target=split_suffix, args=[path])
    thread.start()
    thread.join()
    assert ("Traceback" not in capsys.readouterr().err) == is_refused


def test_an_interruption_is_one_word() -> None:
    ended = run("raise KeyboardInterrupt")
    assert ended.stderr == "interrupted\n"
    assert ended.returncode == -signal.SIGINT


def test_a_refusal_ends_the_program_with_one_sentence() -> None:
    ended = run("split_suffix('cells.jpg')")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: cells.jpg: found the extension .jpg, expected one of")
    assert ended.stderr.count("\n") == 1


def test_the_threads_that_read_files_end_first() -> None:
    """Torch would abort the program where Python ends them instead."""
    ended = run(READ_BY_TWO_THREADS)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == "read a.tif\n"


def test_a_letter_that_the_encoding_of_the_log_lacks_is_escaped() -> None:
    ended = run(r"print('writing: \u6570.tif')", PYTHONIOENCODING="cp1252")
    assert ended.stdout == "writing: \\u6570.tif\n"
    assert ended.stderr == ""


def test_a_defect_keeps_its_traceback() -> None:
    ended = run("{}['missing']")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


@pytest.mark.parametrize("program", ["", "/home/me/analysis.py", "/usr/bin/pytest"])
def test_other_programs_that_use_the_bundle_keep_their_tracebacks(program: str) -> None:
    before = sys.excepthook
    explain_refusals([program])
    assert sys.excepthook is before
