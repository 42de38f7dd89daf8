"""Styles of synthetic objects are in their range."""

from __future__ import annotations

import pytest

from scripts.synthetic.styles import Form, NucleusStyle, TissueStyle


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (Form, {"elongation": 0.5}),
        (NucleusStyle, {"clumping": 2.0}),
        (NucleusStyle, {"irregularity": float("nan")}),
        (TissueStyle, {"gaps": 1.0}),
        (TissueStyle, {"organelles": -2.0}),
    ],
)
def test_wrong_settings_are_refused(make: type, setting: dict[str, float]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=f"{name} must be between .* got {value}"):
        make(**setting)
