"""The demo: its sample, its plan for a user's data, its comparison with the truth, and its report."""

from __future__ import annotations

import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tifffile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo import run, sample, steps
from demo.agreement import ALONE, UNJUDGED, compare, instance_colors, palette, sequential, truth_colors
from demo.charts import iou_histogram, loss_curve, read_losses
from demo.embedding import middle_embeddings
from demo.plan import BUNDLE, Plan, PlanError, config_files, link_dataset, plan_dataset
from demo.report import METRICS, Content, Figure, Row, report_html
from demo.views import WIDTH, Plane, fullest, outlined
from scripts.files.datalist import image_label_pairs
from scripts.files.tiff_files import read_tiff
from scripts.metrics.instances import LESS_IS_BETTER, METRIC_NAMES, instance_metrics


@pytest.fixture(scope="module")
def small_sample(tmp_path_factory) -> tuple[Path, sample.SampleCount]:
    folder = tmp_path_factory.mktemp("sample")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "SHAPE", (16, 64, 64))
        return folder, sample.make_sample(folder / "train", folder / "test")


class TestSample:
    def test_lies_in_the_standard_layout(self, small_sample):
        folder, _ = small_sample
        for part in ("train", "test"):
            (pair,) = image_label_pairs(folder / part)
            assert Path(pair["image"]).name == f"nuclei_{part}.ome.tif"

    def test_files_state_the_voxel_size(self, small_sample):
        folder, _ = small_sample
        for path in folder.rglob("*.tif"):
            meta = read_tiff(path).meta
            assert np.diag(meta["affine"])[:3].tolist() == list(sample.VOXEL_SIZE)
            assert meta["unit"] == "micrometre"

    def test_at_most_a_fifth_is_annotated_and_agrees_with_the_truth(self, small_sample, monkeypatch):
        folder, count = small_sample
        monkeypatch.setattr(sample, "SHAPE", (16, 64, 64))
        truth = sample.draw(sample.TRAIN_SEED)[1]
        annotation = tifffile.imread(next((folder / "train" / "labels").iterdir()))
        chosen = np.setdiff1d(annotation, [0])
        assert (count.annotated, count.total) == (len(chosen), len(np.setdiff1d(truth, [0])))
        assert 0 < count.annotated <= 0.2 * count.total
        # whole objects, with the ids that they have in the truth
        assert np.array_equal(annotation, np.where(np.isin(truth, chosen), truth, 0))

    def test_the_test_volume_is_another_one_with_complete_truth(self, small_sample):
        folder, _ = small_sample
        train, test = (tifffile.imread(next((folder / part / "images").iterdir())) for part in ("train", "test"))
        assert not np.array_equal(train, test)
        labels = tifffile.imread(next((folder / "test" / "labels").iterdir()))
        assert np.unique(labels).tolist() == list(range(labels.max() + 1))

    def test_choice_is_repeatable(self):
        truth = np.arange(101)
        assert np.array_equal(sample.annotate(truth, 0.2, seed=3), sample.annotate(truth, 0.2, seed=3))
        assert not np.array_equal(sample.annotate(truth, 0.2, seed=3), sample.annotate(truth, 0.2, seed=4))


