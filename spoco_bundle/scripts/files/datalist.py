"""Find the images of a dataset, and the label map that belongs to each of them.

In a MONAI JSON config::

    "images": null, "labels": null,
    "data": {"_target_": "scripts.files.datalist.image_label_pairs", "dataset_dir": "@dataset_dir",
             "images": "@images", "labels": "@labels"}
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

from monai.config import PathLike

from ..refusals import InputError
from .image_files import SUFFIXES, split_suffix

Paths = Sequence[PathLike] | str | None

logger = logging.getLogger(__name__)


def image_label_pairs(
    dataset_dir: PathLike,
    images: Paths = None,
    labels: Paths = None,
    masks: Paths = None,
    asked_elsewhere: bool = False,
) -> list[dict[str, str]]:
    """List the images of a dataset with their label maps, sorted by name.

    ``dataset_dir/images/NAME.EXT`` belongs to ``dataset_dir/labels/NAME.EXT``, where the two EXT may
    differ. Any other layout is given by ``images`` and ``labels`` together: two lists of paths, paired by their
    order, or two glob patterns, paired by what their wildcards stand for; if that never agrees, by their sorted order.
    ``masks``, a list or pattern as well, adds to each image the mask inside which it is clustered.
    ``asked_elsewhere`` says that somebody puts another list in the place of this one: it is empty.

    Returns:
        One ``{"image": path, "label": path}`` for each image, with ``"mask"`` where masks are given.

    Raises:
        FileNotFoundError: a folder or a listed file does not exist.
        ValueError: nothing found, an image or a label without its counterpart, two files of one name, lists
            of different length, or patterns of which one lacks a file.
    """
    if asked_elsewhere:
        return []
    if (images is None) != (labels is None):
        given, missing = ("images", "labels") if labels is None else ("labels", "images")
        raise InputError(f"Found {given} without {missing}, expected both lists or neither.")
    if images is not None and labels is not None:
        if images == labels:
            raise InputError(f"labels: found {labels}, which are the images, expected their label maps.")
        entries = [{"image": path} for path in _listed("images", images)]
        return _with(_with(entries, "label", labels, images), "mask", masks, images)
    by_name, labels_by_name = _volumes(Path(dataset_dir) / "images"), _volumes(Path(dataset_dir) / "labels")
    _check_counterparts(by_name, labels_by_name, "image", "label", Path(dataset_dir) / "labels")
    _check_counterparts(labels_by_name, by_name, "label", "image", Path(dataset_dir) / "images")
    entries = [{"image": by_name[name], "label": labels_by_name[name]} for name in by_name]
    return _with(entries, "mask", masks)


def not_held_out(data: Sequence[Mapping[str, str]], held_out: int) -> list[Mapping[str, str]]:
    """The images to train on: all but the first ones.

    Raises:
        ValueError: no whole number, a negative one, or one that leaves no image.
    """
    if isinstance(held_out, bool) or not isinstance(held_out, int) or not 0 <= held_out < max(1, len(data)):
        expected = f"a whole number from 0 to {len(data) - 1}, as there are {len(data)} images"
        raise InputError(f"held_out: found {held_out!r}, expected {expected}.")
    return list(data[held_out:])


def image_list(dataset_dir: PathLike, images: Paths = None, masks: Paths = None) -> list[dict[str, str]]:
    """List the images to segment: those in ``dataset_dir/images``, sorted by name, or those given.

    Returns:
        One ``{"image": path}`` for each image, with ``"mask"`` where masks are given.

    Raises:
        FileNotFoundError: the folder or a listed file does not exist.
        ValueError: nothing found, or two images of one name, whose results would have one name, too.
    """
    if images is None:
        return _with([{"image": path} for path in _volumes(Path(dataset_dir) / "images").values()], "mask", masks)
    paths_by_name: dict[str, str] = {}
    for path in _listed("images", images):
        name = _name(path)
        if name in paths_by_name:
            raise InputError(f"Found {paths_by_name[name]} and {path}, expected one image a name.")
        paths_by_name[name] = path
    return _with([{"image": path} for path in paths_by_name.values()], "mask", masks, images)


def annotated_so_far(
    dataset_dir: PathLike, images: Paths = None, labels: Paths = None, masks: Paths = None
) -> list[dict[str, str]]:
    """List the images, and for each the label map that there is: in ``dataset_dir/labels`` any may lack.

    Raises:
        FileNotFoundError, ValueError: see `image_list` and `image_label_pairs`.
    """
    if labels is not None:
        pairs = image_label_pairs(dataset_dir, images, labels, masks)
        image_list(dataset_dir, [pair["image"] for pair in pairs])  # refuses two of one name, whose maps were one file
        return pairs
    entries, folder = image_list(dataset_dir, images, masks), Path(dataset_dir) / "labels"
    if images is not None or not folder.is_dir():
        return entries
    labels_of = _volumes(folder, allow_empty=True)
    images_of = {_name(entry["image"]): entry["image"] for entry in entries}
    _check_counterparts(labels_of, images_of, "label", "image", folder.with_name("images"))
    return [
        {**entry, **({"label": labels_of[name]} if name in labels_of else {})}
        for name, entry in zip(images_of, entries, strict=True)
    ]


def _with(entries: list[dict[str, str]], key: str, paths: Paths, images: Paths = None) -> list[dict[str, str]]:
    """Add to each entry its label map or mask; unchanged without paths.

    Where both are patterns, those belong together whose wildcards stand for the same text, and none may lack: in sorted
    lists one missing file on either side shifts all that follow. Where no texts agree, and in lists, it is the order.
    """
    if paths is None:
        return entries
    others = _listed(f"{key}s", paths)
    if both := {entry["image"] for entry in entries} & set(others):
        raise InputError(f"{key}s: found {min(both)}, which is an image, expected another file.")
    image_of = {_wildcard_texts(images, entry["image"]): entry["image"] for entry in entries}
    other_of = {_wildcard_texts(paths, other): other for other in others}
    are_told_apart = len(image_of) == len(entries) and len(other_of) == len(others)
    if are_told_apart and image_of.keys() & other_of.keys() - {()}:
        _check_counterparts(image_of, other_of, "image", key, str(paths))
        _check_counterparts(other_of, image_of, key, "image", str(images))
        return [{**entry, key: other_of[texts]} for texts, entry in zip(image_of, entries, strict=True)]
    if len(others) != len(entries):
        of_images, of_others = (f" ({pattern})" if isinstance(pattern, str) else "" for pattern in (images, paths))
        found = f"{len(entries)} images{of_images} and {len(others)} {key}s{of_others}"
        raise InputError(f"Found {found}, expected equal numbers.")
    if isinstance(images, str) and len(entries) > 1:
        logger.warning("%s: taken for the %s of %s, and so on in sorted order", others[0], key, entries[0]["image"])
    return [{**entry, key: other} for entry, other in zip(entries, others, strict=True)]


def _wildcard_texts(pattern: Paths, path: str) -> tuple[str, ...]:
    """What the wildcards of a glob pattern stand for in a path; () for a list.

    >>> _wildcard_texts("plant*_rgb.png", "plant007_rgb.png")
    ('007',)
    """
    if not isinstance(pattern, str):
        return ()
    folder, rest = _folder_and_pattern(pattern)
    parts = re.split(r"(\*\*/|\*+|\?|\[.*?\])", rest)  # at odd positions the wildcards; **/ may stand for no folder
    texts = ["(.*/|)" if part == "**/" else "(.*)" if odd % 2 else re.escape(part) for odd, part in enumerate(parts)]
    case = re.IGNORECASE if Path("A") == Path("a") else 0  # as on Windows, where the pattern itself found the files so
    match = re.fullmatch("".join(texts), Path(path).relative_to(folder).as_posix(), case)
    return tuple(map(_composed, match.groups())) if match else ()


def _name(path: PathLike) -> str:
    """By which files belong together."""
    return _composed(split_suffix(path)[0])


def _composed(text: str) -> str:
    """With accents in one character each: macOS hands on file names in which a letter and its accent are two."""
    return unicodedata.normalize("NFC", text)


def _folder_and_pattern(pattern: str) -> tuple[Path, str]:
    """Split a glob pattern after the folders that exist as written: brackets in their names are no wildcards.

    The pattern has slashes on Windows as well, which `glob` takes there, too.
    """
    whole = Path(pattern)
    folder = next((path for path in whole.parents if path.exists()), Path())
    return folder, whole.relative_to(folder).as_posix()


def _listed(kind: str, paths: Sequence[PathLike] | str) -> list[str]:
    """Return the paths of a list, which must exist, the one path that a text is, or the matches of a glob pattern."""
    if isinstance(paths, str):
        if Path(paths).exists():
            return [str(Path(paths))]
        folder, pattern = _folder_and_pattern(paths)
        matches = sorted(str(folder / path) for path in glob(pattern, root_dir=folder, recursive=True))
        if not matches:
            raise InputError(f"{paths}: found no file, expected {kind} that match this pattern.")
        return matches
    if not paths:
        raise InputError(f"Found an empty list of {kind}, expected at least one path.")
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file, listed in {kind}.")
    return [str(Path(path)) for path in paths]


def _volumes(folder: Path, allow_empty: bool = False) -> dict[str, str]:
    """Return name -> path of the volumes in a folder, sorted by name; hidden files are left out."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder, expected the folders images and labels in dataset_dir.")
    by_name: dict[str, str] = {}
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and not path.is_dir()]
    volumes = [path for path in files if path.name.lower().endswith(SUFFIXES)]
    if len(volumes) < len(files):
        others = sorted({*files} - {*volumes})
        logger.warning("%s: left out %s, expected %s", folder, _first_names(others), ", ".join(SUFFIXES))
    for path in volumes:
        name = _name(path)
        if name in by_name:
            raise InputError(f"{folder}: found {Path(by_name[name]).name} and {path.name}, expected one file a name.")
        by_name[name] = str(path)
    if not by_name and not allow_empty:
        raise InputError(f"{folder}: found no volume, expected files that end in {', '.join(SUFFIXES)}.")
    return dict(sorted(by_name.items()))


def _check_counterparts(
    by_name: Mapping[Any, str], others: Mapping[Any, str], kind: str, other_kind: str, other_folder: Path | str
) -> None:
    alone = [Path(path) for name, path in by_name.items() if name not in others]
    if alone:
        names = _first_names(alone)
        raise InputError(
            f"{other_folder}: found no {other_kind} for the {kind} {names}, expected one of the same name."
        )


def _first_names(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(path.name for path in paths[:3]) + more
