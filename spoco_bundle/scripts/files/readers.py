"""Read TIFF, NIfTI and PNG files as MONAI images with axes (C, Z, Y, X) or (C, Y, X).

In a MONAI JSON config, images and labels are loaded by MONAI's own ``LoadImaged``::

    {"_target_": "LoadImaged", "keys": "image", "reader": "scripts.files.readers.VolumeReader",
     "ensure_channel_first": true}
    {"_target_": "LoadImaged", "keys": "label", "reader": "scripts.files.readers.VolumeReader",
     "ensure_channel_first": true, "dtype": null}

The image becomes float32, MONAI's default. ``"dtype": null`` keeps what the label file holds: integer ids
become int32 or int64 (float32 would merge ids above 2**24), and a float label stays float, so that the
check after it can refuse it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader

from ..refusals import refusal
from .image_files import PNG_SUFFIXES, SUFFIXES, TIFF_SUFFIXES, split_suffix
from .nifti_files import read_nifti
from .png_files import read_png
from .tiff_files import read_tiff
from .volumes import Volume


def read_volume(path: PathLike) -> Volume:
    """Read a file of any of the formats; raises like :func:`read_tiff`, :func:`read_nifti`, :func:`read_png`."""
    suffix = split_suffix(path)[1].lower()
    if suffix in PNG_SUFFIXES:
        return read_png(path)
    return read_tiff(path) if suffix in TIFF_SUFFIXES else read_nifti(path)


class VolumeReader(ImageReader):
    """MONAI reader of TIFF, NIfTI and PNG files, the one to name in configs.

    Everything happens in ``get_data``: ``LoadImage`` swallows the errors of ``read`` and goes on to its
    other readers, one of which takes the first page of a TIFF for the whole of it.
    """

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether all of the named files have a known suffix."""
        return all(path.name.lower().endswith(SUFFIXES) for path in self.read(filename))

    def read(self, data: Sequence[PathLike] | PathLike, **_: object) -> list[Path]:
        """Return the paths, unchecked: ``get_data`` refuses, and its error reaches the user as it is."""
        return [Path(data)] if isinstance(data, str | os.PathLike) else [Path(name) for name in data]

    def get_data(self, img: list[Path]) -> tuple[np.ndarray, dict[str, Any]]:
        """Return array and metadata of one file; errors as of :func:`read_volume`."""
        if len(img) != 1:
            raise refusal(img[0], f"a list of {len(img)} files", "one file for each image")
        return read_volume(img[0])
