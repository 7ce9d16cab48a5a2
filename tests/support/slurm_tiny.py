"""Workflows of shell jobs that take seconds, in folders of their own, run by the project's Slurm profile.

Many of them can run side by side, so that tests share an outage of Slurm. Each job notes that it runs, so that a test
sees a job that ran twice, and each driver notes its calls of Slurm.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.support.slurm_jobs import restore
from tools.checkout import REPOSITORY
from tools.slurm_cluster.cluster import Job, SlurmCluster
from tools.slurm_cluster.configuration import ACCOUNT
from tools.slurm_cluster.driver import BIN, QUICK, Driver
from tools.waiting import wait_until

RULE = """
rule {name}:
    output: "{name}.done"
    resources:
{resources}    shell:
        r\"\"\"
        echo $SLURM_JOB_ID >> {name}.ran
        {script}
        touch {{output}}
        \"\"\"
"""
RESOURCES = {"slurm_account": ACCOUNT, "slurm_partition": "cpu", "mem_mb": 400, "runtime": 5}
# With the intervals of the profile, a test would mostly wait.
INTERVALS = {
    "grace-seconds": 6,
    "resubmission-seconds": 1,
    "max-resubmission-seconds": 4,
}
# Scripts of jobs: one that waits for an event of its workflow, one that ends only with its Slurm job.
UNTIL = "until [ -e {} ]; do sleep 0.2; done"
ENDLESS = "sleep 900"
# The driver calls these programs of Slurm through a script that notes the call and its exit code.
NOTED = ("sbatch", "squeue", "sacct", "scancel")
NOTE = """#!/bin/bash
run() {{ {real} "$@"; }}
called() {{
{code}
}}
called "$@"
code=$?
echo "$code {name} ${{*//$'\\n'/ }}" >> {folder}/calls
exit $code
"""


@dataclass(frozen=True)
class Call:
    """A call of a program of Slurm by a driver."""

    program: str
    code: int
    arguments: str


class TinyWorkflow:
    """A folder with a Snakefile of independent jobs and the project's profile, and the driver that runs it.

    Args:
        folder: Path of the folder, which is created.
        jobs: Shell script of each job, by the name of its rule. A job whose script succeeds makes ``<name>.done``.
        resources: Resources of all jobs, beside or instead of `RESOURCES`.
        grows: Whether a job requests twice the memory and time after an attempt that ran out of it.
    """

    driver: Driver

    def __init__(
        self,
        folder: Path,
        jobs: Mapping[str, str],
        resources: Mapping[str, object] | None = None,
        *,
        grows: bool = False,
    ):
        self.folder = folder
        self.names = list(jobs)
        (folder / "configs").mkdir(parents=True)
        # The profile names the experiment of the paper, which no tiny job reads.
        (folder / "configs/paper.yaml").write_text("{}\n")
        (folder / "slurm").symlink_to(REPOSITORY / "slurm")
        declared = "".join(f"        {key}={value!r},\n" for key, value in {**RESOURCES, **(resources or {})}.items())
        if grows:
            declared = declared.replace("mem_mb=", "mem_mb=lambda wildcards: 2 ** GROWTH.memory * ")
            declared = declared.replace("runtime=", "runtime=lambda wildcards: 2 ** GROWTH.time * ")
        rules = [
            RULE.format(name=name, script=script, resources=declared.replace("GROWTH", f"growth_of({name!r})"))
            for name, script in jobs.items()
        ]
        header = "from hafabench.runs.growth import growth_of\n" if grows else ""
        (folder / "Snakefile").write_text(header + "".join(rules))

    def start(self, cluster: SlurmCluster, *arguments: str, programs: Mapping[str, str] | None = None) -> Driver:
        """Start ``snakemake --profile slurm`` on all jobs.

        Args:
            cluster: A running cluster.
            arguments: Further arguments of snakemake.
            programs: Shell code by the name of a program of Slurm, instead of which it is called by the driver. In
                this code, ``run "$@"`` calls the program.
        """
        path = os.pathsep.join([str(BIN), cluster.env["PATH"]])
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        for name in NOTED:
            code = (programs or {}).get(name, 'run "$@"')
            script = folder / name
            script.write_text(
                NOTE.format(real=shutil.which(name, path=path), code=code, name=name, folder=self.folder)
            )
            script.chmod(0o755)
        targets = [f"{name}.done" for name in self.names]
        intervals = [f"--hafabench-slurm-{name}={seconds}" for name, seconds in INTERVALS.items()]
        command = [*targets, "--profile", "slurm", *QUICK, *intervals, *arguments]
        env = {"PATH": os.pathsep.join([str(folder), path])}
        self.driver = Driver(cluster, self.folder, *command, env=env)
        return self.driver

    def calls(self, *programs: str, failed: bool = False) -> list[Call]:
        """Return the ended calls of these programs by drivers of this folder, in order, or only those that failed."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [Call(name, int(code), arguments) for code, name, arguments in (line.split(" ", 2) for line in lines)]
        return [call for call in found if call.program in programs and (call.code or not failed)]

    def let(self, event: str) -> None:
        """Create a file for which jobs of this folder wait."""
        (self.folder / event).touch()

    def jobs(self, cluster: SlurmCluster, name: str | None = None, *, live: bool = True) -> list[Job]:
        """Return the Slurm jobs of this folder, or of one of its rules."""
        here = [job for job in cluster.jobs(live=live) if job.folder == str(self.folder)]
        return [job for job in here if name is None or job.comment == f"rule_{name}"]

    def wait_until_running(self, *names: str, times: int = 1) -> None:
        """Wait until these jobs, or all, have begun to run so many times."""
        wait_until(
            lambda: all(len(self.ran(name)) >= times for name in names or self.names),
            lambda: f"jobs of {self.folder} run; the driver's output:\n{self.driver.output[-4000:]}",
            timeout=120,
            give_up=lambda: None if self.driver.process.poll() is None else "the driver ended",
        )

    def ran(self, name: str) -> list[str]:
        """Return the Slurm ids with which a job ran, in order. A requeue adds the same id again."""
        path = self.folder / f"{name}.ran"
        return path.read_text().split() if path.exists() else []

    def done(self) -> list[str]:
        """Return the jobs that succeeded."""
        return [name for name in self.names if (self.folder / f"{name}.done").exists()]

    def failed(self) -> set[str]:
        """Return the jobs of which the driver reports an error."""
        return set(re.findall(r"Error in rule (\w+)", self.driver.output))


class SideBySide(ExitStack):
    """Tiny workflows that run at the same time. On exit, their drivers are killed and the cluster is restored."""

    def __init__(self, cluster: SlurmCluster, folder: Path):
        super().__init__()
        self.cluster, self.folder = cluster, folder
        self.workflows: dict[str, TinyWorkflow] = {}
        self.callback(restore, cluster)

    def __getitem__(self, name: str) -> TinyWorkflow:
        return self.workflows[name]

    def start(
        self,
        name: str,
        jobs: Mapping[str, str],
        *arguments: str,
        resources: Mapping[str, object] | None = None,
        programs: Mapping[str, str] | None = None,
        grows: bool = False,
    ) -> TinyWorkflow:
        """Start the driver of a new workflow; see `TinyWorkflow` and its method `start`."""
        workflow = TinyWorkflow(self.folder / name.replace(" ", "_"), jobs, resources, grows=grows)
        self.enter_context(workflow.start(self.cluster, *arguments, programs=programs))
        self.workflows[name] = workflow
        return workflow

    def wait_until_running(self) -> None:
        """Wait until all jobs of all workflows have begun to run."""
        for workflow in self.workflows.values():
            workflow.wait_until_running()
