"""How docs/README.md parts a time series into files of one time point each, with their axes named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from bundle_configs import BUNDLE
from image_samples import load


@pytest.mark.parametrize("axes", ["TZCYX", "TCYX", "TYX", "CTZYX"])
def test_each_time_point_is_an_image_with_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axes: str) -> None:
    """Three or four planes are not taken for colours, nor for slices."""
    readme = (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n([^`]*series\.tif[^`]*)```", readme)
    sizes = {"T": 5, "Z": 3, "C": 4, "Y": 6, "X": 7}
    series = np.arange(np.prod([sizes[axis] for axis in axes]), dtype=np.uint16).reshape([sizes[axis] for axis in axes])
    (tmp_path / "N" / "images").mkdir(parents=True)
    tifffile.imwrite(tmp_path / "series.tif", series, photometric="minisblack")
    monkeypatch.chdir(tmp_path)

    exec(code.replace("TZCYX", axes))

    image = load(Path("N/images/t002.ome.tif"))
    frame, left = series.take(2, axes.index("T")), axes.replace("T", "")
    order = [left.index(axis) for axis in "CZYX" if axis in left]
    assert np.array_equal(image.numpy(), frame.transpose(order) if "C" in left else frame[None])
    assert image.meta["stated_voxel_size"].tolist() == [1.0, 0.2, 0.2][-2 - ("Z" in left) :]