def write_dataset(folder: Path, shapes: dict[str, tuple[int, ...]]) -> list[dict[str, str]]:
    """Noise with a grid of boxes as objects."""
    for number, (name, shape) in enumerate(shapes.items()):
        random = np.random.default_rng(number)
        cells = np.indices(shape) // 16
        labels = np.ravel_multi_index(tuple(cells), tuple(n // 16 + 1 for n in shape)) + 1
        labels[np.any(np.indices(shape) % 16 == 0, axis=0)] = 0
        image = random.integers(0, 100, shape) + 100 * (labels > 0)
        for kind, array in (("images", image), ("labels", labels)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            axes = "ZYX"[-len(shape) :]
            tifffile.imwrite(folder / kind / f"{name}.ome.tif", array.astype(np.uint16), metadata={"axes": axes})
    return image_label_pairs(folder)


class TestPlan:
    def test_last_of_several_images_is_held_out(self, tmp_path):
        pairs = write_dataset(tmp_path / "data", {"a": (32, 48, 48), "b": (32, 48, 48), "c": (32, 32, 40)})
        plan = plan_dataset(pairs, tmp_path / "output")
        assert not (tmp_path / "output").exists()
        link_dataset(pairs, plan)
        assert [Path(pair["image"]).name for pair in image_label_pairs(plan.train_dir)] == ["a.ome.tif", "b.ome.tif"]
        assert [Path(pair["image"]).name for pair in image_label_pairs(plan.test_dir)] == ["c.ome.tif"]
        assert plan.is_held_out
        assert plan.sparse_truth
        assert (plan.train_images, plan.annotated, plan.spatial_dims) == (2, 2 * 2 * 3 * 3, 3)
        assert plan.patch_size == (16, 32, 32)

    def test_a_single_2d_image_is_trained_and_tested(self, tmp_path):
        pairs = write_dataset(tmp_path / "data", {"a": (60, 140)})
        plan = plan_dataset(pairs, tmp_path / "output")
        link_dataset(pairs, plan)
        assert len(image_label_pairs(plan.train_dir)) == 1
        assert not plan.is_held_out
        assert plan.patch_size == (56, 64)
        names = [path.name for path in config_files(plan.spatial_dims, "train.json", "evaluate.json")]
        assert names == ["train.json", "2d.json", "evaluate.json"]

    def test_images_of_both_kinds_are_refused(self, tmp_path):
        pairs = write_dataset(tmp_path / "data", {"a": (100, 140), "b": (32, 48, 48)})
        with pytest.raises(PlanError, match="2D and 3D"):
            plan_dataset(pairs, tmp_path / "output")

    def test_colours_are_refused(self, tmp_path):
        pairs = write_dataset(tmp_path, {"a": (100, 140)})
        colours = np.zeros((100, 140, 3), np.uint8)
        tifffile.imwrite(pairs[0]["image"], colours, photometric="rgb", metadata=None)
        with pytest.raises(PlanError, match=r"a\.ome\.tif: found 3 channels, expected one; .* --in_channels 3"):
            plan_dataset(pairs, tmp_path / "output")

    def test_a_thin_image_is_as_good_as_for_the_training(self, tmp_path):
        pairs = write_dataset(tmp_path / "data", {"a": (3, 64, 64), "b": (3, 64, 64)})
        plan = plan_dataset(pairs, tmp_path / "output")
        assert len(plan.patch_size) == 3

    def test_files_are_copied_where_there_are_no_links(self, tmp_path, monkeypatch):
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "a.tif").write_text(folder, encoding="utf-8")
        plan = Plan(tmp_path / "train", tmp_path / "test", 3, (8, 8, 8), 1, 1, None, sparse_truth=True)

        def refuse(*_):
            raise OSError("A required privilege is not held by the client")

        monkeypatch.setattr(os, "symlink", refuse)
        link_dataset(image_label_pairs(tmp_path), plan)
        copies = [tmp_path / "train" / folder / "a.tif" for folder in ("images", "labels")]
        assert [path.read_text(encoding="utf-8") for path in copies] == ["images", "labels"]
        assert not any(path.is_symlink() for path in copies)

    def test_a_link_that_is_there_is_never_written_through(self, tmp_path):
        for name in ("a.tif", "b.tif"):
            (tmp_path / name).write_text(name, encoding="utf-8")
        plan = Plan(tmp_path / "train", tmp_path / "test", 3, (8, 8, 8), 1, 1, None, sparse_truth=True)
        (tmp_path / "train" / "images").mkdir(parents=True)
        os.symlink(tmp_path / "a.tif", tmp_path / "train" / "images" / "b.tif")
        with pytest.raises(FileExistsError):
            link_dataset([{"image": str(tmp_path / "b.tif"), "label": str(tmp_path / "b.tif")}], plan)
        assert (tmp_path / "a.tif").read_text(encoding="utf-8") == "a.tif"


class TestSteps:
    plan = Plan(steps.ROOT / "demo/output/train", steps.ROOT / "demo/output/test", 3, (16, 48, 48), 1, 5, 30, False)

    def test_commands_name_no_place_of_this_machine(self):
        commands = [step.command for step in steps.plan_steps(self.plan, steps.ROOT / "demo" / "output")]
        assert len(commands) == 3
        assert not any(str(steps.ROOT) in command for command in commands)
        assert '--patch_size "[16, 48, 48]"' in commands[0]
        assert "\"['spoco_bundle/configs/train.json', 'spoco_bundle/configs/evaluate.json']\"" in commands[2]

    def test_sparse_truth_is_told_to_the_evaluation(self):
        plan = Plan(**{**vars(self.plan), "sparse_truth": True})
        commands = [step.command for step in steps.plan_steps(plan, steps.ROOT / "demo" / "output")]
        assert ["--sparse_truth True" in command for command in commands] == [False, False, True]

    def test_a_failed_step_says_its_own_sentence_and_where_its_log_is(self, tmp_path):
        code = "import sys; print('a hint'); sys.stderr.write('error: x.tif: found a cat.\\n'); sys.exit(3)"
        log = tmp_path / "train.log"
        with pytest.raises(steps.StepError, match=r"^x\.tif: found a cat\. \(step: train, log: .*train\.log\)$"):
            steps.run_step(steps.Step("train", "Train", ["-c", code]), log)
        assert log.read_text().splitlines() == ["a hint", "error: x.tif: found a cat."]

    def test_a_killed_step_is_told_from_one_that_failed(self, tmp_path):
        code = "import os, signal; print('all is well', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
        with pytest.raises(steps.StepError, match=r"^the command was ended by SIGKILL, .* memory \(step"):
            steps.run_step(steps.Step("train", "Train", ["-c", code]), tmp_path / "train.log")

    def test_progress_is_shown_and_kept_out_of_the_log(self, tmp_path, capsys):
        code = "import sys; sys.stderr.write('\\r 50%|##  \\r100%|####\\n'); print('done')"
        steps.run_step(steps.Step("train", "Train", ["-c", code]), tmp_path / "train.log")
        assert (tmp_path / "train.log").read_text() == "done\n"
        assert "50%|##" in capsys.readouterr().out

    @pytest.mark.parametrize("name", ["nowhere", "empty", "constant"])
    def test_bad_data_end_in_one_sentence_and_destroy_nothing(self, tmp_path, monkeypatch, capsys, name):
        (tmp_path / "empty").mkdir()
        (pair,) = write_dataset(tmp_path / "constant", {"a": (32, 32)})
        tifffile.imwrite(pair["image"], np.ones((32, 32), np.uint8), metadata={"axes": "YX"})
        (tmp_path / "output").mkdir()
        (tmp_path / "output" / "model.pt").touch()
        for attribute, path in (("OUTPUT", "output"), ("REPORT", "report.html"), ("METRICS", "metrics.json")):
            monkeypatch.setattr(run, attribute, tmp_path / path)
        (tmp_path / "report.html").write_text("of an earlier run")
        assert run.main(["--dataset", str(tmp_path / name)]) == 1
        said = capsys.readouterr().err.strip()
        assert said.startswith("error: ")
        assert len(said.splitlines()) == 1
        assert (tmp_path / "report.html").exists()
        assert (tmp_path / "output" / "model.pt").exists()

    def test_data_in_the_folder_that_is_emptied_are_refused(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(run, "OUTPUT", tmp_path)
        write_dataset(tmp_path / "train", {"a": (32, 32)})
        assert run.main(["--dataset", str(tmp_path / "train")]) == 1
        assert "copy it elsewhere" in capsys.readouterr().err
        assert (tmp_path / "train" / "images" / "a.ome.tif").exists()


class TestEmbedding:
    """What the pictures of the report show, by the real configs and the shipped weights."""

    @pytest.mark.parametrize(
        ("shape", "spatial_dims", "weights"), [((12, 40, 48), 3, "models"), ((40, 48), 2, "models/2d")]
    )
    def test_of_the_middle_plane_on_the_grid_of_the_file(
        self, shape: tuple[int, ...], spatial_dims: int, weights: str, tmp_path: Path
    ) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8))
        plane = middle_embeddings(tmp_path / "a.tif", BUNDLE / weights, spatial_dims)
        assert plane.shape[1:] == (40, 48)
        assert np.isfinite(plane).all()


class TestAgreement:
    truth = np.array([[1, 1, 1, 1, 0, 2, 2, 2, 3, 3]])
    instances = np.array([[2, 2, 2, 0, 1, 1, 0, 0, 3, 3]])

    def test_partners_are_those_of_the_metrics(self):
        agreement = compare(self.instances, self.truth, sparse=False)
        assert agreement.partner.tolist() == [0, 0, 1, 3]
        assert agreement.best_iou.tolist() == [0, 0.75, 0.25, 1]
        assert agreement.found == 2
        metrics = instance_metrics(self.instances, self.truth)
        assert metrics["annotated_iou"] == pytest.approx(agreement.best_iou[1:].mean())
        assert metrics["ap50"] == agreement.found / (3 + 3 - agreement.found)

    def test_matched_objects_share_a_colour_and_errors_are_red(self):
        agreement = compare(self.instances, self.truth, sparse=False)
        of_truth, of_instances = truth_colors(agreement), instance_colors(agreement)
        assert np.array_equal(of_truth[1], of_instances[2])
        assert np.array_equal(of_truth[3], of_instances[3])
        assert tuple(of_truth[2]) == tuple(of_instances[1]) == ALONE
        assert not of_truth[0].any()
        assert not of_instances[0].any()

    def test_sparse_truth_judges_nothing_where_nobody_looked(self):
        truth, instances = np.array([0, 0, 0, 1, 1]), np.array([1, 1, 0, 2, 0])
        agreement = compare(instances, truth, sparse=True)
        assert agreement.is_judged.tolist()[1:] == [False, True]
        assert tuple(instance_colors(agreement)[1]) == UNJUDGED

    def test_empty_maps_agree(self):
        nothing = np.zeros((2, 3), int)
        assert compare(nothing, nothing, sparse=False).found == 0

    def test_renumbering_keeps_background(self):
        assert sequential(np.array([7, 0, 900])).tolist() == [1, 0, 2]
        assert sequential(np.array([5, 5])).tolist() == [1, 1]

    def test_no_colour_of_an_object_looks_like_an_error(self):
        red, green, blue = palette(300)[1:].astype(int).T
        assert not np.any((red > 180) & (green < 90) & (blue < 90))


class TestViews:
    def test_proportions_are_real(self):
        volume = np.zeros((10, 20, 40), np.uint16)
        assert Plane(0, (2.0, 1.0, 1.0)).cut(volume).shape == (WIDTH // 2, WIDTH)
        assert Plane(1, (2.0, 1.0, 1.0)).cut(volume).shape == (WIDTH // 2, WIDTH)
        assert Plane(None, (1.0, 1.0)).cut(volume[0]).shape == (WIDTH // 2, WIDTH)

    def test_the_plane_with_most_annotation_is_found(self):
        labels = np.zeros((4, 5, 6), int)
        labels[3, 1, :4] = 7
        assert [fullest(labels, axis) for axis in (0, 1, None)] == [3, 1, None]
        assert Plane(0, (1.0, 1.0, 1.0), index=3).cut(labels).any()
        assert not Plane(0, (1.0, 1.0, 1.0)).cut(labels).any()

    def test_outline_lies_inside_and_spares_the_border_of_the_picture(self):
        labels = np.zeros((9, 9), int)
        labels[:5, :5] = 1
        picture = outlined(np.zeros((9, 9, 3), np.uint8), labels, palette(1), thickness=1)
        drawn = picture.any(axis=-1)
        assert drawn.sum() == 9
        assert drawn[4, :5].all()
        assert drawn[:5, 4].all()


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.headings, self.sources, self.tags, self.text = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.headings += [data] if self.tags and self.tags[-1] in ("h1", "h2") else []
        self.text += data


@pytest.fixture
def page() -> _Page:
    picture = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    content = Content(
        title="A title",
        summary="What was done & <how>",
        warning="Mind the gap",
        numbers={"AP50": "0.75"},
        rows=[Row("Held-out image", "a slice", [Figure("image", picture), Figure("truth", picture)], 2, True)],
        legend=[(ALONE, "an error")],
        metrics=dict.fromkeys(METRIC_NAMES, 0.5),
        commands=[("Train", "4 minutes", "python -m monai.bundle run --seed 0")],
        environment={"torch": "2.0"},
        charts=[("IoU of each true object", iou_histogram([0.1, 0.5, 1.0]))],
    )
    result = _Page()
    result.feed(report_html(content))
    return result


class TestReport:
    def test_holds_all_sections(self, page):
        sections = ["A title", "Held-out image", "Metrics", "IoU of each true object", "Commands", "Environment"]
        assert page.headings == sections
        for text in ("What was done & <how>", "Mind the gap", "0.75", "an error", "--seed 0", "2.0", *METRIC_NAMES):
            assert text in page.text

    def test_needs_nothing_beside_itself(self, page):
        assert len(page.sources) == 2
        assert all(source.startswith("data:image/png;base64,") for source in page.sources)
        assert not {"script", "link", "iframe"} & set(page.tags)

    def test_every_metric_is_explained(self):
        assert set(METRICS) == set(METRIC_NAMES)
        assert {name for name, (best, _) in METRICS.items() if best == "0"} == set(LESS_IS_BETTER)

    def test_histogram_counts_every_object_once(self):
        svg = iou_histogram([0.0, 0.05, 0.5, 0.99, 1.0])
        heights = [float(height) for height in re.findall(r'<rect[^>]* height="([\d.]+)"', svg)]
        assert [round(2 * height / max(heights)) for height in heights] == [2, 0, 0, 0, 0, 1, 0, 0, 0, 2]

    @pytest.mark.parametrize("losses", [[1.0], [3.0, 2.0, 1.0], list(np.linspace(5, 1, 100))])
    def test_loss_curve_of_any_length(self, losses):
        assert loss_curve(losses).count("<polyline") == 2

    def test_no_losses_without_event_files(self, tmp_path):
        assert read_losses(tmp_path) == []
