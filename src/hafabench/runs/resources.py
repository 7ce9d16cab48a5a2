"""What every job of the workflow asks for: GPUs, nodes, CPUs, memory, run time. Pure, no torch.

A training that needs longer than a site allows asks for the longest allowed time, leaves before it ends, and is
resumed by its next attempt. Each attempt asks for more time and memory than the one before, within the site's limits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hafabench.config.experiment import Experiment, LatencyConfig
from hafabench.config.site import Site
from hafabench.errors import Problem, UserError
from hafabench.runs.estimates import Throughput
from hafabench.runs.run import Run

# Minutes and MB of jobs that no recipe says anything about; from runs of the embedded experiment, rounded up.
_COMPLEXITY = (2, 4000)
_PREPARE_EMBEDDED = (1, 2000)
_PREPARE_FULL = (60, 8000)
_COLLECT = (1, 2000)
_REPORT = (1, 2000)
_PICTURES = (2, 4000)
# Time limits below this would only cost attempts, minutes.
_RUNTIME_AT_LEAST = {"embedded": 30, "full": 15}
# The slowest model of Table 4 took the paper 38.5 ms an image.
_SECONDS_PER_LATENCY_ROUND = 0.05

# Everything that `Resources.words` may say.
WORDS = (
    *("nodes", "cpus_per_task", "mem_mb", "runtime", "gpu", "gpu_model"),
    *("gres", "mpi", "tasks", "tasks_per_gpu"),
)


@dataclass(frozen=True)
class Resources:
    """One job's request.

    Attributes:
        gpus: of the whole job.
        nodes: that the job is spread over, evenly.
        cpus: per node.
        mem_mb: host memory per node.
        runtime: time limit, minutes.
        estimated_minutes: what the runtime was made from, startup included.
    """

    gpus: int
    nodes: int
    cpus: int
    mem_mb: int
    runtime: int
    estimated_minutes: float

    @property
    def gpus_per_node(self) -> int:
        """GPUs on each of the nodes."""
        return self.gpus // self.nodes

    def words(self, site: Site) -> dict[str, int | str]:
        """The request in the words of Snakemake's Slurm executor, all of them among `WORDS`."""
        found: dict[str, int | str] = {"nodes": self.nodes, "cpus_per_task": self.cpus, "mem_mb": self.mem_mb}
        found["runtime"] = self.runtime
        kind = site.gpu.gpu_type if self.gpus else None
        if self.nodes == 1:
            return found | {"gpu": self.gpus} | ({"gpu_model": kind} if kind else {})
        # GPUs of the whole job might come unevenly from its nodes; these are counted per node. "mpi" keeps the
        # executor from starting the job's command itself, which would be on one node: `launcher` does.
        gres = f"gpu:{kind}:{self.gpus_per_node}" if kind else f"gpu:{self.gpus_per_node}"
        return found | {"gres": gres, "mpi": "srun", "tasks": self.nodes, "tasks_per_gpu": 0}

    @property
    def launcher(self) -> str:
        """What to put before a command so that it runs once on each of the job's nodes; empty where there is one."""
        if self.nodes == 1:
            return ""
        step = f"--nodes={self.nodes} --ntasks={self.nodes} --ntasks-per-node=1"
        each = f"--cpus-per-task={self.cpus} --gres=gpu:{self.gpus_per_node}"
        return f"srun --jobid=$SLURM_JOB_ID --overlap {step} {each} --kill-on-bad-exit=1 "

    @property
    def attempts(self) -> int:
        """Attempts that a job needs where its time limit is shorter than its work (trainings resume)."""
        return max(1, math.ceil(self.estimated_minutes / self.runtime))


