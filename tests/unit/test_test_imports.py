"""Helpers of tests are in `tests/support`; tests, benchmarks and tools import nothing from test files."""

from __future__ import annotations

import ast

import pytest

from tools.checkout import REPOSITORY

FILES = [path for folder in ("tests", "benchmarks", "tools") for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def imported_modules(source: str) -> set[str]:
    """Every module that a source file may import: for ``from a import b`` both ``a`` and ``a.b``."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_only_tests_import_tests_and_only_from_support(path):
    from_tests = {name for name in imported_modules(path.read_text()) if name.split(".")[0] in ("tests", "conftest")}
    if path.relative_to(REPOSITORY).parts[0] == "tests":
        from_tests = {name for name in from_tests if name.split(".")[:2] not in (["tests"], ["tests", "support"])}
    assert not from_tests


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import tests.unit.test_plan as plan", {"tests.unit.test_plan"}),
        ("from tests import conftest", {"tests", "tests.conftest"}),
        ("def f():\n    from tests.unit.test_plan import x", {"tests.unit.test_plan", "tests.unit.test_plan.x"}),
    ],
)
def test_imports_are_found_in_every_form(source, names):
    assert imported_modules(source) == names
