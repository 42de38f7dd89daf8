"""Image files by their names: the formats that are known, and the one sentence by which a file is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai.config import PathLike

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


def describe_shape(path: PathLike, shape: Sequence[int]) -> str:
    """Write a spatial shape, given in array order, in the axis order of the file: ``7 x 5 x 3 (x, y, z)``."""
    axes, sizes = "zyx"[-len(shape) :], list(shape)
    if str(path).lower().endswith(NIFTI_SUFFIXES):
        axes, sizes = axes[::-1], sizes[::-1]
    return f"{' x '.join(map(str, sizes))} ({', '.join(axes)})"


def refusal(path: PathLike, found: str, expected: str) -> ValueError:
    """The one-sentence error of this package: which file, what was found, what was expected."""
    one_line = " ".join(found.split())  # errors of other libraries may run over several lines
    return ValueError(f"{path}: found {one_line}, expected {expected}.")


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
