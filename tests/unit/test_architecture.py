"""Imports follow the layers of docs/architecture.md. One module imports the mm packages, another one Snakemake."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tools.checkout import REPOSITORY

PACKAGE = REPOSITORY / "src/hafabench"
ROW = re.compile(r"^\| (\d+) \| ([^|]+) \|", re.MULTILINE)
MM_PACKAGES = {"mmengine", "mmcv", "mmdet", "mmseg"}


def layers() -> dict[str, int]:
    """The layer of every folder and root module, as the table of the page gives it."""
    text = (REPOSITORY / "docs/architecture.md").read_text()
    return {name: int(layer) for layer, names in ROW.findall(text) for name in re.findall(r"`(\w+)`", names)}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if module_name(path)}


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


@pytest.mark.parametrize("module", list(MODULES))
def test_imports_run_downwards(module):
    known, here = layers(), module.split(".")[0]
    assert here in known, f"docs/architecture.md gives {here} no layer"
    for name in imports_of(MODULES[module]):
        parts = name.split(".")
        if parts[0] == "hafabench" and len(parts) > 1 and parts[1] in known and parts[1] != here:
            assert known[parts[1]] < known[here], f"{module} imports {name}, which is not in a lower layer"


def test_only_errors_and_files_are_at_the_root():
    found = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py"}
    assert found == {"__init__.py", "__main__.py", "errors.py", "files.py"}


@pytest.mark.parametrize("module", list(MODULES))
def test_one_module_imports_the_mm_packages(module):
    if module != "engines.dense.mm":
        used = {name.split(".")[0] for name in imports_of(MODULES[module])} & MM_PACKAGES
        assert not used, f"{module} imports {used}; only engines/dense/mm.py may"


# What only runs/snakemake.py may spell out: programs, options, files, comments of Slurm jobs.
SNAKEMAKE = re.compile(
    r"snakemake|--(profile|configfiles?|forcerun|unlock)\b|\brule_(?=$|[a-z])|_wildcards_|logs/slurm"
)
# The list of packages whose versions every record keeps.
NAMES_THE_PACKAGE = {"results.provenance": {"snakemake"}}


def texts_of(path: Path) -> list[str]:
    """The string constants of a file, parts of f-strings included, without docstrings."""
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None
    }
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [node.value for node in constants if id(node) not in docstrings]


@pytest.mark.parametrize("module", list(MODULES))
def test_one_module_knows_snakemake(module):
    assert not any(name.split(".")[0] == "snakemake" for name in imports_of(MODULES[module])), module
    known = {text for text in texts_of(MODULES[module]) if SNAKEMAKE.search(text)}
    known -= NAMES_THE_PACKAGE.get(module, set())
    if module == "runs.snakemake":
        assert known
    else:
        assert not known, f"{module} spells out {known}; only runs/snakemake.py may"
