"""What a PNG file looks like once it is loaded."""

from __future__ import annotations

import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from image_samples import PLANE, load
from PIL import Image


class TestPng:
    COLOURS = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)

    def write(self, path: Path, array: np.ndarray) -> Path:
        path.write_bytes(imagecodecs.png_encode(array))
        return path

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_grey_values(self, tmp_path: Path, dtype: type) -> None:
        plane = PLANE.astype(dtype) * (1 if dtype == np.uint8 else 900)
        image = load(self.write(tmp_path / "a.PNG", plane))
        assert np.array_equal(image.numpy(), plane[None])
        assert image.affine.tolist() == np.eye(3).tolist()
        assert image.meta["spatial_shape"].tolist() == [5, 7]

    @pytest.mark.parametrize("bits", [1, 2, 4])
    def test_grey_values_of_fewer_bits_are_what_the_file_holds(self, tmp_path: Path, bits: int) -> None:
        values = PLANE.astype(np.uint8) % 2**bits
        image = Image.fromarray(values, mode="L")
        image.putpalette([0] * 3 * 2**bits)
        image.save(tmp_path / "a.png", bits=bits)  # Pillow writes few bits with a palette only; grey has none
        data = (tmp_path / "a.png").read_bytes()
        start = data.index(b"PLTE") - 4
        header = data[12:25] + b"\0" + data[26:29]
        without = data[:8] + data[8:12] + header + zlib.crc32(header).to_bytes(4, "big")
        (tmp_path / "a.png").write_bytes(without + data[start + 12 + int.from_bytes(data[start : start + 4], "big") :])
        assert np.array_equal(load(tmp_path / "a.png", dtype=None).numpy()[0], values)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_colours_become_channels(self, tmp_path: Path, dtype: type) -> None:
        colours = self.COLOURS.astype(dtype) * (1 if dtype == np.uint8 else 600)
        image = load(self.write(tmp_path / "a.png", colours))
        assert np.array_equal(image.numpy(), colours.transpose(2, 0, 1))

    @pytest.mark.parametrize(("colours", "left"), [(COLOURS, 3), (COLOURS[..., :1], 1)])
    def test_an_alpha_channel_is_left_out(self, tmp_path: Path, colours: np.ndarray, left: int) -> None:
        alpha = np.full((5, 7, 1), 200, np.uint8)
        image = load(self.write(tmp_path / "a.png", np.concatenate([colours, alpha], axis=-1)))
        assert np.array_equal(image.numpy(), colours.transpose(2, 0, 1))
        assert image.shape[0] == left

    def test_a_palette_gives_its_indices_and_not_its_colours(self, tmp_path: Path) -> None:
        image = Image.fromarray(PLANE.astype(np.uint8), mode="L")
        image.putpalette([200, 100, 50] * 256)
        image.save(tmp_path / "a.png", transparency=0)
        label = load(tmp_path / "a.png", dtype=None)
        assert np.array_equal(label.numpy(), PLANE[None])
        assert label.dtype == torch.int32
        assert label.meta["has_palette"]

    def test_a_palette_of_few_colours(self, tmp_path: Path) -> None:
        image = Image.fromarray(PLANE.astype(np.uint8) % 3, mode="L")
        image.putpalette([200, 100, 50, 0, 0, 0, 9, 9, 9])
        image.save(tmp_path / "a.png", bits=2)
        assert np.array_equal(load(tmp_path / "a.png", dtype=None).numpy()[0], PLANE % 3)

    def test_a_file_cut_off_anywhere_is_refused(self, tmp_path: Path) -> None:
        grey = self.write(tmp_path / "whole.png", PLANE).read_bytes()
        image = Image.fromarray(PLANE.astype(np.uint8), mode="L")
        image.putpalette([200, 100, 50] * 256)
        image.save(tmp_path / "palette.png")
        end = 24  # two checksums and the last chunk hold no pixels
        for whole in (grey, (tmp_path / "palette.png").read_bytes()):
            for length in range(0, len(whole) - end, 5):
                (tmp_path / "a.png").write_bytes(whole[:length])
                with pytest.raises(ValueError, match=r"a\.png: found data that cannot be decoded .*, expected an un"):
                    load(tmp_path / "a.png")
