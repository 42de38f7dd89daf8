"""Do the windows of an image agree with each other, and with the image seen at once?

    python benchmarks/windows.py                                       # shipped weights, a generated volume
    python benchmarks/windows.py --name NAME --ckpt_dir R --dataset_dir D [--config 2d.json]

For each image of a dataset, with the preprocessing, the network and the clustering of inference.json, two tables that
are also written to ``benchmarks/results/windows.json``:

(a) how far a voxel's embedding in one window that sees only itself lies from its embedding in the whole image, by the
    voxel's distance to the nearest rim of the window inside the image;
(b) for windows that see only themselves and are blended, and for those of this bundle, that distance, what AP50 the
    instances have when those of the whole image are taken for the truth, and with the true labels. In its second row
    the whole image's embeddings are disturbed by a hundredth of `delta_var` in each dimension.

Distances are in units of `delta_var`, the radius of an instance. AP50 is the mean over the images.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from monai.data.utils import dense_patch_slices
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).parents[1] / "spoco_bundle"), str(Path(__file__).parent)]

from bundle import BUNDLE, bundle_config, generate_dataset  # noqa: E402
from measuring import Row, report  # noqa: E402

from scripts.files.datalist import image_label_pairs  # noqa: E402
from scripts.files.readers import read_volume  # noqa: E402
from scripts.metrics import instance_metrics  # noqa: E402
from scripts.network.checkpoints import load_weights  # noqa: E402
from scripts.network.inferers import EmbeddingInferer  # noqa: E402
from scripts.network.positions import add_positions  # noqa: E402
from scripts.transforms.resampling import resample_nearest  # noqa: E402

GENERATED_SHAPE = (160, 96, 96)  # two of the default windows along z
RIMS = (0, 4, 8, 16, 32, 64)  # voxels
DISTURBANCE = 0.01  # delta_var


class Way(NamedTuple):
    """One way to make an image's embeddings in windows."""

    roi: int  # voxels along each axis
    overlap: float | None  # of windows that see only themselves, and are blended by a Gaussian; None: layer by layer


class Case(NamedTuple):
    """An image of the dataset on the working grid, with its instances where it is known."""

    image: Tensor  # (1, C, *spatial)
    truth: np.ndarray  # (*spatial), 0 = background
    reference: Tensor  # (1, E, *spatial), the embeddings of the whole image without positions


class Model:
    """The parts of inference.json that this benchmark needs."""

    def __init__(self, config: str | None, ckpt_dir: Path, dataset_dir: Path) -> None:
        configs = ["inference.json", *([config] if config else [])]
        parser = bundle_config(configs, ckpt_dir=str(ckpt_dir), dataset_dir=str(dataset_dir), device="cpu")
        self.network: nn.Module = parser.get_parsed_content("network").eval()
        load_weights(self.network, ckpt_dir / "model.pt")
        self.preprocessing: Callable[[Row], Row] = parser.get_parsed_content("preprocessing")
        self.cluster = parser.get_parsed_content("cluster")
        self.inferer: EmbeddingInferer = parser.get_parsed_content("inferer")
        self.dims: int = parser.get_parsed_content("spatial_dims")
        self.delta_var: float = parser.get_parsed_content("delta_var")

    def embed(self, image: Tensor, way: Way) -> Tensor:
        """(1, C, *spatial) -> (1, E, *spatial) without positions."""
        if way.overlap is None:
            return EmbeddingInferer([way.roi] * self.dims, divisor=self.inferer.divisor)(image, self.network)
        window = [min(way.roi, n) for n in image.shape[2:]]
        blended = SlidingWindowInferer(window, overlap=way.overlap, mode="gaussian")(image, self.network)
        assert isinstance(blended, Tensor)
        return blended

    def instances(self, embeddings: Tensor) -> np.ndarray:
        """(1, E, *spatial) -> (*spatial)."""
        positioned = add_positions(embeddings, self.inferer.position_scale)[0]
        return self.cluster({"pred": positioned})["pred"][0].numpy()

    def distance(self, one: Tensor, other: Tensor) -> np.ndarray:
        """(E, *spatial), (E, *spatial) -> (*spatial) in delta_var."""
        return (one - other).norm(dim=0).numpy() / self.delta_var


