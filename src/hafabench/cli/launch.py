"""Start the processes of one training with torchrun, on this node or on each of several nodes of a Slurm job."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from hafabench.errors import Problem, UserError

# The ports at which the processes of several nodes connect. The port is derived from the id of the Slurm job, so that
# two jobs on one node use different ports.
_PORTS = range(20000, 30000)


def start_processes(processes: int, nodes: int) -> NoReturn:
    """Replace this process by torchrun, which starts the same command ``processes`` times on this node.

    With several nodes, srun must have started the command once on each of them inside a Slurm job. The processes
    connect to the node on which srun was called, which is the first node of the job.

    Raises:
        UserError: If there are several nodes but no such job.
    """
    where = ["--standalone"] if nodes == 1 else _rendezvous(nodes)
    launcher = [sys.executable, "-m", "torch.distributed.run", *where, f"--nproc-per-node={processes}"]
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        # nohup asks a command to continue after the connection is lost. By default torchrun would not.
        os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGQUIT")
    os.execv(sys.executable, [*launcher, "-m", "hafabench", *sys.argv[1:]])


def _rendezvous(nodes: int) -> list[str]:
    started = int(_of_slurm("SLURM_STEP_NUM_NODES"))
    if started != nodes:
        raise UserError(Problem("--nodes", "", f"expected {nodes} nodes, but srun started the command on {started}"))
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
        message = "not set; several nodes need a Slurm job in which srun starts one task per node"
        raise UserError(Problem("environment", name, message))
    return value
