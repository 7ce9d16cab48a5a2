"""Time trivial jobs under Slurm and locally: ``python -m tools.slurm_overhead [JOBS [ROUNDS]]``.

Each round runs all variants, so that other work of the machine affects them equally. Every round is printed, then the
medians.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from tools.checkout import REPOSITORY
from tools.slurm_cluster.cluster import SlurmCluster
from tools.slurm_cluster.driver import QUICK, Driver
from tools.slurm_cluster.machine import ClusterUnavailable

WORKFLOW = """
rule all:
    input: expand("made/{{number}}", number=range({jobs}))


rule make:
    output: "made/{{number}}"
    resources: runtime=5, mem_mb=500
    shell: "touch {{output}}"
"""
ARGUMENTS = {
    "local": ("all", "--cores", "2"),
    "slurm": ("all", "--profile", "slurm"),
    # The first status check comes after one second instead of the profile's twenty.
    "slurm, polled quickly": ("all", "--profile", "slurm", *QUICK[:1]),
}


def measure(cluster: SlurmCluster, jobs: int, arguments: tuple[str, ...]) -> float:
    """Return the seconds that Snakemake takes for ``jobs`` jobs in a new folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "configs").mkdir()
        (folder / "configs/paper.yaml").write_text("{}\n")
        (folder / "slurm").symlink_to(REPOSITORY / "slurm")
        (folder / "Snakefile").write_text(WORKFLOW.format(jobs=jobs))
        started = time.perf_counter()
        with Driver(cluster, folder, *arguments) as driver:
            driver.succeeds(timeout=60 + 30 * jobs)
        return time.perf_counter() - started


def main() -> None:
    jobs, rounds = (*map(int, sys.argv[1:]), *(20, 3)[len(sys.argv) - 1 :])
    seconds: dict[str, list[float]] = {name: [] for name in ARGUMENTS}
    started = time.perf_counter()
    try:
        with SlurmCluster(accounting=True) as cluster:
            print(f"cluster started in {time.perf_counter() - started:.1f} s")
            for number in range(1, rounds + 1):
                for name, arguments in ARGUMENTS.items():
                    seconds[name].append(measure(cluster, jobs, arguments))
                    print(f"round {number}: {jobs} jobs, {name}: {seconds[name][-1]:.1f} s", flush=True)
            started = time.perf_counter()
    except ClusterUnavailable as error:
        sys.exit(f"error: {error}")
    print(f"cluster stopped in {time.perf_counter() - started:.1f} s")
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(f"{name}: median {middle:.1f} s, {middle / jobs:.2f} s per job")


if __name__ == "__main__":
    main()
