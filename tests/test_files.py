"""A file appears whole or not at all."""

from pathlib import Path

import pytest

from scripts.files import replace_atomically


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
