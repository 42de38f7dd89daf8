"""How much the terms that are not the paper's count, where nobody says it: what the annotation can teach decides."""

from __future__ import annotations

FOREGROUND = 1.0
KEPT_FOREGROUND = 0.1  # few objects are soon learned by heart, and everything else is background then
FIRST_FOREGROUND = 1.0
BORDER = 3.0


def foreground_weight(
    foreground: str, background_label: int | None, knows_foreground: bool, few_objects: bool
) -> float:
    """Weight of the foreground term: how strongly annotated objects teach what looks like an object.

    Strongly where two of three things hold: nothing is lost, as the weights to start from know no foreground; many
    objects are annotated; background is painted.

    Args:
        foreground: ``everywhere``, where there is nothing to learn about it, or ``estimated``.
        background_label: id of painted background.
        knows_foreground: whether the weights to start from do.
        few_objects: whether too few are annotated to teach it.
    """
    if foreground == "everywhere":
        return 0.0
    learns = (not knows_foreground) + (not few_objects) + (background_label is not None) >= 2
    return FOREGROUND if learns else KEPT_FOREGROUND


def first_foreground_weight(foreground: str, knows_foreground: bool) -> float:
    """Weight of what keeps the foreground that the weights to start from know; as `foreground_weight`."""
    return FIRST_FOREGROUND if foreground == "estimated" and knows_foreground else 0.0


def border_weight(foreground: str) -> float:
    """Weight of the border term: where no background parts objects, only their rims tell them apart."""
    return BORDER if foreground == "everywhere" else 0.0
