"""The share of the gate's tests that pass. The gate must catch planted regressions and accept clean reruns."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from benchmarks.rows import Row
from tools.checkout import REPOSITORY

PROOFS = (
    "tests/unit/regression/test_regression.py",
    "tests/workflow/test_regression_target.py",
    "tests/contract/test_gate.py",
)


def gate(quick: bool) -> Iterator[Row]:
    """Run the tests of the gate and count those that pass."""
    with TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        # The tests that train or time models are marked as slow.
        marks = "not slow" if quick else "slow or not slow"
        command = [sys.executable, "-m", "pytest", "-q", "-m", marks, f"--junitxml={report}", *PROOFS]
        subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=False)
        suite = ElementTree.parse(report).getroot().find("testsuite")
    counts = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    passed = counts["tests"] - sum(counts[name] for name in ("failures", "errors", "skipped"))
    what = "the gate: planted regressions caught, clean reruns accepted"
    note = f"{passed} of {counts['tests']} tests"
    yield Row("gate", what, 100 * passed / counts["tests"], at_least=100, unit="%", note=note)
