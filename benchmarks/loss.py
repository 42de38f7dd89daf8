"""How fast and how small is the SPOCO loss?

    python benchmarks/loss.py [--device cuda] [--repeats 5]

Prints four tables and writes them to ``benchmarks/results/loss.json``
(of a GPU: ``loss_cuda.json``):
(a) forward and backward of the loss against those of the default network on the same patch, with the positions that
    training adds to the embeddings, and without, where every voxel meets every object; on a GPU also with the network
    in bfloat16, whose embeddings the loss turns into float32, and with both recorded, as in a training there,
(b) peak memory above the embeddings, in units of both networks' embeddings,
(c) time against the number of voxels,
(d) the paper's terms against a per-object implementation (`reference_loss`), whose terms and gradients must agree.

All else is with the term of `borders`, which training uses in dense tissue.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import cache, partial, reduce
from itertools import product
from pathlib import Path

import torch
from scipy.spatial import cKDTree
from torch import Tensor

sys.path[:0] = [str(Path(__file__).parents[1] / "spoco_bundle"), str(Path(__file__).parent)]

from bundle import bundle_config  # noqa: E402
from measuring import extra_megabytes, median_seconds, report, results_name  # noqa: E402
from reference_loss import reference_terms  # noqa: E402

from scripts.losses import SpocoLoss, spoco_terms  # noqa: E402
from scripts.network.positions import add_positions  # noqa: E402
from scripts.training.cuda_graphs import recorded  # noqa: E402
from scripts.training.loss_weights import BORDER  # noqa: E402  (of dense tissue; elsewhere it is 0, and the loss cheaper)
from scripts.training.steps import LABEL, TEACHER_VIEW, TeacherLoss  # noqa: E402

OBJECTS = (1, 12, 60, 300)
ANNOTATED_SHARE = 0.2  # of the voxels: the rest is unlabelled
PATCHES = {"3D": (1, 48, 48, 48), "2D": (4, 128, 128)}  # larger than in training, with room for 300 objects
GPU_PATCHES = {**PATCHES, "3D, large": (1, 128, 128, 128)}  # small ones do not keep a GPU busy
OVERLAYS = {"3D": (), "3D, large": (), "2D": ("2d.json",)}
POSITION_SCALE = 0.25  # of train.json; without positions an untrained network's embeddings are nearly all the same
LARGE = (16, 32, 96, 96)  # E and the patch on which the authors' loss takes 5.2 s


@cache  # on a GPU this takes far longer than what is measured
def compact_objects(shape: tuple[int, ...], count: int) -> Tensor:
    """A label map with `count` roundish objects that together fill `ANNOTATED_SHARE` of it."""
    random = torch.Generator().manual_seed(0)
    voxels = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij"), -1).flatten(0, -2)
    centers = voxels[torch.randperm(len(voxels), generator=random)[:count]]
    distance, nearest = cKDTree(centers).query(voxels.numpy())
    distance, nearest = torch.from_numpy(distance), torch.from_numpy(nearest) + 1
    closest = distance.argsort()[: round(ANNOTATED_SHARE * len(voxels))]  # each object keeps at least its centre
    labels = torch.zeros(len(voxels), dtype=torch.long)
    labels[closest] = nearest[closest]
    return labels.view(shape)


def embeddings_at_random(dim: int, shape: tuple[int, ...], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Student and teacher of a half-trained network: objects gather around centres that lie 4 apart or so."""
    random = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(int(labels.max()) + 1, dim, generator=random)
    student = centers[labels].movedim(-1, 0) + 0.4 * torch.randn(dim, *shape, generator=random)
    return student, student + 0.1 * torch.randn(student.shape, generator=random)


def default_network(name: str) -> torch.nn.Module:
    """That of the configs, for isotropic voxels; its weights, and so its embeddings, lie as in a training."""
    config = bundle_config(["train.json", *OVERLAYS[name]], voxel_shape=[1.0] * len(GPU_PATCHES[name][1:]))
    return config.get_parsed_content("network_def").to(memory_format=config.get_parsed_content("memory_format"))


