"""Files that appear whole or not at all, and are checked to be whole when they are read."""

from __future__ import annotations

import glob
import hashlib
import io
import itertools
import json
import logging
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import Any
from uuid import uuid4

import torch

from ..refusals import InputError

logger = logging.getLogger(__name__)

ASIDE = "_before_"  # and a number: what is added to the name of a file whose place another one takes
IN_USE = 300  # seconds that no file takes to be written


class UnwritableFile(OSError):
    """A file could not be written; what was there before is untouched."""


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Give a temporary path beside the target to write to, which then replaces the target.

    The temporary name ends in the target's, by whose extension many writers choose their format. When anything
    fails, the temporary file is removed and the target is what it was before.

    Raises:
        UnwritableFile: a full disk, a folder that is no folder or may not be written to.
    """
    with whole_files([target]) as (temporary,):
        yield temporary


@contextmanager
def whole_files(
    targets: Sequence[Path], make_room: Callable[[Sequence[Path]], None] = lambda _: None
) -> Iterator[list[Path]]:
    """As `whole_file`, for files that belong together: none takes its place before all of them are on the disk.

    Args:
        targets: in one folder.
        make_room: is called with the temporary paths when they are, just before the first one takes its place.
    """
    temporaries = [target.with_name(f".{uuid4().hex[:8]}.{target.name}") for target in targets]
    folder = targets[0].parent
    unnamed = targets[0] if len(targets) == 1 else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield temporaries
        for temporary in temporaries:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())  # some disks say only now that they are full
        make_room(temporaries)
        for temporary, target in zip(temporaries, targets, strict=True):
            os.replace(temporary, target)
    except UnwritableFile:
        raise  # of another file that is written together with these
    except OSError as error:
        target_of = {**dict(zip(temporaries, targets, strict=True)), **dict.fromkeys(targets[0].parents, unnamed)}
        touched = unnamed if error.filename is None else Path(error.filename)
        raise UnwritableFile(
            f"{target_of.get(touched, touched)}: found that it cannot be written ({error.strerror or error}), expected "
            "a folder with free space and the right to write; what was there before is untouched."
        ) from error
    finally:
        for temporary in temporaries:
            with suppress(OSError):
                temporary.unlink()


def move_aside(
    targets: Sequence[Path], suffix_of: Callable[[Path], str] = lambda path: path.suffix
) -> dict[Path, Path]:
    """Rename those that are there to NAME_before_N.EXT, with the first number N that none of them has yet.

    Args:
        suffix_of: gives the extension of a name, which may have several points.

    Returns:
        old path -> new path.
    """
    for number in itertools.count(1):
        aside = {path: _with_infix(path, f"{ASIDE}{number}", suffix_of(path)) for path in targets}
        if not any(path.exists() for path in aside.values()):
            break
    moved = {path: new for path, new in aside.items() if path.exists()}
    for path, new in moved.items():
        path.rename(new)
    return moved


def moved_aside(path: Path) -> list[Path]:
    """Where files lie that were at `path` before."""
    return sorted(path.parent.glob(f"{glob.escape(path.stem)}{ASIDE}*{path.suffix}"))


def _with_infix(path: Path, infix: str, suffix: str) -> Path:
    return path.with_name(f"{path.name.removesuffix(suffix)}{infix}{suffix}")


def remove_leftovers(target: Path) -> None:
    """Remove the temporary files that a killed process left of `whole_file`, unless they are new and may be in use."""
    for path in target.parent.glob(f".{'[0-9a-f]' * 8}.{glob.escape(target.name)}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > IN_USE:
                path.unlink()
                logger.info("%s: removed, as a process that was killed had left it", path)


def check_writable(folders: Sequence[Path | str]) -> None:
    """Refuse folders in which no file can be made; those that are not there yet are not made, either.

    Raises:
        UnwritableFile: a file in the way, a read-only folder, a path that cannot be.
    """
    for folder in map(Path, folders):
        try:
            with TemporaryFile(dir=_nearest(folder)):  # without a name: permissions alone do not tell a read-only disk
                pass
        except OSError as error:
            raise UnwritableFile(
                f"{folder}: found that no file can be made there ({error.strerror or error}), expected a folder, or "
                "place for one, with the right to write."
            ) from error


def tells_case_apart(folder: Path) -> bool:
    """Whether `a.tif` and `A.tif` are two files in a folder, which need not be there yet: not on Windows and most Macs.

    Raises:
        OSError: no file can be made there.
    """
    with NamedTemporaryFile(prefix="case_", dir=_nearest(folder)) as file:
        path = Path(file.name)
        return not path.with_name(path.name.swapcase()).exists()


def _nearest(folder: Path) -> Path:
    """The folder, or that of its parents in which it would be made."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())


@contextmanager
def warn_if_unwritable() -> Iterator[None]:
    """Go on with a warning where a file that nothing depends on could not be written."""
    try:
        yield
    except OSError as error:
        logger.warning("the run goes on without a file: %s", error)


def json_text(content: Any) -> str:
    """JSON for a file; NaN is refused."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def write_json(target: Path, content: Any) -> None:
    """Write `json_text` so that a reader finds the old file or the new one, but never half of one."""
    with whole_file(target) as temporary:
        temporary.write_text(json_text(content), encoding="utf-8")


def content_digest(path: Path | str) -> str:
    """What a file holds, in 16 characters: the same for the same content, under whatever name and date."""
    digest = hashlib.blake2b(digest_size=8)
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def write_tensors(path: Path, content: Any) -> None:
    """`torch.save`, but a full disk is the OSError that it is: torch's own writer makes another error of it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getbuffer())


def read_tensors(path: Path, expected: str) -> Any:
    """`torch.load` onto the CPU of tensors, numbers, texts and containers of them.

    Args:
        path: a file that `torch.save` wrote.
        expected: what it should hold, for the message.

    Raises:
        ValueError: a broken file, or one that holds anything else.
    """
    try:
        _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, torch.OutOfMemoryError, PermissionError):
        raise  # which says nothing about the file
    except Exception as error:  # a broken file raises one of many types
        raise InputError(
            f"{path}: found a file that torch cannot read ({type(error).__name__}), expected {expected}."
        ) from error


def _check_sums(path: Path) -> None:
    """Compare the checksums in a file of `torch.save`, a zip archive: torch writes them, but does not read them."""
    if not zipfile.is_zipfile(path):
        return  # torch's older format, or a broken file
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
