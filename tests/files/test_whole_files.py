"""A file appears whole or not at all, and a broken one is recognised."""

import errno
import json
import logging
import os
import pickle
from collections import Counter
from pathlib import Path

import pytest
import torch
from full_disk import room_for

from scripts.files.whole_files import (
    UnwritableFile,
    check_writable,
    content_digest,
    move_aside,
    moved_aside,
    read_tensors,
    remove_leftovers,
    tells_case_apart,
    warn_if_unwritable,
    whole_file,
    whole_files,
    write_json,
    write_tensors,
)


class TestWholeFile:
    def test_replaces_the_old_content(self, tmp_path: Path) -> None:
        target = tmp_path / "new_folder" / "result.json"
        for text in ("first", "second"):
            with whole_file(target) as temporary:
                temporary.write_text(text)
        assert target.read_text() == "second"
        assert list(target.parent.iterdir()) == [target]

    def test_a_failure_leaves_the_old_content_and_nothing_else(self, tmp_path: Path) -> None:
        target = tmp_path / "result.json"
        target.write_text("old")

        def fail_halfway() -> None:
            with whole_file(target) as temporary:
                temporary.write_text("hal")
                raise KeyError

        with pytest.raises(KeyError):
            fail_halfway()
        assert target.read_text() == "old"
        assert list(tmp_path.iterdir()) == [target]

    def test_the_temporary_name_keeps_the_extension(self, tmp_path: Path) -> None:
        with whole_file(tmp_path / "a.nii.gz") as temporary:
            assert temporary.name.endswith(".nii.gz")
            temporary.touch()

    def test_a_file_in_place_of_the_folder_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "results").touch()
        with pytest.raises(UnwritableFile, match=r"results/a\.json: found that it cannot be written \(.*\), expected"):
            write_json(tmp_path / "results" / "a.json", {})

    def test_the_sentence_names_the_file_that_failed_of_two_written_together(self, tmp_path: Path) -> None:
        with pytest.raises(UnwritableFile) as failure, whole_file(tmp_path / "a"), whole_file(tmp_path / "b") as second:
            raise OSError(errno.ENOSPC, "No space left on device", second)
        assert str(failure.value).startswith(f"{tmp_path / 'b'}: found that it cannot be written (No space left")
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_was_touched_meanwhile_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UnwritableFile, match="other.pt: found that it"), whole_file(tmp_path / "model.pt"):
            raise PermissionError(errno.EACCES, "Permission denied", "other.pt")

    def test_what_a_killed_process_left_is_removed_but_nothing_new_and_nothing_else(self, tmp_path: Path) -> None:
        old, new, other = (tmp_path / name for name in (".0123abcd.a.pt", ".4567abcd.a.pt", ".0123abcd.b.pt"))
        for path in (old, new, other):
            path.touch()
        for path in (old, other):
            os.utime(path, (0, 0))
        remove_leftovers(tmp_path / "a.pt")
        assert set(tmp_path.iterdir()) == {new, other}


class TestWholeFiles:
    def test_room_is_made_when_all_are_safe_on_the_disk_and_before_one_takes_its_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        targets, done = [tmp_path / "model.pt", tmp_path / "model.json"], []
        monkeypatch.setattr(os, "fsync", lambda _: done.append("on the disk"))
        monkeypatch.setattr(os, "replace", lambda _, target: done.append(target))
        with whole_files(targets, done.append) as temporaries:
            for temporary in temporaries:
                temporary.touch()
        assert done == ["on the disk", "on the disk", temporaries, *targets]


class TestAside:
    def test_those_that_are_there_get_the_first_number_that_none_of_them_has(self, tmp_path: Path) -> None:
        weights, settings, missing = (tmp_path / name for name in ("model.pt", "model.json", "teacher.pt"))
        for name in ("model.pt", "model.json", "model_before_1.json"):
            (tmp_path / name).write_text(name)
        moved = move_aside([weights, settings, missing])
        assert moved == {weights: tmp_path / "model_before_2.pt", settings: tmp_path / "model_before_2.json"}
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
            "model_before_1.json": "model_before_1.json",
            "model_before_2.json": "model.json",
            "model_before_2.pt": "model.pt",
        }

    def test_a_name_has_the_points_and_the_extension_that_one_says(self, tmp_path: Path) -> None:
        target = tmp_path / "day.2.nii.gz"
        target.touch()
        (new,) = move_aside([target], suffix_of=lambda path: ".nii.gz").values()
        assert [new] == list(tmp_path.iterdir()) == [tmp_path / "day.2_before_1.nii.gz"]

    def test_they_are_found_again_by_the_whole_name(self, tmp_path: Path) -> None:
        target = tmp_path / "model[1].pt"
        for _ in range(2):
            target.touch()
            move_aside([target])
        for name in ("model[1].pt", "model[1]_before_1.json", "model1_before_1.pt", "my_model[1]_before_1.pt"):
            (tmp_path / name).touch()
        assert moved_aside(target) == [tmp_path / "model[1]_before_1.pt", tmp_path / "model[1]_before_2.pt"]


