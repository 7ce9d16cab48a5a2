"""The models need no optional dependency; a verb that lacks one names the extra that installs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hafabench.cli.extras import missing_extra

OPTIONAL = ["cv2", "jinja2", "matplotlib", "mmcv", "mmdet", "mmengine", "mmseg", "pandas", "pyarrow", "pycocotools"]
OPTIONAL += ["sklearn", "snakemake"]


def run_without(modules: list[str], code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process where the given modules cannot be imported."""
    hide = f"import sys; sys.modules.update(dict.fromkeys({modules!r}))"
    command = [sys.executable, "-c", f"{hide}\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_models_need_no_extra():
    code = "import timm, hafabench.models; timm.create_model('pvt_tiny_hafa', num_classes=10)"
    done = run_without(OPTIONAL, code)
    assert done.returncode == 0, done.stderr


def test_complexity_of_a_classifier_needs_no_extra(repository):
    code = "sys.argv = ['hafabench', 'complexity', 'pvt_tiny_hafa']\nfrom hafabench.cli import main\nmain()"
    done = run_without(OPTIONAL, f"import os; os.chdir({str(repository)!r})\n{code}")
    assert done.returncode == 0, done.stderr
    assert "pvt_tiny_hafa" in done.stdout


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("pandas", "report"),
        ("matplotlib", "report"),
        ("mmseg.models", "dense"),
        ("cv2", "data"),
        ("snakemake", "workflow"),
    ],
)
def test_every_optional_module_has_its_extra(module, extra):
    assert f"hafabench[{extra}]" in missing_extra(module)


def test_other_modules_have_no_extra():
    assert missing_extra("no_such_module") is None


def test_a_verb_without_its_extra_names_it(repository):
    code = "sys.argv = ['hafabench', 'report']\nfrom hafabench.cli import main\nmain()"
    done = run_without(["pandas"], f"import os; os.chdir({str(repository)!r})\n{code}")
    assert done.returncode == 1
    assert "hafabench[report]" in done.stderr
    assert "Traceback" not in done.stderr
