"""The configuration files of the test cluster, as text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tools.slurm_cluster.processes import MARK

CLUSTER = "hafabench"
ACCOUNT = "hafa"
GPU_TYPE = "fake"
CGROUP_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Settings:
    """Settings of a test cluster: those that a test chooses and those that the machine determines.

    Attributes:
        folder: Folder of all files of the cluster.
        host: Short name of this machine.
        port: First of ``nodes + 3`` consecutive free TCP ports.
        nodes, gpus, cpus, memory_mb: Number of virtual nodes, and the resources of each.
        accounting: Whether slurmdbd runs.
        cgroups: Hierarchies (v1) in which control groups can be created: ``freezer``, ``memory``.
    """

    folder: Path
    host: str
    port: int
    nodes: int = 2
    gpus: int = 2
    cpus: int = 8
    memory_mb: int = 8000
    accounting: bool = False
    cgroups: frozenset[str] = frozenset()

    @property
    def node_names(self) -> list[str]:
        return [f"node{number}" for number in range(1, self.nodes + 1)]

    @property
    def munge_socket(self) -> Path:
        return self.folder / "munge/socket"

    @property
    def slurm_conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def database_socket(self) -> Path:
        return self.folder / "database.sock"

    @property
    def task_prolog(self) -> Path:
        return self.folder / "task_prolog"

    def device(self, node: str, gpu: int) -> Path:
        """Return the path of a GPU's device node. Slurm sets CUDA_VISIBLE_DEVICES only for device nodes."""
        return self.folder / "devices" / f"{node}-gpu{gpu}"


def slurm_conf(s: Settings) -> str:
    """Return the text of ``slurm.conf``: loopback only, short intervals, two partitions with preemption."""
    # Without control groups, a process that outlives its parent escapes scancel.
    process_tracking = "proctrack/cgroup" if "freezer" in s.cgroups else "proctrack/linuxproc"
    task_plugin = "task/cgroup" if {"freezer", "memory"} <= s.cgroups else "task/none"
    accounting = "AccountingStorageType=accounting_storage/none"
    if s.accounting:
        accounting = f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={s.port + 1}
AccountingStoragePass={s.munge_socket}
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits,qos
# Without this, the comment, which names the rule and its wildcards, is empty in sacct.
AccountingStoreFlags=job_comment"""
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={s.host} NodeAddr=127.0.0.1 Port={port} "
        f"CPUs={s.cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={s.cpus} ThreadsPerCore=1 "
        f"RealMemory={s.memory_mb} Gres=gpu:{GPU_TYPE}:{s.gpus} Feature=fast,only_{node} State=UNKNOWN"
        for port, node in enumerate(s.node_names, start=s.port + 2)
    )
    return f"""\
ClusterName={CLUSTER}
SlurmctldHost={s.host}(127.0.0.1)
SlurmctldPort={s.port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job starts again only after its credential has expired (121 s by default).
AuthInfo=socket={s.munge_socket},cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPidFile={s.folder}/run/slurmctld.pidfile
SlurmctldLogFile={s.folder}/log/slurmctld.log
StateSaveLocation={s.folder}/state
SlurmdPidFile={s.folder}/run/%n.pidfile
SlurmdLogFile={s.folder}/log/%n.log
SlurmdSpoolDir={s.folder}/spool.%n
SlurmctldDebug=info
SlurmdDebug=info
ProctrackType={process_tracking}
TaskPlugin={task_plugin}
TaskProlog={s.task_prolog}
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
MessageTimeout=10
KillWait=5
UnkillableStepTimeout=120
CompleteWait=0
MinJobAge=300
EnforcePartLimits=ALL
JobRequeue=1
PrologFlags=Alloc
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=50000
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
{accounting}
{nodes}
PartitionName=DEFAULT Nodes=ALL DefaultTime=10 DefMemPerCPU=100 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=gpu Default=YES MaxTime=24:00:00
PartitionName=cpu MaxTime=24:00:00
PartitionName=short MaxTime=5
PartitionName=preemptible MaxTime=24:00:00 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=cancelled MaxTime=24:00:00 PriorityTier=1 PreemptMode=CANCEL
"""


def gres_conf(s: Settings) -> str:
    """Return the text of ``gres.conf``: one device node per GPU."""
    return "".join(
        f"NodeName={node} Name=gpu Type={GPU_TYPE} File={s.device(node, gpu)}\n"
        for node in s.node_names
        for gpu in range(s.gpus)
    )


def cgroup_conf(s: Settings) -> str:
    """Return the text of ``cgroup.conf``: a job that takes too much memory is killed, if the machine allows it."""
    return f"""\
CgroupPlugin=cgroup/v1
CgroupMountpoint={CGROUP_ROOT}
CgroupAutomount=no
ConstrainCores=no
ConstrainDevices=no
ConstrainRAMSpace={"yes" if "memory" in s.cgroups else "no"}
"""


def task_prolog(s: Settings) -> str:
    """Return the text of the prolog that adds the variable of this cluster to the environment of every task."""
    return f"#!/bin/sh\necho export {MARK}={s.folder}\n"


def slurmdbd_conf(s: Settings) -> str:
    """Return the text of ``slurmdbd.conf``: the data base is reached through its socket, without a password."""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={s.munge_socket}
CommunicationParameters=NoInAddrAny
DbdHost={s.host}
DbdAddr=127.0.0.1
DbdPort={s.port + 1}
SlurmUser=root
DebugLevel=info
LogFile={s.folder}/log/slurmdbd.log
PidFile={s.folder}/run/slurmdbd.pidfile
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
"""
