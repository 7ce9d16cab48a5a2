"""Update the numbers of the paper's experiment in docs/cluster.md: ``python -m tools.cluster_docs``."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from contextlib import chdir
from pathlib import Path

from hafabench.config.experiment import load_experiment
from hafabench.formatting.markdown import markdown_table
from hafabench.plan.plan import Plan, make_plan
from tools.checkout import REPOSITORY, snakemake

PAGE = REPOSITORY / "docs/cluster.md"
PAPER = REPOSITORY / "configs/paper.yaml"
GPUS = 64
STALE = "docs/cluster.md is out of date; `python -m tools.cluster_docs` updates it"
_BLOCK = r"(<!-- {name}: [^\n]*-->\n).*?(<!-- end -->)"
_LISTING = re.compile(r"^job +count\n[- ]+\n(?:[a-z_]+ +\d+\n)+", re.MULTILINE)


def block(name: str) -> str:
    """Return a generated part of the page."""
    found = re.search(_BLOCK.format(name=name), PAGE.read_text(), re.DOTALL)
    assert found, f"{PAGE}: no part '{name}'"
    return found.group(0).removeprefix(found.group(1)).removesuffix(found.group(2))


def plan_text() -> str:
    """Describe the sizes and hours of the paper's experiment, from scratch, on the default site."""
    with tempfile.TemporaryDirectory() as empty, chdir(empty):
        return _plan_text(make_plan(load_experiment(PAPER), gpus=GPUS))


def _plan_text(plan: Plan) -> str:
    trainings = sum(job.job.rule == "train_run" for job in plan.jobs.values())
    path = plan.schedule
    on_path = [plan.jobs[name].job for name in path.critical_path]
    chain = [job.subject for job in on_path if job.rule == "train_run"]
    rows = [(t.id, str(t.runs), f"{t.gpu_hours:,.0f}", f"{t.added:,.0f}") for t in plan.tables]
    return "\n".join(
        [
            f"With the tracked files, the paper's matrix has {trainings} trainings in {len(plan.jobs)} jobs and "
            f"**about {round(plan.gpu_hours, -2):,.0f} GPU-hours** of an",
            f"{plan.gpu}. On {GPUS} GPUs it takes {path.hours:.0f} hours. Even with more GPUs it takes at least "
            f"{path.critical_hours:.0f} hours,",
            f"the duration of {' and then '.join(chain)}.",
            "",
            markdown_table(("table", "runs", "GPU-hours", "added"), rows, "lrrr", is_markdown=True),
            "",
        ]
    )


def listing(output: str) -> str:
    """Return the job statistics in the output of a dry run."""
    found = _LISTING.search(output)
    assert found, output
    return f"```\n{found.group(0)}```\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as empty:
        done = snakemake(Path(empty), PAPER, "--dry-run", "all")
    if done.returncode:
        sys.exit(done.stdout)
    text = PAGE.read_text()
    for name, content in (("plan", plan_text()), ("listing", listing(done.stdout))):
        text = re.sub(
            _BLOCK.format(name=name), lambda m, content=content: m[1] + content + m[2], text, flags=re.DOTALL
        )
    PAGE.write_text(text)
    subprocess.run(["git", "diff", "--stat", "--", str(PAGE)], cwd=REPOSITORY, check=True)


if __name__ == "__main__":
    main()