def cases(model: Model, dataset_dir: Path, smallest: int) -> Iterator[Case]:
    """The images with at least `smallest` voxels along their longest axis, one after the other."""
    for entry in image_label_pairs(str(dataset_dir)):
        image = model.preprocessing({"image": entry["image"]})["image"].as_tensor()[None]
        grid = image.shape[2:]
        # what the network's strides divide, so that no way has to continue the image beyond its border
        divisible = [n // step * step for n, step in zip(image.shape[2:], model.inferer.divisor, strict=True)]
        image = image[(..., *map(slice, divisible))]
        if max(image.shape[2:]) < smallest:
            continue
        labels = read_volume(entry["label"]).array
        truth = resample_nearest(torch.from_numpy(labels.astype("int64"))[None], grid)[0].numpy()
        truth = truth[tuple(map(slice, divisible))]
        yield Case(image, truth, model.network(image))


def rim_distances(model: Model, case: Case, roi: int) -> dict[int, list[np.ndarray]]:
    """Distance of the embeddings in windows that see only themselves from the whole image's, by `RIMS`."""
    shape = case.image.shape[2:]
    window_size = [min(roi, n) for n in shape]
    found: dict[int, list[np.ndarray]] = defaultdict(list)
    for window in dense_patch_slices(shape, window_size, window_size):
        embeddings = model.network(case.image[(slice(None), slice(None), *window)])[0]
        distance = model.distance(embeddings, case.reference[0][(slice(None), *window)])
        depth = np.digitize(depth_below_rim(window, shape), RIMS) - 1
        for ring in np.unique(depth):
            found[RIMS[ring]].append(distance[depth == ring])
    return found


def depth_below_rim(window: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Voxels between each voxel of a window and its nearest face that is not one of the image."""
    depth = np.full([side.stop - side.start for side in window], max(shape))
    for axis, (side, length) in enumerate(zip(window, shape, strict=True)):
        along = np.arange(side.start, side.stop)
        before = along - side.start if side.start > 0 else along + length
        after = side.stop - 1 - along if side.stop < length else along + length
        depth = np.minimum(depth, np.minimum(before, after).reshape(-1, *[1] * (len(shape) - 1 - axis)))
    return depth


def report_rims(name: str, model: Model, data: list[Case], roi: int) -> None:
    distances: dict[int, list[np.ndarray]] = defaultdict(list)
    for case in data:
        for rim, values in rim_distances(model, case, roi).items():
            distances[rim] += values
    rows: list[Row] = []
    for rim in sorted(distances):
        joined = np.concatenate(distances[rim])
        rows.append(
            {
                "voxels from the rim": f"{rim} and more",
                "mean": float(joined.mean()),
                "95th": float(np.percentile(joined, 95)),
            }
        )
    report("windows", rows, f"(a) {name}: one window of {roi} against the whole image, distance of embeddings")


def report_ways(name: str, model: Model, data: list[Case], ways: list[Way]) -> None:
    references = [model.instances(case.reference) for case in data]
    rows: list[Row] = []

    def measure(title: Row, embed: Callable[[Case], Tensor]) -> None:
        seconds, distances, agreements, accuracies = 0.0, [], [], []
        for case, reference in zip(data, references, strict=True):
            start = time.perf_counter()
            embeddings = embed(case)
            seconds += time.perf_counter() - start
            distances.append(model.distance(embeddings[0], case.reference[0]).ravel())
            instances = model.instances(embeddings)
            agreements.append(instance_metrics(instances, reference)["ap50"])
            accuracies.append(instance_metrics(instances, case.truth)["ap50"])
        all_distances = np.concatenate(distances)
        row = {
            **title,
            "s": seconds,
            "mean distance": float(all_distances.mean()),
            "95th": float(np.percentile(all_distances, 95)),
            "AP50, whole image": float(np.mean(agreements)),
            "AP50, truth": float(np.mean(accuracies)),
        }
        rows.append(row)
        print(row, file=sys.stderr, flush=True)

    def embed_case(case: Case, way: Way) -> Tensor:
        return model.embed(case.image, way)

    generator = torch.Generator().manual_seed(0)
    measure({"window": "whole", "overlap": "-"}, lambda case: model.network(case.image))
    measure(
        {"window": "disturbed", "overlap": "-"},
        lambda case: (
            case.reference + DISTURBANCE * model.delta_var * torch.randn(case.reference.shape, generator=generator)
        ),
    )
    for way in ways:
        overlap = "layer by layer" if way.overlap is None else way.overlap
        measure({"window": way.roi, "overlap": overlap}, partial(embed_case, way=way))
    report("windows", rows, f"(b) {name}: windows against the whole image, {len(data)} images")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="generated nuclei, shipped weights")
    parser.add_argument("--config", default=None, help="overlay over inference.json")
    parser.add_argument("--ckpt_dir", type=Path, default=BUNDLE / "models")
    parser.add_argument("--dataset_dir", type=Path, default=None)
    parser.add_argument("--rois", type=int, nargs=2, default=[64, 128], help="a small and a large window")
    parser.add_argument("--smallest", type=int, default=0, help="leave out images whose longest axis is shorter")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        if given.dataset_dir is None:
            generate_dataset(Path(folder), GENERATED_SHAPE, seed=5)
        dataset_dir = given.dataset_dir or Path(folder)
        model = Model(given.config, given.ckpt_dir, dataset_dir)
        with torch.inference_mode():
            data = list(cases(model, dataset_dir, given.smallest))
            report_rims(given.name, model, data, given.rois[-1])
            small, large = given.rois
            ways = [Way(small, 0.5), Way(large, 0.25), Way(large, 0.5), Way(small, None), Way(large, None)]
            report_ways(given.name, model, data, ways)


if __name__ == "__main__":
    main()
