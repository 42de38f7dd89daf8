"""What can be seen of a training: TensorBoard always, MLflow with MONAI's `--tracking`."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

import pytest
from bundle_runs import BUNDLE, TINY_TRAINING, TRAIN, curves, nuclei, run_here, write_pair
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scripts.losses.spoco import TERMS
from scripts.metrics.instances import METRIC_NAMES

EPOCHS, ITERATIONS = 2, 3
EACH_EPOCH = {"epoch_loss", *(f"terms/{name}" for name in (*TERMS, "foreground")), *METRIC_NAMES}


def train(folder: Path, **ids: str) -> None:
    """Two epochs of three iterations, a validation after each."""
    dataset = write_pair(folder / "data", *nuclei((16, 24, 20), seed=1))
    paths = {"dataset_dir": dataset, "ckpt_dir": folder / "weights", "output_dir": folder / "output"}
    run_here(TRAIN, **{**TINY_TRAINING, **paths, "epochs": EPOCHS, "iterations_per_epoch": ITERATIONS, **ids})


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TensorBoard's folder."""
    folder = tmp_path_factory.mktemp("tensorboard")
    train(folder)
    return folder / "output" / "tensorboard"


class TestTensorBoard:
    def test_each_metric_and_each_term_of_the_loss_is_a_curve_over_the_epochs(self, log_dir: Path) -> None:
        drawn = curves(log_dir)
        assert drawn.keys() == {*EACH_EPOCH, "loss", "learning_rate"}
        assert all(list(drawn[name]) == [1, 2] for name in EACH_EPOCH)

    def test_loss_and_learning_rate_are_curves_over_the_iterations(self, log_dir: Path) -> None:
        drawn = curves(log_dir)
        assert list(drawn["loss"]) == list(drawn["learning_rate"]) == [1, 2, 3, 4, 5, 6]
        first, *rates = drawn["learning_rate"].values()  # those that the steps were made with
        assert first == pytest.approx(0.001)
        assert rates == sorted(rates, reverse=True)
        assert rates[0] > rates[-1] > 0

    def test_all_is_in_one_file(self, log_dir: Path) -> None:
        """TensorBoard without its data server follows the newest file of a folder only."""
        assert len(list(log_dir.iterdir())) == 1

    def test_the_loss_of_an_epoch_is_the_mean_of_its_iterations(self, log_dir: Path) -> None:
        drawn = curves(log_dir)
        losses = list(drawn["loss"].values())
        assert drawn["epoch_loss"][1] == pytest.approx(sum(losses[:3]) / 3, rel=1e-5)
        assert drawn["epoch_loss"][2] == pytest.approx(sum(losses[3:]) / 3, rel=1e-5)

    def test_it_is_the_weighted_sum_of_its_terms(self, log_dir: Path) -> None:
        drawn = curves(log_dir)
        weights = {**dict.fromkeys(TERMS, 1.0), "regularizer": 0.001, "foreground": 0.1}
        total = sum(weight * drawn[f"terms/{name}"][1] for name, weight in weights.items())
        assert drawn["epoch_loss"][1] == pytest.approx(total, rel=1e-5)

    def test_each_validation_has_a_picture(self, log_dir: Path) -> None:
        events = EventAccumulator(str(log_dir), size_guidance={"images": 0})
        events.Reload()
        (name,) = events.Tags()["images"]
        assert [event.step for event in events.Images(name)] == [1, 2]
        assert len(list((log_dir.parent / "pictures").iterdir())) == 2


class TestMlflow:
    CURVES = {*EACH_EPOCH, "train_loss", "lr_group_0"}
    OURS = str(BUNDLE / "configs" / "mlflow.json")
    PICTURES = ("epoch_0001.png", "epoch_0002.png")

    @pytest.mark.parametrize(("tracking", "pictures"), [("mlflow", ()), (OURS, PICTURES)])
    def test_the_handlers_that_monai_adds_get_every_curve(
        self, tracking: str, pictures: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without MLflow, which is not among our requirements: a stand-in notes what MONAI tells it."""
        mlflow = MagicMock()
        experiment = mlflow.MlflowClient.return_value.get_experiment_by_name.return_value
        experiment.lifecycle_stage = mlflow.entities.LifecycleStage.ACTIVE
        monkeypatch.setattr("monai.handlers.mlflow_handler.mlflow", mlflow)
        train(tmp_path, tracking=tracking)
        told = [call.args for call in mlflow.entities.Metric.call_args_list]
        assert {name for name, *_ in told} == self.CURVES
        assert all(isinstance(value, float) for _, value, *_ in told)
        kept = [Path(call.args[1]).name for call in mlflow.MlflowClient.return_value.log_artifact.call_args_list]
        assert sorted(name for name in kept if name.endswith(".png")) == list(pictures)

    def test_the_documented_command(self, tmp_path: Path) -> None:
        mlflow = pytest.importorskip("mlflow")
        train(tmp_path, tracking=self.OURS)
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'output' / 'mlruns.db'}")
        (experiment,) = [one for one in client.search_experiments() if one.name == "monai_experiment"]
        (run,) = client.search_runs(experiment.experiment_id)
        assert run.info.status == "FINISHED"
        assert run.data.metrics.keys() == self.CURVES
        for name, steps in {"annotated_iou": [1, 2], "train_loss": [1, 2, 3, 4, 5, 6]}.items():
            assert [metric.step for metric in client.get_metric_history(run.info.run_id, name)] == steps
        assert sorted(file.path for file in client.list_artifacts(run.info.run_id)) == list(self.PICTURES)
