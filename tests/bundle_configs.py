"""The bundle's configs, and what is in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

REPOSITORY = Path(__file__).parent.parent
BUNDLE = REPOSITORY / "spoco_bundle"
CONFIGS = BUNDLE / "configs"
NAMES = sorted(path.name for path in CONFIGS.glob("*.json"))


def read(name: str) -> dict[str, Any]:
    return json.loads((CONFIGS / name).read_text(encoding="utf-8"))


def parser(*names: str, **ids: Any) -> ConfigParser:
    result = ConfigParser()
    result.read_config([str(CONFIGS / name) for name in names])
    result.update({"bundle_root": str(BUNDLE), **ids})
    return result


def values(config: Any) -> Iterator[Any]:
    """Every value of a config, at any depth."""
    if isinstance(config, dict | list):
        for value in config.values() if isinstance(config, dict) else config:
            yield from values(value)
    else:
        yield config


def components(config: Any) -> Iterator[dict[str, Any]]:
    """Every part of a config that names a class or function."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield config
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from components(value)
