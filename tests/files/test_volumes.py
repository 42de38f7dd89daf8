"""Values keep their kind, and integers their size, whatever file they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from image_samples import STACK, assert_refused, load, write_nifti, write_tiff


class TestLabelTypes:
    """With ``dtype=None`` ids stay what they are."""

    @pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32, bool])
    def test_small_integers_become_int32(self, tmp_path: Path, dtype: type) -> None:
        ids = (STACK % 2).astype(dtype)
        label = load(write_tiff(tmp_path / "a.tif", ids, metadata=None), dtype=None)
        assert label.dtype == torch.int32
        assert np.array_equal(label.numpy()[0], ids)

    @pytest.mark.parametrize("dtype", [np.uint32, np.int64, np.uint64])
    def test_large_integers_become_int64(self, tmp_path: Path, dtype: type) -> None:
        ids = STACK.astype(dtype) + 2**24 + 1  # float32 cannot tell these from their neighbours
        label = load(write_tiff(tmp_path / "a.tif", ids, metadata=None), dtype=None)
        assert label.dtype == torch.int64
        assert np.array_equal(label.numpy()[0], ids)

    def test_nifti_ids_above_2_to_24(self, tmp_path: Path) -> None:
        ids = STACK.astype(np.int32) + 2**24 + 1
        assert np.array_equal(load(write_nifti(tmp_path / "a.nii.gz", ids), dtype=None).numpy()[0], ids)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.dtype(">f4")])
    def test_floats_stay_floats_so_that_the_check_sees_them(self, tmp_path: Path, dtype: np.dtype) -> None:
        label = load(write_tiff(tmp_path / "a.tif", STACK.astype(dtype), metadata=None), dtype=None)
        assert label.is_floating_point()


def test_complex_values(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", STACK.astype(np.complex64))
    assert_refused(path, "values of type complex64, expected integers or floats")


def test_ids_beyond_64_bits(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.full((3, 5, 7), 2**63, np.uint64))
    assert_refused(path, r"the value 9223372036854775808, expected integers below 2\*\*63")
