"""How an input is refused: an error of one sentence that says what was found and what was expected."""

from __future__ import annotations

from monai.config import PathLike


class InputError(ValueError):
    """What a user gave makes no sense; `str` of it is one sentence that says so. Any other error is a defect."""


def refusal(path: PathLike, found: str, expected: str) -> InputError:
    """The error of a file: which one, what was found in it, what was expected."""
    one_line = " ".join(found.split())  # errors of other libraries may run over several lines
    return InputError(f"{path}: found {one_line}, expected {expected}.")