def loss_against_network(device: str, repeats: int) -> None:
    rows = []
    precisions: tuple[torch.dtype, ...] = (torch.float32,)
    patches, ways = PATCHES, {"": False}
    if torch.device(device).type == "cuda":
        patches, precisions, ways = GPU_PATCHES, (torch.float32, torch.bfloat16), {"": False, "recorded ": True}
    for (name, (batch, *shape)), precision in product(patches.items(), precisions):
        network = default_network(name).to(device)
        image = torch.rand(batch, 1, *shape, device=device)
        autocast = torch.autocast(torch.device(device).type, precision, enabled=precision != torch.float32)

        def run_network(
            network: torch.nn.Module = network, image: Tensor = image, autocast: torch.autocast = autocast
        ) -> None:
            with autocast:
                loss = network(image).square().mean()
            loss.backward()
            network.zero_grad()

        seconds = {
            way: median_seconds(partial(run_network, recorded(network, graphs)), repeats, device)
            for way, graphs in ways.items()
        }
        with torch.no_grad(), autocast:
            embeddings = network(image), network(image + 0.05 * torch.randn_like(image))
        for count, scale in product(OBJECTS, (POSITION_SCALE, 0.0)):
            student, teacher = (add_positions(space, scale).detach() for space in embeddings)
            student.requires_grad_(True)
            labels = compact_objects(tuple(shape), count).expand(batch, 1, *shape).to(device)
            row = {
                "patch": name,
                "network in": str(precision).removeprefix("torch."),
                "positions": "yes" if scale else "no",
                "objects": count,
            }
            for way, graphs in ways.items():
                # the other embeddings take the place of an image, and nothing that of their network
                loss = SpocoLoss(foreground_weight=1.0, border_weight=BORDER)
                compare = TeacherLoss(loss, torch.nn.Identity(), cuda_graphs=graphs)
                inputs = student, {TEACHER_VIEW: teacher, LABEL: labels}
                loss_seconds = median_seconds(
                    lambda compare=compare, inputs=inputs: compare(*inputs).backward(), repeats, device
                )
                row[f"{way}network s"], row[f"{way}loss s"] = seconds[way], loss_seconds
                row[f"{way}loss / network"] = loss_seconds / seconds[way]
            rows.append(row)
    report(results_name("loss", device), rows, "(a) forward and backward, loss against network")


def _prepared_loss(objects: int, device: str) -> Callable[[], None]:
    dim, *shape = LARGE
    labels = compact_objects(tuple(shape), objects)
    student, teacher = (tensor[None].to(device) for tensor in embeddings_at_random(dim, tuple(shape), labels))
    inputs = student.requires_grad_(True), teacher, labels[None, None].to(device)
    small = slice(0, 2)  # loads libraries and thread pools, whose memory is not the loss's
    loss = SpocoLoss(border_weight=BORDER)
    loss(inputs[0][:, :, small], inputs[1][:, :, small], inputs[2][:, :, small]).backward()
    inputs[0].grad = None
    return lambda: loss(*inputs).backward()


def peak_memory(device: str) -> None:
    embeddings = 2 * 4 * torch.Size(LARGE).numel() / 2**20
    rows = []
    for count in OBJECTS:
        extra = extra_megabytes(_prepared_loss, count, device, device=device, without_holes=True)
        rows.append(
            {"objects": count, "embeddings MB": embeddings, "above them MB": extra, "ratio": extra / embeddings}
        )
    report(
        results_name("loss", device), rows, "(b) peak memory of forward and backward above the two embedding tensors"
    )


def time_against_voxels(device: str, repeats: int) -> None:
    rows = []
    loss = SpocoLoss(border_weight=BORDER)
    for shape in ((32, 64, 64), (32, 128, 128), (64, 128, 128), (64, 256, 256)):
        labels = compact_objects(shape, 12)
        student, teacher = embeddings_at_random(8, shape, labels)
        inputs = student[None].to(device).requires_grad_(True), teacher[None].to(device), labels[None, None].to(device)
        seconds = median_seconds(lambda inputs=inputs: loss(*inputs).backward(), repeats, device)
        rows.append(
            {
                "voxels": labels.numel(),
                "seconds": seconds,
                "microseconds / 1000 voxels": 1e9 * seconds / labels.numel(),
            }
        )
    report(results_name("loss", device), rows, "(c) time against voxels, 12 objects")


def against_reference(device: str, repeats: int) -> None:
    rows = []
    dim, *shape = LARGE
    for count in (12, 60):
        labels = compact_objects(tuple(shape), count)
        student, teacher = (tensor.to(device) for tensor in embeddings_at_random(dim, tuple(shape), labels))
        student.requires_grad_(True)
        labels = labels.to(device)
        anchors = (labels == 0).nonzero()[:: labels.numel() // 20][:20]

        def total(
            terms: Callable[..., dict[str, Tensor]],
            inputs: tuple[Tensor, ...] = (student, teacher, labels, anchors),
        ) -> Tensor:
            return reduce(torch.add, terms(*inputs).values())

        values = [terms(student, teacher, labels, anchors) for terms in (reference_terms, spoco_terms)]
        torch.testing.assert_close(values[1], values[0], rtol=1e-3, atol=1e-5)
        gradients = [torch.autograd.grad(total(terms), student)[0] for terms in (reference_terms, spoco_terms)]
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-3 * gradients[0].abs().max().item())
        slow = median_seconds(lambda total=total: total(reference_terms).backward(), 1, device)
        ours = median_seconds(lambda total=total: total(spoco_terms).backward(), repeats, device)
        rows.append({"objects": count, "per object s": slow, "ours s": ours, "times faster": slow / ours})
    report(
        results_name("loss", device),
        rows,
        "(d) against a per-object implementation, embeddings " + "x".join(map(str, LARGE)),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    loss_against_network(options.device, options.repeats)
    peak_memory(options.device)
    time_against_voxels(options.device, options.repeats)
    against_reference(options.device, options.repeats)
