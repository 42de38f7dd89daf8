"""Find the images of a dataset, and the label map that belongs to each of them.

In a MONAI JSON config::

    "images": null, "labels": null,
    "data": "$scripts.datalist.image_label_pairs(@dataset_dir, @images, @labels)"
"""

from __future__ import annotations

from collections.abc import Sequence
from glob import glob
from pathlib import Path

from monai.config import PathLike

from .readers import SUFFIXES, split_suffix

Paths = Sequence[PathLike] | str | None


def image_label_pairs(dataset_dir: PathLike, images: Paths = None, labels: Paths = None) -> list[dict[str, str]]:
    """List the images of a dataset with their label maps, sorted by name.

    ``dataset_dir/images/NAME.EXT`` belongs to ``dataset_dir/labels/NAME.EXT``, where the two EXT may
    differ. Any other layout is given by ``images`` and ``labels`` together: two lists of paths, or two
    glob patterns (sorted), paired by their order.

    Returns:
        One ``{"image": path, "label": path}`` for each image.

    Raises:
        FileNotFoundError: a folder or a listed file does not exist. ValueError: nothing found, an image
        or a label without its counterpart, two files of one name, or lists of
            different length.
    """
    if (images is None) != (labels is None):
        given, missing = ("images", "labels") if labels is None else ("labels", "images")
        raise ValueError(f"Found {given} without {missing}, expected both lists or neither.")
    if images is not None and labels is not None:
        image_paths, label_paths = _listed("images", images), _listed("labels", labels)
        if len(image_paths) != len(label_paths):
            raise ValueError(f"Found {len(image_paths)} images and {len(label_paths)} labels, expected equal numbers.")
        return [{"image": image, "label": label} for image, label in zip(image_paths, label_paths, strict=True)]
    by_name, labels_by_name = _volumes(Path(dataset_dir) / "images"), _volumes(Path(dataset_dir) / "labels")
    _check_counterparts(by_name, labels_by_name, "image", "label", Path(dataset_dir) / "labels")
    _check_counterparts(labels_by_name, by_name, "label", "image", Path(dataset_dir) / "images")
    return [{"image": by_name[name], "label": labels_by_name[name]} for name in by_name]


def image_list(dataset_dir: PathLike, images: Paths = None) -> list[dict[str, str]]:
    """List the images to segment: those in ``dataset_dir/images``, sorted by name, or those given.

    Returns:
        One ``{"image": path}`` for each image.

    Raises:
        FileNotFoundError: the folder or a listed file does not exist.
        ValueError: nothing found, or two images of one name, whose results would have one name, too.
    """
    if images is None:
        return [{"image": path} for path in _volumes(Path(dataset_dir) / "images").values()]
    paths_by_name: dict[str, str] = {}
    for path in _listed("images", images):
        name = split_suffix(path)[0]
        if name in paths_by_name:
            raise ValueError(f"Found {paths_by_name[name]} and {path}, expected one image a name.")
        paths_by_name[name] = path
    return [{"image": path} for path in paths_by_name.values()]


def _listed(kind: str, paths: Sequence[PathLike] | str) -> list[str]:
    """Return the paths of a list, which must exist, or the matches of a glob pattern."""
    if isinstance(paths, str):
        matches = sorted(glob(paths, recursive=True))
        if not matches:
            raise ValueError(f"{paths}: found no file, expected {kind} that match this pattern.")
        return matches
    if not paths:
        raise ValueError(f"Found an empty list of {kind}, expected at least one path.")
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file, listed in {kind}.")
    return [str(path) for path in paths]


def _volumes(folder: Path) -> dict[str, str]:
    """Return name -> path of the volumes in a folder, sorted by name; hidden files are left out."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder, expected the folders images and labels in dataset_dir.")
    by_name: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.name.lower().endswith(SUFFIXES):
            continue
        name = split_suffix(path)[0]
        if name in by_name:
            raise ValueError(f"{folder}: found {Path(by_name[name]).name} and {path.name}, expected one file a name.")
        by_name[name] = str(path)
    if not by_name:
        raise ValueError(f"{folder}: found no volume, expected files that end in {', '.join(SUFFIXES)}.")
    return dict(sorted(by_name.items()))


def _check_counterparts(
    by_name: dict[str, str], others: dict[str, str], kind: str, other_kind: str, other_folder: Path
) -> None:
    alone = [Path(path).name for name, path in by_name.items() if name not in others]
    if alone:
        names = ", ".join(alone[:3]) + (f" and {len(alone) - 3} more" if len(alone) > 3 else "")
        raise ValueError(
            f"{other_folder}: found no {other_kind} for the {kind} {names}, expected one of the same name."
        )
