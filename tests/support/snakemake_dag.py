"""The DAG that Snakemake builds for an experiment, as data. Snakemake runs in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.checkout import REPOSITORY


def snakemake_dag(directory: Path, experiment: Path, *targets: str, **environment: str) -> list[dict[str, Any]]:
    """Every job that Snakemake plans for ``targets`` in a working folder; nothing is run.

    Args:
        directory: The working folder.
        experiment: The experiment file.
        targets: Rules or files.
        environment: Variables of the environment.

    Returns:
        The jobs, in any order. Each has the ids of the jobs that it waits for, and what its rule declares.
    """
    command = [sys.executable, "-m", __name__, str(directory), str(experiment), *targets]
    path = os.pathsep.join([str(REPOSITORY), *sys.path])
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE")}
    done = subprocess.run(
        command, env=kept | {"PYTHONPATH": path} | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _print_dag(directory: str, experiment: str, *targets: str) -> None:
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=2),
            config_settings=ConfigSettings(configfiles=[Path(experiment)]),
            snakefile=REPOSITORY / "Snakefile",
            workdir=Path(directory),
        )
        # `DAGApi.printd3dag` does the same and prints rules and wildcards only.
        planned = workflow.dag(DAGSettings(targets=set(targets))).workflow_api._workflow
        planned._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True)
        planned._build_dag()
        jobs = [_job(planned, job) for job in planned.dag.jobs]
    print("\n" + json.dumps(jobs))


def _job(workflow: Any, job: Any) -> dict[str, Any]:
    return {
        "rule": job.rule.name,
        "wildcards": dict(job.wildcards_dict),
        "needs": [[need.rule.name, *need.wildcards_dict.values()] for need in workflow.dag.dependencies[job]],
        "input": list(map(str, job.input)),
        "output": list(map(str, job.output)),
        "log": list(map(str, job.log)),
        "params": {name: str(value) for name, value in job.params.items()},
        "resources": {name: value for name, value in job.resources.items() if not name.startswith("_")},
        "threads": job.threads,
        "priority": job.rule.priority,
        "is_local": job.rule.name in workflow._localrules,
        "shell": job.shellcmd,
    }


if __name__ == "__main__":
    _print_dag(*sys.argv[1:])
