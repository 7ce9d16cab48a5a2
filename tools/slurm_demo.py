"""Run the embedded experiment on a real Slurm: ``python -m tools.slurm_demo`` or ``make demo-slurm``.

``snakemake all --profile slurm`` runs in a new clone of this checkout's last commit, with its own site file. The
program checks the six tables and the costs, compares every number with those of ``make demo`` on this machine if they
exist, and prints how long each phase took.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import yaml

from hafabench.cluster.costs import AccountingRecord, JobCost, read_accounting
from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.reporting.frame import read_frame
from hafabench.runs.jobs import JobList
from tools.checkout import REPOSITORY
from tools.slurm_cluster.cluster import SlurmCluster
from tools.slurm_cluster.configuration import ACCOUNT
from tools.slurm_cluster.driver import QUICK, Driver
from tools.slurm_cluster.machine import ClusterUnavailable

EXPERIMENT = "configs/digits.yaml"
SITE = {"account": ACCOUNT, "cpu": {"partition": "cpu"}}
TIMEOUT_S = 3 * 3600
_DONE = re.compile(r"(\d+) of (\d+) steps .* done")
# Columns that identify one measurement in a frame.
_KEYS = ["verb", "id", "task", "model", "seed", "name", "fingerprint", "threads", "host"]


class Unexpected(Exception):
    """The experiment ran and its results are not as expected; the message describes the difference."""


class Phases:
    """Durations of the phases by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started

    def __str__(self) -> str:
        return "\n".join(f"{name:24} {seconds:7.1f} s" for name, seconds in self.seconds.items())


def clone(folder: Path) -> Path:
    """Clone this checkout's last commit into ``folder``."""
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(folder)], check=True)
    return folder


