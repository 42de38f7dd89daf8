"""Small image files to read, and how MONAI reads them with this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImaged

SHARED = Path(__file__).parents[2] / "shared" / "data"
STACK = np.arange(3 * 5 * 7, dtype=np.uint16).reshape(3, 5, 7)  # z, y, x
PLANE = STACK[1]
TIFF_FLAVOURS = {
    "plain": {"metadata": None},
    "written by tifffile": {"metadata": {"axes": "ZYX"}},
    "written by tifffile without axes": {},
    "compressed": {"compression": "zlib"},
    "LZW": {"compression": "lzw", "predictor": True},
    "tiled": {"tile": (16, 16)},
    "BigTIFF": {"bigtiff": True},
    "big endian": {"byteorder": ">"},
    "ImageJ": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "ImageJ, compressed": {"imagej": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
    "OME": {"ome": True, "metadata": {"axes": "ZYX"}},
}


def write_tiff(path: Path, array: np.ndarray = STACK, **options: Any) -> Path:
    tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})
    return path


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write an array with axes (z, y, x) the way NIfTI has it, (x, y, z)."""
    nibabel.save(nibabel.Nifti1Image(array.transpose(), np.eye(4) if affine is None else affine), path)
    return path


def load(path: Path, **options: Any) -> MetaTensor:
    options = {"reader": "scripts.files.readers.VolumeReader", "ensure_channel_first": True, **options}
    return LoadImaged("image", **options)({"image": str(path)})["image"]


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: found ")
    assert "\n" not in str(error.value)


def image(shape: tuple[int, ...], voxel_size: tuple[float, ...], dtype: torch.dtype = torch.float32) -> MetaTensor:
    """An image (1, *shape) as the reader gives it, with values 0, 1, 2, ..."""
    affine = torch.diag(torch.tensor([*voxel_size, 1.0], dtype=torch.float64))
    meta = {"original_affine": affine.clone(), "spatial_shape": np.array(shape), "filename_or_obj": "cells.tif"}
    values = torch.arange(int(np.prod(shape))).reshape(1, *shape).to(dtype)
    return MetaTensor(values, affine=affine, meta=meta)
