"""Show a user's mistake as one sentence instead of a page of traceback."""

from __future__ import annotations

import errno
import io
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.dummy import DummyProcess
from types import TracebackType

from monai.apps.utils import get_logger
from monai.utils import OptionalImportError
from monai.utils.module import instantiate

from ..refusals import InputError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
SECONDS_TO_FINISH = 10.0

# what torch passes on of the error of a data loader's process: the text of its traceback
REFUSED_BY_A_WORKER = re.compile(rf"^{InputError.__module__}\.{InputError.__name__}: (.+)$", re.MULTILINE)
# what torch says where the processes of a data loader cannot pass a batch on, at once or when it is written to
NO_SHARED_MEMORY = re.compile(r"unable to \w+ shared memory|out of shared memory")


def is_bundle_command(command: Sequence[str]) -> bool:
    """Whether a program, as in `sys.argv`, is ``python -m monai.bundle``, and not one that uses the bundle."""
    return command[0].replace("\\", "/").endswith("monai/bundle/__main__.py")


def explain_refusals(command: Sequence[str]) -> None:
    """Make Python end with one line on standard error, and status 1, when this package refused its input.

    Only where `command`, as in `sys.argv`, is MONAI's: in other programs errors are not ours alone.

    MONAI wraps an error of a transform or of a config in errors of its own. What the user needs is behind them: the
    first one is printed alone that is an `InputError`, an OSError raised in `scripts`, an argument in a config that a
    component does not take, a package that is not installed, a full disk, too little shared memory, or a path that
    cannot be read or written. Anything else is a defect and keeps its traceback. Of an interruption there is nothing to
    explain.

    A log that goes to a file may be in an encoding that lacks a letter of a file name, as on Windows: it is escaped,
    where `logging` would print a page of traceback instead of the line.
    """
    if not is_bundle_command(command):
        return
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error has it
    sys.excepthook = _print_exception
    threading.excepthook = _print_exception_of_thread
    get_logger("monai.handlers.StatsHandler").addFilter(_is_news)


def refusal_behind(error: BaseException | None) -> BaseException | None:
    """The first refusal on the way from an exception to its root, or None if there is none."""
    while error is not None:
        if refused := REFUSED_BY_A_WORKER.search(str(error)):
            return InputError(refused[1])
        if NO_SHARED_MEMORY.search(str(error)):
            return InputError(
                "num_workers: found too little shared memory (/dev/shm) for the batches of so many processes, expected "
                "more of it, as of docker run --shm-size 2g, or --num_workers 0."
            )
        if isinstance(error, InputError | OptionalImportError):  # the message of the latter says what to install
            return error
        if isinstance(error, TypeError) and _raised_in(error) == instantiate.__module__:  # by the call, not behind it
            return error
        if isinstance(error, OSError) and (
            error.errno in FULL_DISK + NO_ACCESS or _raised_in(error).startswith("scripts.")
        ):
            return error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def _raised_in(error: BaseException) -> str:
    """Name of the module, "" where no traceback tells."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return frames[-1][0].f_globals.get("__name__", "") if frames else ""


def _print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    refusal = refusal_behind(error)
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    elif refusal is None:
        sys.__excepthook__(kind, error, trace)
    else:
        sentence, _, _ = str(refusal).partition("\n")  # MONAI's of a missing package goes on with a traceback
        print(f"error: {sentence}", file=sys.stderr)
    _await_readers()


def _await_readers() -> None:
    """Let the threads with which MONAI's CacheDataset reads files end the one that they are at.

    Its pool leaves them behind when one of them refuses a file. Python ends such threads where they are; inside torch
    that aborts the program: "terminate called without an active exception", and status 134.
    """
    latest = time.monotonic() + SECONDS_TO_FINISH
    for thread in threading.enumerate():
        if isinstance(thread, DummyProcess):
            thread.join(max(0.0, latest - time.monotonic()))


def _print_exception_of_thread(arguments: threading.ExceptHookArgs) -> None:
    """A thread that TensorBoard writes with dies of a full disk; the main thread meets the same error."""
    if refusal_behind(arguments.exc_value) is None:
        threading.__excepthook__(arguments)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a log record has no traceback of what `_print_exception` says in one line at the end."""
    error = record.exc_info[1] if record.exc_info else None
    return refusal_behind(error) is None and not isinstance(error, KeyboardInterrupt)