class TestFullDisk:
    def test_the_old_file_stays_whole_and_no_part_of_the_new_one(self, tmp_path: Path) -> None:
        target = tmp_path / "model.pt"
        write_tensors(target, torch.ones(10))
        with (
            pytest.raises(UnwritableFile, match=r"model\.pt: found that it cannot be written \(File too large\)"),
            room_for(10_000),
            whole_file(target) as temporary,
        ):
            write_tensors(temporary, torch.zeros(10_000))
        assert torch.equal(read_tensors(target, "tensors"), torch.ones(10))
        assert list(tmp_path.iterdir()) == [target]

    def test_the_run_goes_on_without_what_nothing_depends_on(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with (
            caplog.at_level(logging.WARNING),
            room_for(10_000),
            warn_if_unwritable(),
            whole_file(tmp_path / "picture.png") as temporary,
        ):
            temporary.write_bytes(bytes(20_000))
        (warning,) = caplog.messages
        assert warning.startswith("the run goes on without a file: ")
        assert "picture.png: found that it cannot be written (File too large)" in warning


class TestReadTensors:
    CONTENT = {"weights": torch.arange(5000.0), "epoch": 3}

    @pytest.fixture
    def saved(self, tmp_path: Path) -> Path:
        write_tensors(tmp_path / "state.pt", self.CONTENT)
        return tmp_path / "state.pt"

    def test_what_was_written(self, saved: Path) -> None:
        read = read_tensors(saved, "a state")
        assert torch.equal(read["weights"], self.CONTENT["weights"])
        assert read["epoch"] == 3

    def test_the_older_format_of_torch(self, tmp_path: Path) -> None:
        torch.save(self.CONTENT, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
        assert read_tensors(tmp_path / "old.pt", "a state")["epoch"] == 3

    @pytest.mark.parametrize("kept", [0, 1, 100, 10_000, -1])
    def test_refuses_a_file_that_was_cut_off(self, saved: Path, kept: int) -> None:
        saved.write_bytes(saved.read_bytes()[:kept])
        self.assert_refused(saved)

    def test_refuses_a_file_with_one_wrong_bit_in_its_numbers(self, saved: Path) -> None:
        """The bit that makes a weight wrong and leaves the file readable: torch alone takes it."""
        content = bytearray(saved.read_bytes())
        content[len(content) // 2] ^= 1
        saved.write_bytes(content)
        assert not torch.equal(torch.load(saved)["weights"], self.CONTENT["weights"])
        self.assert_refused(saved)

    @pytest.mark.parametrize("seed", range(20))
    def test_refuses_random_bytes(self, tmp_path: Path, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        size = int(torch.randint(1, 3000, (), generator=generator))
        path = tmp_path / "noise.pt"
        path.write_bytes(bytes(torch.randint(256, (size,), generator=generator).tolist()))
        self.assert_refused(path)

    @pytest.mark.parametrize("content", ["text", Counter("no"), Path(".")], ids=["text", "Counter", "Path"])
    def test_refuses_other_content(self, tmp_path: Path, content: object) -> None:
        is_text = isinstance(content, str)
        (tmp_path / "other.pt").write_bytes(content.encode() if is_text else pickle.dumps(content, protocol=2))
        self.assert_refused(tmp_path / "other.pt")

    @pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError(), PermissionError()])
    def test_what_says_nothing_about_the_file_is_no_refusal(
        self, saved: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(torch, "load", fail)
        with pytest.raises(type(error)):
            read_tensors(saved, "weights")

    @staticmethod
    def assert_refused(path: Path) -> None:
        with pytest.raises(ValueError, match=r"\.pt: found a file that torch cannot read \(\w+\), expected a state\.$"):
            read_tensors(path, "a state")


class TestWriteJson:
    def test_what_cannot_be_written_leaves_the_old_file_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.json"
        write_json(path, {"mean": 1.0})
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(path, {"mean": float("nan")})
        assert json.loads(path.read_text()) == {"mean": 1.0}
        assert list(tmp_path.iterdir()) == [path]


class TestCheckWritable:
    def test_a_folder_that_could_be_made_is_not_made_yet(self, tmp_path: Path) -> None:
        check_writable([tmp_path, str(tmp_path / "new" / "folder")])
        assert list(tmp_path.iterdir()) == []

    def test_a_relative_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        check_writable(["new/folder"])

    @pytest.mark.parametrize("folder", ["file", "file/below", "n" * 300])
    def test_a_file_in_the_way_and_a_path_that_cannot_be(self, folder: str, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("kept")
        with pytest.raises(
            UnwritableFile, match=rf"{folder}: found that no file can be made there \(.*\), expected a fo"
        ):
            check_writable([tmp_path, tmp_path / folder])
        assert (tmp_path / "file").read_text() == "kept"

    def test_a_link_that_leads_nowhere(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "unmounted")
        with pytest.raises(UnwritableFile, match="link: found that no file can be made there"):
            check_writable([tmp_path / "link"])

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_read_only_folder(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(UnwritableFile, match="Permission denied"):
            check_writable([tmp_path / "new"])


def test_what_a_file_system_takes_for_one_name(tmp_path: Path) -> None:
    (tmp_path / "name").touch()
    is_one_file = (tmp_path / "NAME").exists()  # as on most Macs
    assert tells_case_apart(tmp_path / "not_there_yet") is not is_one_file
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_a_digest_tells_content_and_nothing_else(tmp_path: Path) -> None:
    first, same, other = (tmp_path / name for name in ("first.tif", "same.tif", "other.tif"))
    first.write_bytes(b"a" * 3_000_000)
    same.write_bytes(b"a" * 3_000_000)
    os.utime(same, (1, 1))
    other.write_bytes(b"a" * 2_999_999 + b"b")
    assert content_digest(first) == content_digest(str(same)) != content_digest(other)
