"""Refuse numbers outside their range."""

from __future__ import annotations

from typing import Any

from ..refusals import InputError


def check_ranges(values: dict[str, Any], ranges: dict[str, tuple[float, float]]) -> None:
    """Refuse a value below the first or above the second number of its range, and not-a-number.

    Raises:
        ValueError: naming the first such value and its range.
    """
    for name, (low, high) in ranges.items():
        if not low <= values[name] <= high:
            raise InputError(f"{name} must be between {low} and {high}, got {values[name]}.")
