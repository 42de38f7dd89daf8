"""The metrics inside MONAI's evaluator, built from a config as users build it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import StatsHandler
from monai.transforms import Lambdad

from scripts.metrics.instances import METRIC_NAMES, instance_metrics
from scripts.metrics.metrics_handler import (
    InstanceMetricsHandler,
    MetricsJsonWriter,
)

CONFIG = {
    "output_dir": "overridden",
    "validate": {
        "key_metric": {
            "annotated_iou": {"_target_": "scripts.metrics.metrics_handler.InstanceMetricsHandler", "sparse": True}
        },
        "handlers": [
            {
                "_target_": "scripts.metrics.metrics_handler.MetricsJsonWriter",
                "output_path": "$@output_dir + '/metrics.json'",
            }
        ],
    },
}


def sample(number: int, path: str) -> dict[str, MetaTensor | torch.Tensor]:
    """The network below takes the image for its own instances; a greater number makes more of them wrong."""
    truth = torch.arange(1, 17).repeat_interleave(4).reshape(1, 8, 8)
    image = truth.clone()
    image[0, :, :number] = 40
    return {"image": MetaTensor(image.float(), meta={"filename_or_obj": path}), "label": truth}


def evaluator(samples: list[dict], **arguments: object) -> SupervisedEvaluator:
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(samples), batch_size=2),
        network=torch.nn.Identity(),
        postprocessing=Lambdad(keys="pred", func=lambda prediction: prediction.int()),
        **arguments,
    )


def expected(item: dict[str, torch.Tensor], sparse: bool = True) -> dict[str, float]:
    return instance_metrics(item["image"].int(), item["label"], sparse=sparse)


def test_a_config_names_the_key_metric_and_gets_all_metrics_and_a_json_file(tmp_path: Path) -> None:
    parser = ConfigParser(CONFIG)
    parser["output_dir"] = str(tmp_path / "new_folder")
    validate = parser.get_parsed_content("validate")
    samples = [sample(number, f"/data/images/{number}_image.ome.tif") for number in range(3)]

    engine = evaluator(samples, key_val_metric=validate["key_metric"], val_handlers=validate["handlers"])
    engine.run()

    rows = {f"{number}_image": expected(item) for number, item in enumerate(samples)}
    mean = {name: np.mean([row[name] for row in rows.values()]) for name in METRIC_NAMES}
    assert engine.state.metrics == pytest.approx(mean)
    assert engine.state.key_metric_name == "annotated_iou"
    assert engine.state.best_metric == pytest.approx(mean["annotated_iou"])
    written = json.loads((tmp_path / "new_folder/metrics.json").read_text())
    assert written == {"mean": engine.state.metrics, "images": rows}
    assert [file.name for file in (tmp_path / "new_folder").iterdir()] == ["metrics.json"]


def test_with_classes_the_json_file_has_a_section_for_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = [sample(number, f"{number}.tif") for number in range(3)]
    for item in samples:  # ids 1..8 become objects of class 24, the others of class 26
        for key in ("image", "label"):
            item[key] = item[key] + torch.where(item[key] <= 8, 24000, 26000)
    handler = InstanceMetricsHandler(classes=[24, 26, 33])
    writer = MetricsJsonWriter(tmp_path / "metrics.json")
    evaluator(samples, key_val_metric={"ap50": handler}, val_handlers=[writer]).run()

    written = json.loads((tmp_path / "metrics.json").read_text())
    assert list(written) == ["mean", "per_class", "images"]
    assert written["per_class"]["33"] == {"images": 0}
    of_person = [expected({key: item[key] * (item[key] < 25000) for key in item}, sparse=False) for item in samples]
    mean = {name: np.mean([row[name] for row in of_person]) for name in METRIC_NAMES}
    assert written["per_class"]["24"] == pytest.approx({**mean, "images": 3})
    assert not caplog.records


@pytest.mark.parametrize(("annotated", "told"), [([False, False], True), ([False, True], False)])
def test_annotation_that_no_image_holds_is_told(
    annotated: list[bool], told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    samples = [sample(number, f"{number}.tif") for number in range(2)]
    for item, is_annotated in zip(samples, annotated, strict=True):
        item["label"] = item["label"] * is_annotated
    evaluator(samples, key_val_metric={"annotated_iou": InstanceMetricsHandler(sparse=True)}).run()
    assert ("no image of this validation holds an annotated object" in caplog.text) == told


def test_classes_that_no_image_holds_are_told(caplog: pytest.LogCaptureFixture) -> None:
    evaluator([sample(0, "a.tif")], key_val_metric={"ap50": InstanceMetricsHandler(classes=[99])}).run()
    assert "no image holds an object of the classes ['99'], so the metrics say nothing" in caplog.text


@pytest.mark.parametrize("key", METRIC_NAMES)
def test_any_metric_can_be_the_key_metric(key: str) -> None:
    item = sample(3, "a.tif")
    engine = evaluator([item], key_val_metric={key: InstanceMetricsHandler()})
    engine.run()
    assert engine.state.best_metric == expected(item, sparse=False)[key]


def test_another_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match="one of ap50, ap, .*, but it is named 'val_mean_dice'"):
        evaluator([], key_val_metric={"val_mean_dice": InstanceMetricsHandler()})


def test_each_epoch_starts_anew(tmp_path: Path) -> None:
    samples = [sample(1, "a.tif"), sample(2, "b.tif"), sample(3, "c.tif")]
    engine = evaluator(
        samples,
        key_val_metric={"ap50": InstanceMetricsHandler()},
        val_handlers=[MetricsJsonWriter(tmp_path / "metrics.json")],
    )
    for epoch in range(1, 4):  # as ValidationHandler runs it
        engine.run(global_epoch=epoch)
        assert list(json.loads((tmp_path / "metrics.json").read_text())["images"]) == ["a", "b", "c"]


def test_the_best_value_of_a_metric_where_less_is_better() -> None:
    samples = [sample(2, "a.tif")]
    engine = evaluator(
        samples,
        key_val_metric={"arand": InstanceMetricsHandler()},
        metric_cmp_fn=lambda current, best: current < best,
    )
    for epoch, number in enumerate((4, 1, 6), start=1):
        samples[0] = sample(number, "a.tif")
        engine.run(global_epoch=epoch)
    assert engine.state.best_metric == expected(sample(1, "a.tif"))["arand"]
    assert engine.state.best_metric_epoch == 2


def test_the_log_shows_every_metric(caplog: pytest.LogCaptureFixture) -> None:
    handler = StatsHandler(name="metrics_log", iteration_log=False)
    with caplog.at_level(logging.INFO, logger="metrics_log"):
        engine = evaluator(
            [sample(1, "a.tif")], key_val_metric={"ap": InstanceMetricsHandler()}, val_handlers=[handler]
        )
        logging.getLogger("metrics_log").addHandler(caplog.handler)
        engine.run()
    assert all(f"{name}: " in caplog.text for name in METRIC_NAMES)


def test_the_writer_without_metrics_says_what_is_missing(tmp_path: Path) -> None:
    engine = Engine(lambda engine, batch: None)
    engine.state.batch = []
    with pytest.raises(RuntimeError, match="needs an InstanceMetricsHandler"):
        MetricsJsonWriter(tmp_path / "metrics.json")(engine)


def test_two_processes_write_the_file_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_evaluate_on_rank, args=(str(tmp_path),), nprocs=2)
    written = json.loads((tmp_path / "metrics.json").read_text())
    rows = {f"image{number}": expected(sample(number, "")) for number in range(5)}
    assert written["images"] == rows
    mean = {name: np.mean([row[name] for row in rows.values()]) for name in METRIC_NAMES}
    assert written["mean"] == pytest.approx(mean)


def _evaluate_on_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/init", rank=rank, world_size=2)
    numbers = (0, 2, 4) if rank == 0 else (1, 3)
    evaluator(
        [sample(number, f"/data/image{number}.tif") for number in numbers],
        key_val_metric={"annotated_iou": InstanceMetricsHandler(sparse=True)},
        val_handlers=[MetricsJsonWriter(f"{folder}/metrics.json")],
    ).run()
    torch.distributed.destroy_process_group()
