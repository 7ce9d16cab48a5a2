"""Fixtures that several kinds of tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import checkout

# One thread per process, set before torch is imported. Small tensors need no more, and xdist runs several processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def repository() -> Path:
    """The root of the checkout."""
    return checkout.REPOSITORY


@pytest.fixture
def write_experiment(tmp_path: Path) -> Callable[..., Path]:
    """Write a changed copy of an experiment file and return its path.

    The copy names the repository's recipes, tables and paper values by absolute path; ``change`` edits its content.
    """

    def write(change: Callable[[dict[str, Any]], None] | None = None, base: str = "digits") -> Path:
        # Not at the top: the threads above are set before numpy is imported.
        from tests.support.experiments import experiment_content

        content = experiment_content(base)
        if change is not None:
            change(content)
        path = tmp_path / f"{base}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write
