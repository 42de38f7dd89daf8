"""What MONAI's engines hold, by the types that it has there: ignite's say integers."""

from __future__ import annotations

from typing import Any, cast

from ignite.engine import Engine


def outputs_of(engine: Engine) -> list[dict[str, Any]]:
    """What a MONAI evaluator has made of each image of its batch, by key; it decollates by default."""
    return cast("list[dict[str, Any]]", engine.state.output)


def batch_of(engine: Engine) -> list[dict[str, Any]]:
    """The images of a MONAI evaluator's batch, by key."""
    return cast("list[dict[str, Any]]", engine.state.batch)
