"""A file appears whole or not at all."""

import json
from pathlib import Path

import pytest

from scripts.files import replace_atomically, write_json


def test_replaces_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "new_folder" / "result.json"
    for text in ("first", "second"):
        replace_atomically(target, lambda path, text=text: path.write_text(text))
    assert target.read_text() == "second"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    target.write_text("old")

    def fail_halfway(path: Path) -> None:
        path.write_text("hal")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_atomically(target, fail_halfway)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_name_keeps_the_extension(tmp_path: Path) -> None:
    seen: list[str] = []
    replace_atomically(tmp_path / "a.nii.gz", lambda path: (seen.append(path.name), path.touch()))
    assert seen[0].endswith(".nii.gz")


def test_json_that_cannot_be_written_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"mean": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"mean": float("nan")})
    assert json.loads(path.read_text()) == {"mean": 1.0}
    assert list(tmp_path.iterdir()) == [path]
