"""What the workflow generates is ignored by git, so that running it never changes tracked files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hafabench.config.experiment import load_experiment
from hafabench.runs.jobs import JobList
from hafabench.runs.paths import picture_index
from tools.checkout import REPOSITORY

pytestmark = pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="not a git checkout")


def git(*arguments: str, text: str | None = None) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, input=text, capture_output=True, text=True)
    return done.stdout.splitlines()


def test_only_the_baseline_is_tracked_among_results_reports_and_data():
    tracked = git("ls-files", "results", "reports", "data", "logs")
    assert [path for path in tracked if not path.startswith("results/baseline/")] == ["results/README.md"]


@pytest.mark.parametrize("name", ["digits", "digits_study", "regression_digits", "paper"])
def test_outputs_logs_and_data_of_every_job_are_ignored(name, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    experiment = load_experiment(Path(f"configs/{name}.yaml"))
    jobs = JobList(experiment)
    generated = {str(path) for job in [*jobs.values(), *jobs.optional.values()] for path in (*job.outputs, *job.logs)}
    generated |= {str(path) for run in jobs.runs.values() for path in (run.history, run.predictions, run.work / "x")}
    generated |= {str(picture_index(experiment).parent / "tiles/clusters/0_0.webp"), f"reports/{name}/preview.png"}
    generated |= {str(experiment.results / "accounting.json"), str(experiment.reports / "costs.md")}
    generated |= {
        str(Path(dataset.root) / "image.png")
        for dataset in experiment.config.datasets.values()
        if dataset.generator is not None
    }
    # Without the index, git also answers for files that are tracked.
    ignored = git("check-ignore", "--no-index", "--stdin", text="\n".join(generated))
    assert generated - set(ignored) == set()
