"""Jobs of the workflow, by their comments, on a test cluster that starts and ends clean."""

from __future__ import annotations

from pathlib import Path

from hafabench.runs.snakemake import comment
from tools.slurm_cluster.cluster import SlurmCluster
from tools.waiting import wait_until

# Seconds that a cluster of another session on this machine (a second pytest worker, for example) may take to end.
PATIENCE = 1200
TRAINING = comment("train_run", ["classification", "pvt_tiny", "0"])
EVALUATION = comment("evaluate_run", ["classification", "pvt_tiny", "0"])


def restore(cluster: SlurmCluster) -> None:
    """Leave the cluster as a test expects it: all daemons, nodes and partitions up, no job."""
    cluster.start_accounting()
    cluster.start_controller()
    for partition in cluster.run("sinfo", "--noheader", "--format=%R").split():
        cluster.run("scontrol", "update", f"partitionname={partition}", "state=up")
    cluster.cancel_all()
    for node in cluster.settings.node_names:
        cluster.node_up(node)
    cluster.cancel_all()


def submit(cluster: SlurmCluster, folder: Path, script: str, job_comment: str, *options: str) -> str:
    return cluster.sbatch(script, f"--comment={job_comment}", f"--chdir={folder}", "--mem=300", *options)


def wait_for_state(cluster: SlurmCluster, job: str, *states: str) -> None:
    wait_until(lambda: cluster.job(job).state in states, lambda: f"{cluster.job(job)} is {states}", timeout=60)
