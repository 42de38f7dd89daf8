"""Image files by their names: known formats, short names, and the one sentence by which a file is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path, PurePath
from typing import Any

from monai.config import PathLike
from monai.utils import ImageMetaKey

from ..refusals import refusal

TIFF_SUFFIXES = (".ome.tiff", ".ome.tif", ".tiff", ".tif")
NIFTI_SUFFIXES = (".nii.gz", ".nii")
PNG_SUFFIXES = (".png",)
SUFFIXES = TIFF_SUFFIXES + NIFTI_SUFFIXES + PNG_SUFFIXES


def split_suffix(path: PathLike) -> tuple[str, str]:
    """Split a file name into name and volume suffix, whatever the case of the suffix.

    ``"/data/a.b.ome.tif"`` gives ``("a.b", ".ome.tif")``.

    Raises:
        ValueError: when the suffix is none of ``SUFFIXES``.
    """
    file_name = Path(path).name
    for suffix in SUFFIXES:
        if file_name.lower().endswith(suffix):
            return file_name[: -len(suffix)], file_name[-len(suffix) :]
    raise refusal(path, f"the extension {Path(path).suffix or '(none)'}", f"one of {', '.join(SUFFIXES)}")


def image_name(path: str) -> str:
    """The file name without its extension.

    >>> image_name("images/1136_image.ome.tif")
    '1136_image'
    """
    name = PurePath(path).name
    return split_suffix(name)[0] if name.lower().endswith(SUFFIXES) else PurePath(name).stem


def unique_names(paths: Sequence[str]) -> list[str]:
    """A short name for each path, no two alike and in the same order.

    >>> unique_names(["day1/cells.tif", "day2/cells.tif", "day2/nuclei.tif"])
    ['day1/cells', 'day2/cells', 'nuclei']

    Files that differ only in their extension keep their whole path. A path that is there again (several crops
    of a file, or the padding of a distributed sampler) gets a number, an empty path is named by its position.
    """
    paths = [path or f"image_{position}" for position, path in enumerate(paths)]
    distinct = list(dict.fromkeys(paths))
    parts = {path: (*PurePath(path).parts[:-1], image_name(path)) for path in distinct}
    names: dict[str, str] = {}
    for depth in range(1, max(map(len, parts.values()), default=0) + 1):
        tails = {path: "/".join(parts[path][-depth:]) for path in distinct}
        counts = Counter(tails.values())
        for path, tail in tails.items():
            if counts[tail] == 1:
                names.setdefault(path, tail)

    first_names = {path: names.get(path, path) for path in distinct}
    taken, seen, result = set(first_names.values()), set(), []
    for path in paths:
        name = first_names[path]
        if path in seen:
            name = next(other for number in count(2) if (other := f"{name}#{number}") not in taken)
            taken.add(name)
        seen.add(path)
        result.append(name)
    return result


def file_of(tensor: Any, otherwise: object = "") -> str:
    """The file that a tensor was read from, or `otherwise` where its metadata do not say."""
    return str(getattr(tensor, "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ, otherwise))


def describe_shape(path: PathLike, shape: Sequence[int | str]) -> str:
    """Write a spatial shape, given in array order, in the axis order of the file: ``7 x 5 x 3 (x, y, z)``."""
    axes, sizes = "zyx"[-len(shape) :], list(shape)
    if str(path).lower().endswith(NIFTI_SUFFIXES):
        axes, sizes = axes[::-1], sizes[::-1]
    return f"{' x '.join(map(str, sizes))} ({', '.join(axes)})"


def existing_file(path: PathLike) -> Path:
    """The path of a file that is there.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise refusal(path, "a folder", "a file")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    return path
