"""What do the objects look like that were missed?

    python -m monai.bundle run --bundle_root B --config_file B/configs/inference.json --dataset_dir D --ckpt_dir R \\
        --output_dir O
    python benchmarks/missed_objects.py --dataset_dir D --instances O --picture missed.png [--count 4]

Draws the largest objects of all images of D, whose labels must be complete, that no instance of O overlaps with an IoU
above 0.5. Each: image, truth, instances, in the slice of the first axis that shows most of the object; below, of
volumes, along the second axis, slices drawn `--thickness` pixels thick. Outlines: the missed object red, other objects
yellow, instances blue. Prints which they are and how large.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.segmentation import find_boundaries

sys.path[:0] = [str(Path(__file__).parents[1] / "spoco_bundle"), str(Path(__file__).parent)]

from accuracy import stacked  # noqa: E402
from confidence import best_ious, read_volume_of, segmented_images  # noqa: E402

from scripts.training.pictures import Picture, gray_picture, side_by_side  # noqa: E402

RED, YELLOW, BLUE = (230, 60, 60), (240, 220, 80), (90, 200, 230)
COLUMNS = 2  # objects in a row of the picture
Labels = NDArray[np.integer]


class Missed(NamedTuple):
    """An object that no instance overlaps well, and the maps it is in."""

    name: str  # of the image
    id: int
    voxels: int
    best_iou: float
    image: NDArray[np.generic]  # (*spatial)
    labels: Labels
    instances: Labels


def missed_objects(dataset_dir: Path, instances_dir: Path) -> Iterator[Missed]:
    """All missed objects of the images that have been segmented."""
    for name in segmented_images(instances_dir):
        image, labels = (read_volume_of(dataset_dir / kind, name) for kind in ("images", "labels"))
        instances = read_volume_of(instances_dir, f"{name}_instances")
        if image.ndim > labels.ndim:  # its channels come first
            image = image.mean(0)
        overlaps, sizes = best_ious(labels, instances), np.bincount(labels.ravel())
        sizes[0] = 0  # no object
        for missed in np.flatnonzero((overlaps <= 0.5) & (sizes > 0)):
            yield Missed(name, int(missed), int(sizes[missed]), float(overlaps[missed]), image, labels, instances)


def draw(missed: Missed, side: int, thickness: int) -> Picture:
    """Image, truth and instances around the object; of a volume also along the second axis, below."""
    member = missed.labels == missed.id
    sides = (side // thickness, side, side)[-member.ndim :]
    window = tuple(
        _around(places, *sizes) for places, *sizes in zip(np.nonzero(member), sides, member.shape, strict=True)
    )
    if member.ndim == 2:
        return _outlined(missed, window)
    member = member[window]
    above = _outlined(missed, (window[0].start + int(member.sum((1, 2)).argmax()), *window[1:]))
    row = window[1].start + int(member.sum((0, 2)).argmax())
    below = _outlined(missed, (window[0], row, window[2])).repeat(thickness, axis=0)
    white = np.full((4, above.shape[1], 3), 255, np.uint8)
    return np.concatenate([above, white, below])


def _around(places: NDArray[np.int64], side: int, size: int) -> slice:
    """`side` places around the middle of some, within `size`."""
    start = min(max(0, int(places.min() + places.max()) // 2 - side // 2), max(0, size - side))
    return slice(start, min(start + side, size))


def _outlined(missed: Missed, window: tuple[int | slice, ...]) -> Picture:
    gray = gray_picture(missed.image[window])
    truth, found = gray.copy(), gray.copy()
    truth[find_boundaries(missed.labels[window])] = YELLOW
    truth[find_boundaries(missed.labels[window] == missed.id)] = RED
    found[find_boundaries(missed.instances[window])] = BLUE
    return side_by_side([gray, truth, found])


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True, help="its folders images and labels are read")
    parser.add_argument("--instances", type=Path, required=True, help="folder that inference has written to")
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--count", type=int, default=4, help="of objects")
    parser.add_argument("--side", type=int, default=160, help="pixels around the middle of an object that are drawn")
    parser.add_argument("--thickness", type=int, default=2, help="pixels a slice")
    options = parser.parse_args(arguments)
    largest = sorted(missed_objects(options.dataset_dir, options.instances), key=lambda one: -one.voxels)
    for one in largest[: options.count]:
        print(f"{one.name}: object {one.id}, {one.voxels} voxels, best IoU {one.best_iou:.2f}")
    if largest:
        drawn = [draw(one, options.side, options.thickness) for one in largest[: options.count]]
        rows = [side_by_side(drawn[first : first + COLUMNS], gap=12) for first in range(0, len(drawn), COLUMNS)]
        Image.fromarray(stacked(rows, gap=12)).save(options.picture)


if __name__ == "__main__":
    main(sys.argv[1:])
