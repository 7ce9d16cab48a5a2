"""Fixtures of tests that train small models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tools.tiny_runs.classification import make_images


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classification data set that no test may change."""
    root = tmp_path_factory.mktemp("images")
    make_images(root)
    return root


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread, because small layers are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
