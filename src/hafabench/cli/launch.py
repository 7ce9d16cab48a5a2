"""Starting the processes of one training: torchrun on this node, or on each of several in a Slurm job."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from hafabench.errors import Problem, UserError

# Where the processes of several nodes meet: by the job's number, so that two jobs on one node do not.
_PORTS = range(20000, 30000)


def start_processes(processes: int, nodes: int) -> NoReturn:
    """Replace this process by torchrun, which starts the same command ``processes`` times on this node.

    With several nodes the command has to be started once on each of them, by srun inside a Slurm job; they meet at
    the node that srun was called from, which is the job's first.

    Raises:
        UserError: for several nodes outside such a job.
    """
    where = ["--standalone"] if nodes == 1 else _meeting_place(nodes)
    launcher = [sys.executable, "-m", "torch.distributed.run", *where, f"--nproc-per-node={processes}"]
    os.execv(sys.executable, [*launcher, "-m", "hafabench", *sys.argv[1:]])


def _meeting_place(nodes: int) -> list[str]:
    started = int(_of_slurm("SLURM_STEP_NUM_NODES"))
    if started != nodes:
        raise UserError(Problem("--nodes", "", f"{nodes} nodes, but srun started this on {started}"))
    port = _PORTS[int(_of_slurm("SLURM_JOB_ID")) % len(_PORTS)]
    return [
        f"--nnodes={nodes}",
        f"--node-rank={int(_of_slurm('SLURM_NODEID'))}",
        f"--master-addr={_of_slurm('SLURM_LAUNCH_NODE_IPADDR')}",
        f"--master-port={port}",
    ]


def _of_slurm(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        advice = (
            "several nodes are started by srun, one task on each, inside a Slurm job: `snakemake --profile slurm`"
        )
        raise UserError(Problem("environment", name, f"not set; {advice} does it"))
    return value
