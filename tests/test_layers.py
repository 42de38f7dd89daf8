"""Data flows one way: a module imports from its own folder and from those before it, never from later ones."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "spoco_bundle" / "scripts"
LAYERS = (
    "geometry",
    "files",
    "transforms",
    "network",
    "losses",
    "clustering",
    "metrics",
    "annotating",
    "training",
    "synthetic",
    "run",
)
MODULES = sorted(SCRIPTS.glob("*/*.py"))


def imports_of(module: Path) -> list[ast.ImportFrom]:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]


def test_each_folder_is_a_layer() -> None:
    assert {module.parent.name for module in MODULES} == set(LAYERS)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_module_imports_from_its_own_layer_and_earlier_ones(module: Path) -> None:
    allowed = {"arrays", "refusals", "notices", "engines", "tensors", *LAYERS[: LAYERS.index(module.parent.name)]}
    for node in imports_of(module):
        assert node.level or not node.module.startswith("scripts")
        assert node.level < 2 or node.module.split(".")[0] in allowed
