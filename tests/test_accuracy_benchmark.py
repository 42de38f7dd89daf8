"""The accuracy benchmark: how a budget becomes epochs, what makes a row, and one tiny run of the whole."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import accuracy
from accuracy_table import CLASSICAL, COLUMNS, FULL, SPARSE, circumstances, draw_curves, markdown_table
from budget import Times, epochs_within, training_seconds, validation_interval
from classical import segment_cells, segment_nuclei
from datasets import SETS, Pair, count_objects, find_pairs, paint_background
from measuring import RESULTS

from scripts.files.readers import read_volume
from scripts.metrics.instances import METRIC_NAMES, instance_metrics
from scripts.synthetic.images import synthetic_nuclei

TINY = ["--patch_size", "[16,16,16]", "--filters", "[8,16,32]", "--pretrained", "null", "--spacing", "image"]


def row(**values):
    plain = {"set": "nuclei3d", "method": SPARSE, "fraction": 0.2, "seed": 0, "options": "", "device": "a CPU"}
    length = {"budget": 10, "epochs": 20, "iterations": 1000, "minutes": 9.5, "objects": 11, "objects_in_total": 54}
    return {**plain, **length, **dict.fromkeys(METRIC_NAMES, 0.5), **values}


def in_the_documentation(row):
    """A row as the table of results.md has it: its set, and the cells from the iterations on."""
    trained = ("", "") if row["method"] == CLASSICAL else (str(row["iterations"]), f"{row['minutes']:.1f}")
    scores = (f"{row[name]:.3f}" for name in ("ap50", "ap", "f1", "pq", "sbd", "arand"))
    information = f"{row['voi_split']:.2f}, {row['voi_merge']:.2f}"
    return row["set"], *trained, *scores, information, f"{row['annotated_iou']:.3f}"


def write_set(data: Path, *names: str, folder: str = "nuclei3d") -> list[np.ndarray]:
    """Write generated volumes; returns their labels."""
    written = []
    for seed, name in enumerate(names):
        image, labels = synthetic_nuclei((16, 40, 28), object_diameter=14, seed=seed)
        (data / folder).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(data / folder / f"{name}_image.tif", image, metadata={"axes": "ZYX"})
        tifffile.imwrite(data / folder / f"{name}_labels.tif", labels.astype(np.uint16), metadata={"axes": "ZYX"})
        written.append(labels)
    return written


class TestBudget:
    TIMES = Times(start=20, step=1, validation=30)

    def test_a_training_is_its_start_its_steps_and_its_validations(self):
        assert training_seconds(9, 50, self.TIMES) == 20 + 9 * 50 + 2 * 30

    def test_ten_minutes_without_a_twentieth_are_570_seconds(self):
        assert epochs_within(10, 50, self.TIMES) == 9  # 530 seconds; one more would be 580

    def test_one_epoch_at_least(self):
        assert epochs_within(0.1, 50, self.TIMES) == 1

    @pytest.mark.parametrize(("epochs", "interval"), [(1, 5), (40, 5), (41, 6), (160, 20)])
    def test_long_trainings_have_eight_validations(self, epochs, interval):
        assert validation_interval(epochs) == interval


class TestRows:
    def test_the_same_question_again_replaces_its_row(self):
        assert accuracy.with_row([row(ap50=0.1)], row(epochs=21)) == [row(epochs=21)]  # the same budget
        assert accuracy.with_row([row(ap50=0.1)], row(budget=None)) == [row(budget=None)]  # the same epochs

    @pytest.mark.parametrize("other", [{"seed": 1}, {"fraction": 0.5}, {"options": "--overlap 0"}, {"device": "a GPU"}])
    def test_another_question_has_its_own_row(self, other):
        assert len(accuracy.with_row([row()], row(**other))) == 2

    def test_another_length_has_its_own_row(self):
        assert len(accuracy.with_row([row()], row(budget=60, epochs=120))) == 2

    def test_the_table_has_a_column_for_each_metric(self):
        assert set(COLUMNS) == set(METRIC_NAMES)

    def test_the_table_has_one_line_a_row_and_equal_cells(self):
        nothing = dict.fromkeys(("fraction", "seed", "budget", "objects", "epochs", "iterations"))
        lines = markdown_table([row(), row(method=FULL), row(method=CLASSICAL, **nothing)]).splitlines()
        assert len(lines) == 2 + 3
        assert len({line.count("|") for line in lines}) == 1
        assert "| nuclei3d | 20 % | 11 | 0 |" in lines[2]

    @pytest.mark.parametrize(
        ("options", "device", "expected"),
        [
            ("", "x86_64, 2 threads", ""),
            ("--val_interval 80", "x86_64, 2 threads", ""),  # looks, and changes nothing
            ("--pretrained null", "x86_64, 1 threads", ", --pretrained null"),
            ("--val_interval 80 --batch_size 8", "NVIDIA H200, segmented on a CPU", ", --batch_size 8, NVIDIA H200"),
        ],
    )
    def test_curves_tell_apart_what_was_trained_otherwise(self, options, device, expected):
        assert circumstances(row(options=options, device=device)) == expected

    def test_the_documentation_has_the_numbers_that_were_measured(self):
        measured = {in_the_documentation(row) for row in accuracy.read_rows(RESULTS / "accuracy.json")}
        page = (accuracy.BUNDLE / "docs" / "results.md").read_text(encoding="utf-8")
        lines = (
            page.partition("| set | annotated objects | iterations | minutes |")[2].partition("\n\n")[0].splitlines()
        )
        documented, name = [], ""
        for set_, _, *cells in ([cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines[2:]):
            name = set_.partition(",")[0] or name  # it stands in its first row alone
            documented.append((name, *cells))
        assert {name for name, *_ in documented} == {*SETS}
        assert [cells for cells in documented if cells not in measured] == []

    def test_curves_are_pictures(self, tmp_path):
        rows = [row(fraction=f, objects=n, seed=s) for f, n in ((0.1, 5), (0.2, 11)) for s in (0, 1)]
        rows += [row(budget=None, epochs=epochs, minutes=epochs / 2) for epochs in (4, 16)]
        for path in draw_curves([*rows, row(method=FULL), row(set="nuclei2d", method=CLASSICAL)], tmp_path):
            assert path.read_bytes().startswith(b"\x89PNG")


class TestFiles:
    def test_pairs_are_found_by_name(self, tmp_path):
        write_set(tmp_path, "1135", "1136")
        (pair,) = find_pairs(tmp_path, "nuclei3d", "1136")
        assert (pair.image.name, pair.labels.name) == ("1136_image.tif", "1136_labels.tif")

    def test_what_is_missing_is_named(self, tmp_path):
        write_set(tmp_path, "1135")
        with pytest.raises(FileNotFoundError, match="found no 1136_image"):
            find_pairs(tmp_path, "nuclei3d", "1136")
        (tmp_path / "nuclei3d" / "1135_labels.tif").unlink()
        with pytest.raises(FileNotFoundError, match="1135_labels.tif: no such file"):
            find_pairs(tmp_path, "nuclei3d", "1135")

    def test_objects_are_counted_as_training_keeps_them(self, tmp_path):
        labels = write_set(tmp_path, "a", "b")
        counts = [len(np.unique(array)) - 1 for array in labels]
        pairs = find_pairs(tmp_path, "nuclei3d", "*")
        assert count_objects(pairs, 0.5) == (sum(max(1, round(0.5 * count)) for count in counts), sum(counts))

    def test_background_gets_the_next_free_id_and_objects_keep_theirs(self, tmp_path):
        labels = write_set(tmp_path, "a", "b")
        painted, background = paint_background(find_pairs(tmp_path, "nuclei3d", "*"), tmp_path / "painted")
        assert background == max(array.max() for array in labels) + 1
        for pair, array in zip(painted, labels, strict=True):
            assert isinstance(pair, Pair)
            assert np.array_equal(read_volume(pair.labels).array, np.where(array == 0, background, array))


class TestClassical:
    def test_bright_balls_are_found(self):
        z, y, x = np.indices((24, 24, 48))
        truth = ((z - 12) ** 2 + (y - 12) ** 2 + (x - 12) ** 2 < 64) + 2 * (
            (z - 12) ** 2 + (y - 12) ** 2 + (x - 34) ** 2 < 64
        )
        assert instance_metrics(segment_nuclei(100.0 * (truth > 0), (1, 1, 1)), truth)["ap50"] == 1

    @pytest.mark.parametrize("boundaries", ["bright", "dark"])
    def test_walls_part_cells(self, boundaries):
        truth = np.repeat([1, 2, 3], 20) * np.ones((20, 20, 1), int)
        walls = 100.0 * ((np.indices(truth.shape) % 20 % 19 == 0).any(0))
        image = walls if boundaries == "bright" else 100 - walls
        assert instance_metrics(segment_cells(image, (1, 1, 1), boundaries), truth)["ap50"] == 1


class TestCommandLine:
    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["nuclei3d"], "expected --budget, --epochs or --classical"),
            (["nuclei3d", "--epochs", "1", "--", "--seed", "3"], "found --seed after --"),
            (["nuclei3d", "--epochs", "1", "--full-supervision", "--fraction", "0.5"], "found --fraction 0.5"),
            (["nuclei3d", "--epochs", "1", "--", "--seed=3"], "found --seed after --"),
            (["nuclei3d", "--epochs", "0"], "found --epochs 0, expected at least 1"),
            (["nuclei3d", "--epochs", "1", "--seed", "-1"], "found --seed -1, expected at least 0"),
            (["nuclei3d", "--epochs", "1", "--fraction", "0"], "found --fraction 0.0, expected a share in (0, 1]"),
            (["nuclei3d", "--budget", "0"], "found --budget 0.0, expected minutes above 0"),
            (["nuclei3d", "--budget", "inf"], "found --budget inf, expected minutes above 0"),
            (["nuclei3d", "--epochs", "1", "--data", "nowhere"], "nowhere: no such folder, expected that of all sets"),
            (["nuclei3d", "--epochs", "1", "--folder", __file__], "expected a new or empty folder"),
            (["nuclei3d", "--epochs", "1", "--results", __file__], "found no rows of this benchmark"),
            (["--table", "--results", "nowhere.json"], "nowhere.json: found no rows, expected some for the table"),
            ([], "expected one of nuclei3d"),
        ],
    )
    def test_nonsense_is_refused_with_a_sentence(self, arguments, sentence, tmp_path, capsys):
        own, ids = accuracy.split_arguments(arguments)
        data = [] if "--data" in own else ["--data", str(tmp_path)]
        with pytest.raises(SystemExit):
            accuracy.parse([*own, *data, "--", *ids])
        assert sentence in capsys.readouterr().err

    def test_a_folder_with_files_is_refused(self, tmp_path, capsys):
        (tmp_path / "file").touch()
        with pytest.raises(SystemExit):
            accuracy.parse(["nuclei3d", "--epochs", "1", "--data", str(tmp_path), "--folder", str(tmp_path)])
        assert "expected a new or empty folder" in capsys.readouterr().err


def test_from_files_to_a_row(tmp_path, monkeypatch):
    """A budget of seconds: warm-up, one epoch under full supervision, test, picture, row."""
    write_set(tmp_path / "data", "1135", "1136")
    monkeypatch.setattr(accuracy, "ITERATIONS_PER_EPOCH", 3)
    monkeypatch.setattr(accuracy, "WARM_UP", 13)
    monkeypatch.setattr(accuracy, "PICTURES", tmp_path)
    files = ["--data", str(tmp_path / "data"), "--results", str(tmp_path / "accuracy.json")]
    accuracy.main(["nuclei3d", "--full-supervision", "--budget", "0.01", "--picture", *files, "--", *TINY])
    (written,) = json.loads((tmp_path / "accuracy.json").read_text())["rows"]
    assert (written["epochs"], written["iterations"], written["budget"]) == (1, 3, 0.01)
    assert written["objects"] == written["objects_in_total"]
    assert written["options"] == " ".join(TINY)
    assert all(np.isfinite(written[name]) for name in METRIC_NAMES)
    assert (tmp_path / "accuracy_nuclei3d.png").is_file()