class ResourceBook:
    """Requests for every job of an experiment on a site.

    Args:
        experiment: a checked experiment.
        site: limits of the cluster's nodes.
        speed: of one of its GPUs, relative to the one that throughput.yaml is about.

    Raises:
        UserError: for bad files of rates or sizes.
    """

    def __init__(self, experiment: Experiment, site: Site | None = None, speed: float = 1.0):
        self.experiment = experiment
        self.site = site or Site()
        self.speed = speed
        self.throughput = Throughput(experiment)
        self._embedded = experiment.config.scale == "embedded"

    def train(self, run: Run, attempt: int = 1) -> Resources:
        """A training: the paper's number of GPUs as far as the site has them, or one CPU at embedded scale.

        Raises:
            UserError: where the site has no number of GPUs that shares the recipe's batch evenly.
        """
        gpus, nodes = self.gpus_of(run)
        minutes = self.throughput.train(run, gpus, self.speed).hours * 60
        return self._request(run, gpus, nodes, minutes, attempt)

    def evaluate(self, run: Run, attempt: int = 1) -> Resources:
        """An evaluation: one GPU at full scale."""
        gpus = 0 if self._embedded else 1
        return self._request(run, gpus, 1, self.throughput.evaluate(run, gpus, self.speed).hours * 60, attempt)

    def prepare_dataset(self, task: str, attempt: int = 1) -> Resources:
        """Making or verifying the task's data set: file names and annotations of the whole, no GPU."""
        generated = self.experiment.config.datasets[task].generator is not None
        return self._plain(*(_PREPARE_EMBEDDED if generated else _PREPARE_FULL), attempt)

    def complexity(self, task: str, attempt: int = 1) -> Resources:
        """Counting all models of the task on the meta device, no GPU."""
        return self._plain(*_COMPLEXITY, attempt)

    def conventions(self, attempt: int = 1) -> Resources:
        """Taking all models of the tables apart on the meta device, no GPU."""
        return self._plain(*_COMPLEXITY, attempt)

    def latency(self, group: LatencyConfig, attempt: int = 1) -> Resources:
        """Timing a group: one GPU at full scale, and CPUs for its threads."""
        rounds = (group.warmup + group.repeats) * (len(group.models) + 1)
        images = group.batch_size + (group.throughput_batch or 0)
        minutes = rounds * images * _SECONDS_PER_LATENCY_ROUND / 60
        gpus = 0 if self._embedded else 1
        rates = self.throughput.rates
        mem = rates.embedded_memory_mb.value if self._embedded else rates.process_memory_mb.value
        return self._within(gpus, 1, group.threads or 2, mem, minutes, attempt)

    def collect(self, attempt: int = 1) -> Resources:
        """Records -> frame, no GPU."""
        return self._plain(*_COLLECT, attempt)

    def pictures(self, attempt: int = 1) -> Resources:
        """A handful of images through three trained models, no GPU."""
        return self._plain(*_PICTURES, attempt)

    def report(self, attempt: int = 1) -> Resources:
        """Frame -> tables and figures, no GPU."""
        return self._plain(*_REPORT, attempt)

    def gpus_of(self, run: Run) -> tuple[int, int]:
        """GPUs and nodes of a training: as many as the paper used, or as many as the site can share a batch among."""
        if self._embedded:
            return 0, 1
        pool, batch = self.site.gpu, run.recipe.batch_size
        wanted = int(self.throughput.rates.gpus.value)
        for gpus in range(min(wanted, pool.gpus * pool.max_nodes), 0, -1):
            nodes = math.ceil(gpus / pool.gpus)
            if batch % gpus == 0 and gpus % nodes == 0:
                return gpus, nodes
        raise UserError(Problem(run.id, "batch_size", f"{batch} images cannot be shared among the site's GPUs"))

    def _request(self, run: Run, gpus: int, nodes: int, minutes: float, attempt: int) -> Resources:
        rates, workers = self.throughput.rates, run.recipe.workers
        if self._embedded:
            memory = rates.embedded_memory_mb.value + workers * rates.worker_memory_mb.value
            return self._within(0, 1, 1 + workers, memory, minutes, attempt)
        per_node = gpus // nodes
        memory = per_node * (rates.process_memory_mb.value + workers * rates.worker_memory_mb.value)
        return self._within(gpus, nodes, per_node * (workers + 1), memory, minutes, attempt)

    def _plain(self, minutes: float, mem_mb: float, attempt: int) -> Resources:
        return self._within(0, 1, 1, mem_mb, minutes, attempt)

    def _within(self, gpus: int, nodes: int, cpus: int, mem_mb: float, minutes: float, attempt: int) -> Resources:
        """The request as far as the site's nodes go; from the second attempt on with more time and memory."""
        rates, pool = self.throughput.rates, self.site.pool(gpus)
        estimated = minutes + self.throughput.startup_minutes
        at_least = _RUNTIME_AT_LEAST[self.experiment.config.scale]
        memory = (mem_mb + rates.workflow_memory_mb.value) * (1 + (attempt - 1) / 2)
        return Resources(
            gpus=gpus,
            nodes=nodes,
            cpus=min(cpus, pool.cpus),
            mem_mb=math.ceil(min(memory, pool.memory_gb * 1024)),
            runtime=self.site.runtime(max(estimated * rates.margin.value, at_least) * attempt, gpus),
            estimated_minutes=estimated,
        )