def run_experiment(cluster: SlurmCluster, checkout: Path, experiment: str, timeout: float = TIMEOUT_S) -> int:
    """Run ``snakemake all --profile slurm`` with the package of a checkout, and print the progress.

    Args:
        cluster: Running cluster.
        checkout: Clone in which the experiment runs.
        experiment: Path of the experiment file in the clone.
        timeout: Seconds after which the run counts as failed.

    Returns:
        The number of submitted jobs.

    Raises:
        Unexpected: If it fails.
    """
    site = checkout / "site.yaml"
    site.write_text(yaml.safe_dump(SITE))
    path = os.pathsep.join([str(checkout / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {"HAFABENCH_SITE": str(site), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    # Targets come first, because an option with several values would include them.
    arguments = ["all", "--profile", "slurm", "--configfile", experiment, *QUICK]
    started, seen = time.monotonic(), 0
    with Driver(cluster, checkout, *arguments, env=env) as driver:
        while driver.process.poll() is None and time.monotonic() - started < timeout:
            time.sleep(1)
            steps = _DONE.findall(driver.output)
            if len(steps) > seen:
                seen = len(steps)
                minutes, seconds = divmod(round(time.monotonic() - started), 60)
                print(f"{minutes:3d}:{seconds:02d}  {steps[-1][0]} of {steps[-1][1]} jobs done", flush=True)
        if driver.process.poll() is None:
            raise Unexpected(f"not finished after {timeout:g} s; see {driver.log}")
        if driver.process.returncode:
            raise Unexpected(f"snakemake failed:\n{driver.output[-6000:]}")
        return len(driver.submitted())


def check_update_makes_nothing_stale(cluster: SlurmCluster, checkout: Path, experiment: str) -> None:
    """Check that changes of shell commands and of the site file, as by `git pull`, make no result stale.

    Raises:
        Unexpected: If any job would run again.
    """
    rule = checkout / "workflow/rules/train.smk"
    rule.write_text(
        rule.read_text().replace("{params.launcher}{params.command}", "{params.launcher} {params.command}")
    )
    site = checkout / "site.yaml"
    site.write_text(yaml.safe_dump({**SITE, "stop_margin_minutes": 1}))
    arguments = ("all", "--profile", "slurm", "--configfile", experiment, "--dry-run")
    env = {"HAFABENCH_SITE": str(site), "PYTHONPATH": str(checkout / "src")}
    with Driver(cluster, checkout, *arguments, env=env) as driver:
        code = driver.finished(120)
        if code or "Nothing to be done" not in driver.output:
            raise Unexpected(f"a changed shell command and site file make jobs run again:\n{driver.output[-6000:]}")


def check_results(checkout: Path, experiment: str) -> AccountingRecord:
    """Check the six tables in their three formats, and the costs of every job in a table and in the report.

    Raises:
        Unexpected: If one is missing, or if Slurm's accounting lacks a job or shows one that did not complete.
    """
    loaded = load_experiment(checkout / experiment)
    name = loaded.name
    tables = checkout / "reports" / name / "tables"
    wanted = [tables / f"table{number}.{suffix}" for number in range(1, 7) for suffix in ("md", "tex", "csv")]
    wanted.append(checkout / "reports" / name / "costs.md")
    missing = [str(path) for path in wanted if not path.is_file() or not path.stat().st_size]
    if missing:
        raise Unexpected(f"missing or empty: {', '.join(missing)}")
    if 'id="costs"' not in (checkout / "reports" / name / "report.html").read_text():
        raise Unexpected("the report has no section of costs")
    record = read_accounting(checkout / "results" / name / "accounting.json")
    found = {job.id for job in record.jobs}
    with_job = {job.id for job in JobList(loaded).values() if not job.is_local}
    if found != with_job:
        raise Unexpected(
            f"jobs that differ between the experiment and Slurm's accounting: {', '.join(sorted(found ^ with_job))}"
        )
    problems = [f"{job.id}: {job.state}" for job in record.jobs if job.state != "COMPLETED"]
    problems += [f"{job.id}: no memory, node or time" for job in record.jobs if not _is_measured(job)]
    if problems:
        raise Unexpected(f"problems in Slurm's accounting: {', '.join(problems)}")
    return record


def _is_measured(job: JobCost) -> bool:
    return bool(job.peak_memory_mb and job.nodes and job.elapsed_h)


def compare(frame: pd.DataFrame, local: pd.DataFrame) -> int:
    """Compare all metrics that do not depend on the clock: accuracies and counts.

    Returns:
        The number of values in both frames with the same machine, configuration, seed and number of threads.

    Raises:
        Unexpected: If any of them differ.
    """
    ours, theirs = (f[f["verb"] != "latency"].set_index(_KEYS)["value"] for f in (frame, local))
    both = pd.concat({"slurm": ours, "local": theirs}, axis=1, join="inner")
    different = both[both["slurm"] != both["local"]]
    if len(different):
        raise Unexpected(f"values differ from the local run:\n{different.reset_index().to_string()}")
    return len(both)


def machine_cluster() -> SlurmCluster:
    """Return a cluster of two nodes that share this machine's cores and memory, for two trainings at once."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return SlurmCluster(
        nodes=2, cpus=max(1, (os.cpu_count() or 2) // 2), memory_mb=int(0.45 * memory), accounting=True, patience=1200
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.slurm_demo", description=__doc__)
    parser.add_argument("--experiment", default=EXPERIMENT, help="experiment file in the clone [%(default)s]")
    parser.add_argument("--keep", action="store_true", help="keep the clone with its results")
    options = parser.parse_args()
    name = yaml.safe_load((REPOSITORY / options.experiment).read_text())["experiment"]
    folder, phases, cluster = Path(tempfile.mkdtemp(prefix="hafabench-demo-")), Phases(), machine_cluster()
    try:
        with phases.phase("clone"):
            checkout = clone(folder / "checkout")
            # The tracked reports are those of another run.
            shutil.rmtree(checkout / "reports" / name, ignore_errors=True)
        try:
            with phases.phase("cluster start"):
                cluster.start()
            with phases.phase("experiment"):
                submitted = run_experiment(cluster, checkout, options.experiment)
            with phases.phase("after an update"):
                check_update_makes_nothing_stale(cluster, checkout, options.experiment)
        finally:
            with phases.phase("cluster stop"):
                cluster.stop()
        record = check_results(checkout, options.experiment)
        print(f"Tables 1-6 exist; {submitted} jobs were submitted, {len(record.jobs)} are in Slurm's accounting")
        local = REPOSITORY / "results" / name / "frame.parquet"
        if local.is_file():
            equal = compare(read_frame(checkout / "results" / name / "frame.parquet"), read_frame(local))
            print(f"{equal} values are bitwise equal to those of {local.relative_to(REPOSITORY)}")
        else:
            print(f"no {local.relative_to(REPOSITORY)} to compare with; `make demo` creates it")
    except (Unexpected, UserError, ClusterUnavailable) as error:
        sys.exit(f"error: {error}\nkept for inspection: {folder}")
    print(phases)
    if options.keep:
        print(f"kept: {checkout}")
    else:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
