"""CONTRIBUTING.md explains how to add a backbone; this test follows its steps with the code that it shows."""

from __future__ import annotations

import importlib
import re
import sys
import textwrap

import pytest
import timm
import torch

import hafabench.models
from hafabench.config import catalog
from hafabench.measure.complexity import count_model
from hafabench.models import DenseBackbone, create, family_of
from tools.checkout import REPOSITORY

BLOCK = re.compile(r"^ *```python\n *# (\S+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def code_blocks() -> list[tuple[str, str]]:
    """File and code of every block, in the order of the text."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    return [(match[1], textwrap.dedent(match[2])) for match in BLOCK.finditer(text)]


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Names of the models that the text adds, after all of its steps."""
    monkeypatch.setattr(hafabench.models, "__path__", [*hafabench.models.__path__, str(tmp_path)])
    names = []
    for path, code in code_blocks():
        if path == "src/hafabench/config/catalog.py":
            spec = eval(code, vars(catalog))
            monkeypatch.setitem(catalog.CATALOG, spec.name, spec)
            names.append(spec.name)
        else:
            folder, _, file = path.rpartition("/")
            assert folder == "src/hafabench/models"
            (tmp_path / file).write_text(code)
    importlib.invalidate_caches()
    yield names
    for name in {file.stem for file in tmp_path.glob("*.py")}:
        sys.modules.pop(f"hafabench.models.{name}", None)


def test_steps_of_the_text(added):
    assert added == ["convnext_atto", "toynet_tiny"]
    for name in added:
        spec = catalog.CATALOG[name]
        classifier = create(name, num_classes=5).eval()
        with torch.no_grad():
            assert classifier(torch.randn(1, 3, 64, 64)).shape == (1, 5)
        for task in ("classification", "segmentation"):
            counted = count_model(spec, task, (64, 64), num_classes=5)
            assert counted.params > 0
            assert counted.gmacs > 0
        backbone = create(name, dense=True)
        assert isinstance(backbone, DenseBackbone)
        maps = backbone.forward_maps(torch.randn(1, 3, 64, 96))
        assert [tuple(features.shape) for features in maps] == [
            (1, channels, 64 // stride, 96 // stride)
            for channels, stride in zip(backbone.channels, (4, 8, 16, 32), strict=True)
        ]
        sum(features.sum() for features in maps).backward()
        assert [key for key, parameter in backbone.named_parameters() if parameter.grad is None] == []


def test_own_model_is_a_model_of_timm(added):
    assert family_of(catalog.CATALOG["toynet_tiny"]).own is not None
    model = timm.create_model("toynet_tiny", features_only=True)
    assert [tuple(feature.shape[1:]) for feature in model(torch.randn(1, 3, 64, 64))] == [
        (16, 16, 16),
        (32, 8, 8),
        (64, 4, 4),
        (128, 2, 2),
    ]
