"""CONTRIBUTING.md explains how to add a backbone; this test follows its steps with the code that it shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tools.checkout import REPOSITORY

BLOCK = re.compile(r"^ *```python\n *# (\S+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
CATALOG = "src/hafabench/config/catalog.py"
ADDED = ("convnext_atto", "toynet_tiny")
# Tests of the models of this project, and of all models.
OWN_CONTRACTS = ("test_models.py", "test_timm_contract.py")
CONTRACTS = ("test_dense_backbones.py", "test_counted.py")
COUNTED = f"""
from pathlib import Path

import pytest

from hafabench.config.catalog import CATALOG
from hafabench.config.experiment import load_experiment
from hafabench.measure.complexity import count_model
from hafabench.runs.estimates import Throughput


@pytest.mark.parametrize("name", {ADDED})
def test_counts_and_estimates(name):
    for task in ("classification", "segmentation"):
        size = count_model(CATALOG[name], task, (64, 64), num_classes=5)
        assert size.params > 0
        assert size.gmacs > 0
    throughput = Throughput(load_experiment(Path("configs/paper.yaml")))
    assert throughput.size("classification", CATALOG[name]).source.startswith("not counted")
"""


def code_blocks() -> list[tuple[str, str]]:
    """File and code of every block, in the order of the text."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    return [(match[1], textwrap.dedent(match[2])) for match in BLOCK.finditer(text)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the project after all steps of the text."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("src", "tests", "tools", "configs"):
        shutil.copytree(REPOSITORY / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", root)
    for file, code in code_blocks():
        path = root / file
        if file == CATALOG:
            text = path.read_text()
            path.write_text(text.replace("_SPECS = [\n", f"_SPECS = [\n    {code.strip()},\n"))
        else:
            assert not path.exists()
            path.write_text(code)
    return root


@pytest.mark.slow
def test_added_models_pass_the_contract_tests(checkout):
    assert [file for file, _ in code_blocks()].count(CATALOG) == len(ADDED)
    (checkout / "tests/contract/test_counted.py").write_text(COUNTED)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "-k", " or ".join(ADDED)]
        + [f"tests/contract/{name}" for name in (*OWN_CONTRACTS, *CONTRACTS)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout / "src"), "PYTEST_ADDOPTS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    for file in (*OWN_CONTRACTS, *CONTRACTS):
        for model in ["toynet_tiny"] if file in OWN_CONTRACTS else ADDED:
            assert re.search(rf"^PASSED tests/contract/{file}::\S+\[{model}\b", done.stdout, re.MULTILINE), (
                file,
                model,
            )
