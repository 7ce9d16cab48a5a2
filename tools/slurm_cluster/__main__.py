"""Start, use and stop a real Slurm on this machine: ``python -m tools.slurm_cluster up``.

Then ``eval "$(python -m tools.slurm_cluster env)"`` makes this shell use it, and ``down`` stops it.
"""

from __future__ import annotations

import argparse
import sys

from tools.slurm_cluster.cluster import SlurmCluster
from tools.slurm_cluster.machine import (
    HELD,
    ClusterUnavailable,
    MachineLock,
    linked_folder,
    remove_traces,
    stop_daemons,
)
from tools.slurm_cluster.processes import Daemons


def main(arguments: list[str] | None = None) -> None:
    """Run ``up``, ``down`` or ``env`` for a cluster that keeps running after this process."""
    parser = argparse.ArgumentParser(prog="python -m tools.slurm_cluster", description=__doc__)
    parser.add_argument("action", choices=["up", "down", "env"])
    parser.add_argument("--accounting", action="store_true", help="with slurmdbd and a data base")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--gpus", type=int, default=2, help="GPUs of each node")
    options = parser.parse_args(arguments)
    folder = linked_folder()
    if options.action == "up":
        cluster = SlurmCluster(nodes=options.nodes, gpus=options.gpus, accounting=options.accounting)
        try:
            cluster.start()
        except ClusterUnavailable as error:
            sys.exit(f"error: {error}")
        print(f"a test cluster runs in {cluster.settings.folder}")
        print(cluster.run("sinfo"), end="")
    elif folder is None:
        sys.exit("error: no test cluster runs; `python -m tools.slurm_cluster up` starts one")
    elif options.action == "env":
        print(f"export SLURM_CONF={folder}/slurm.conf")
    elif not (lock := MachineLock()).take():
        sys.exit(f"error: {HELD} and ends with it")
    else:
        stop_daemons(Daemons(folder))
        remove_traces(folder, set())
        lock.release()
        print(f"stopped, and removed {folder}")


if __name__ == "__main__":
    main()
