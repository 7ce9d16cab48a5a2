"""docs/architecture.md is the map: every module stands on it, and imports only run downwards."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "src/hafabench"
ROW = re.compile(r"^\| (\d+) \| (\w+) \| ([^|]+) \|", re.MULTILINE)
MM_PACKAGES = {"mmengine", "mmcv", "mmdet", "mmseg"}


def rooms() -> dict[str, tuple[int, str]]:
    """Module prefix -> (floor, room), as the page's table says."""
    text = (REPOSITORY / "docs/architecture.md").read_text()
    return {
        module: (int(floor), room)
        for floor, room, modules in ROW.findall(text)
        for module in re.findall(r"`([\w.]+)`", modules)
    }


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if module_name(path)}


def room_of(module: str) -> tuple[int, str] | None:
    known = rooms()
    while module:
        if module in known:
            return known[module]
        module = module.rpartition(".")[0]
    return None


def imports_of(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_the_page_names_only_what_exists():
    for module in rooms():
        assert (PACKAGE / module.replace(".", "/")).is_dir() or module in MODULES, module


@pytest.mark.parametrize("module", [m for m in MODULES if m != "results"])
def test_module_is_on_the_page_and_imports_downwards(module):
    here = room_of(module)
    assert here is not None, f"{module} stands in no room of docs/architecture.md"
    for name in imports_of(MODULES[module]):
        target = name.removeprefix("hafabench.")
        if not name.startswith("hafabench.") or room_of(target) is None:
            continue
        floor, room = room_of(target)
        assert floor < here[0] or room == here[1], f"{module} ({here[1]}) imports {name} ({room}) upwards"


@pytest.mark.parametrize("module", list(MODULES))
def test_mm_packages_stay_behind_one_door(module):
    if module != "engines.mm":
        used = {name.split(".")[0] for name in imports_of(MODULES[module])} & MM_PACKAGES
        assert not used, f"{module} imports {used}; only engines/mm.py may"


def test_snakemake_is_unknown_to_the_package():
    for module, path in MODULES.items():
        assert not any(name.split(".")[0] == "snakemake" for name in imports_of(path)), module
