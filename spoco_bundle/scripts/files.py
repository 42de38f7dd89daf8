"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4


def replace_atomically(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside the target, then rename it; on failure nothing remains.

    The temporary name keeps the target's extension, by which many writers choose their format.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid4().hex}{''.join(target.suffixes)}")
    try:
        write(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(target: Path, content: Any) -> None:
    """Write JSON so that a reader finds the old file or the new one, but never half of one; NaN is refused."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    replace_atomically(target, lambda path: path.write_text(text, encoding="utf-8"))
