"""The microscope does to a synthetic scene what its settings say."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.synthetic.images import synthetic_nuclei
from scripts.synthetic.optics import Optics


def test_attenuation_dims_deep_slices() -> None:
    optics = Optics(attenuation=0.8, unevenness=0.0, background=0.0)
    image, labels = synthetic_nuclei((32, 64, 64), 10.0, density=1.0, optics=optics)
    light = image.astype(float) - 100  # the camera's offset
    assert light[-8:][labels[-8:] > 0].mean() < 0.6 * light[:8][labels[:8] > 0].mean()


@pytest.mark.parametrize("setting", [{"haze": 1.5}, {"photons": 0.0}, {"blur": -1.0}])
def test_wrong_settings_are_refused(setting: dict[str, float]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=f"{name} must be between .* got {value}"):
        Optics(**setting)


def test_sectioning_interpolates_between_recorded_slices() -> None:
    image = synthetic_nuclei((9, 48, 48), optics=Optics(sectioning=2))[0].astype(float)
    np.testing.assert_allclose(image[1], (image[0] + image[2]) / 2, atol=1)


def test_slices_differ_in_brightness_by_their_jitter() -> None:
    steady, jittered = (
        synthetic_nuclei((40, 32, 32), optics=Optics(slice_jitter=jitter, photons=1e6, read_noise=0.0))[0] - 100.0
        for jitter in (0.0, 0.3)
    )
    ratio = np.log(jittered.mean((1, 2)) / steady.mean((1, 2)))
    assert ratio.std() == pytest.approx(0.3, abs=0.1)
