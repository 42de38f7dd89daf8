"""The readers as MONAI's LoadImaged takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from image_samples import STACK, load, write_nifti, write_tiff
from monai.bundle import ConfigParser
from monai.transforms import Compose, LoadImaged


class TestAsMonaiReader:
    def test_named_in_a_config(self, tmp_path: Path) -> None:
        path = str(write_tiff(tmp_path / "a.tif", STACK.astype(np.uint32) + 2**24 + 1, metadata=None))
        common = {
            "_target_": "LoadImaged",
            "reader": "scripts.files.readers.VolumeReader",
            "ensure_channel_first": True,
        }
        parser = ConfigParser(
            {
                "preprocessing": {
                    "_target_": "Compose",
                    "transforms": [
                        {**common, "keys": "image"},
                        {**common, "keys": "label", "dtype": None},
                    ],
                }
            }
        )
        loaded = parser.get_parsed_content("preprocessing")({"image": path, "label": path})
        assert loaded["image"].dtype == torch.float32
        assert loaded["label"].dtype == torch.int64
        assert loaded["image"].meta["filename_or_obj"] == path

    def test_all_formats_have_one_order_of_axes(self, tmp_path: Path) -> None:
        tiff = write_tiff(tmp_path / "a.tif", metadata=None)
        nifti = write_nifti(tmp_path / "a.nii", STACK.astype(np.int16))
        assert load(tiff).shape == load(nifti).shape == (1, 3, 5, 7)

    def test_a_refused_tiff_is_not_passed_on_to_a_reader_of_first_pages(self, tmp_path: Path) -> None:
        path = write_tiff(tmp_path / "a.tif", imagej=True, metadata={"axes": "TYX"})
        with pytest.raises(ValueError, match="time series"):
            load(path)

    def test_compose_keeps_the_sentence_as_the_cause(self, tmp_path: Path) -> None:
        loader = LoadImaged("image", reader="scripts.files.readers.VolumeReader")
        with pytest.raises(RuntimeError) as error:
            Compose([loader])({"image": tmp_path / "missing.tif"})
        assert str(error.value.__cause__) == f"{tmp_path / 'missing.tif'}: no such file."

    @pytest.mark.parametrize("name", ["a.tif", "a.nii.gz", "a.png"])
    def test_a_missing_file(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(FileNotFoundError, match="no such file"):
            load(tmp_path / name)

    @pytest.mark.parametrize("name", ["a.tif", "a.nii.gz", "a.png"])
    def test_a_folder_in_the_place_of_a_file(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).mkdir()
        with pytest.raises(ValueError, match=f"{name}: found a folder, expected a file"):
            load(tmp_path / name)

    @pytest.mark.parametrize("name", ["a.tif", "a.nii", "a.nii.gz", "a.png"])
    def test_an_empty_file(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match=f"{name}: found .*, expected .*"):
            load(tmp_path / name)

    def test_another_format(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"a\.jpg: found the extension \.jpg, expected one of \.ome\.tiff"):
            load(tmp_path / "a.jpg")

    def test_metadata_survive_a_batch(self, tmp_path: Path) -> None:
        from monai.data import decollate_batch, list_data_collate

        image = load(write_tiff(tmp_path / "a.tif", metadata=None))
        batch = list_data_collate([{"image": image}, {"image": image}])
        assert decollate_batch(batch)[1]["image"].meta["filename_or_obj"] == str(tmp_path / "a.tif")
