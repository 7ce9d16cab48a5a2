"""Workflows of shell jobs that take seconds, in folders of their own, run by the project's Slurm profile.

Many of them can run side by side, so that tests share an outage of Slurm. Each job notes that it runs, so that a test
sees a job that ran twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tools.checkout import REPOSITORY
from tools.slurm_cluster.cluster import Job, SlurmCluster
from tools.slurm_cluster.configuration import ACCOUNT
from tools.slurm_cluster.driver import QUICK, Driver
from tools.waiting import wait_until

RULE = """
rule {name}:
    output: "{name}.done"
    resources:
{resources}
    shell:
        r\"\"\"
        echo $SLURM_JOB_ID >> {name}.ran
        {script}
        touch {{output}}
        \"\"\"
"""
RESOURCES = {"slurm_account": ACCOUNT, "slurm_partition": "cpu", "mem_mb": 400, "runtime": 5}


class TinyWorkflow:
    """A folder with a Snakefile of independent jobs and the project's profile.

    Args:
        folder: Path of the folder, which is created.
        jobs: Shell script of each job, by the name of its rule. A job whose script succeeds makes ``<name>.done``.
        resources: Resources of all jobs, beside or instead of `RESOURCES`. Values of type str are Python expressions
            if they begin with ``lambda``.
        preamble: Python code at the beginning of the Snakefile.
    """

    def __init__(
        self,
        folder: Path,
        jobs: Mapping[str, str],
        resources: Mapping[str, object] | None = None,
        preamble: str = "",
    ):
        self.folder = folder
        self.names = list(jobs)
        (folder / "configs").mkdir(parents=True)
        # The profile names the experiment of the paper, which no tiny job reads.
        (folder / "configs/paper.yaml").write_text("{}\n")
        (folder / "slurm").symlink_to(REPOSITORY / "slurm")
        lines = "\n".join(
            f"        {key}={value if str(value).startswith('lambda') else repr(value)},"
            for key, value in {**RESOURCES, **(resources or {})}.items()
        )
        rules = [RULE.format(name=name, script=script, resources=lines) for name, script in jobs.items()]
        (folder / "Snakefile").write_text("\n".join([preamble, *rules]))

    def start(self, cluster: SlurmCluster, *arguments: str, env: dict[str, str] | None = None) -> Driver:
        """Start ``snakemake --profile slurm`` on all jobs."""
        targets = [f"{name}.done" for name in self.names]
        return Driver(cluster, self.folder, *targets, "--profile", "slurm", *QUICK, *arguments, env=env)

    def jobs(self, cluster: SlurmCluster, name: str | None = None) -> list[Job]:
        """Return the live Slurm jobs of this folder, or of one of its rules."""
        here = [job for job in cluster.jobs() if job.folder == str(self.folder)]
        return [job for job in here if name is None or job.comment == f"rule_{name}"]

    def wait_until_running(self, cluster: SlurmCluster, *names: str) -> None:
        """Wait until these jobs, or all, run their script."""
        wait_until(
            lambda: all(self.ran(name) for name in names or self.names),
            lambda: f"jobs of {self.folder} run: {self.jobs(cluster)}\n{(self.folder / 'driver.log').read_text()}",
            timeout=120,
        )

    def ran(self, name: str) -> list[str]:
        """Return the Slurm ids with which a job ran, in order. A requeue adds the same id again."""
        path = self.folder / f"{name}.ran"
        return path.read_text().split() if path.exists() else []

    def done(self) -> list[str]:
        """Return the jobs that succeeded."""
        return [name for name in self.names if (self.folder / f"{name}.done").exists()]
