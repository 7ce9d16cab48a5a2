"""What the jobs of the workflow request: GPUs, nodes, CPUs, memory and run time. This module imports no torch.

A training that needs more time than the site allows requests the longest time allowed, stops before that time is
over, and is resumed by its next attempt. After an attempt that ran out of memory or time, a job requests more
of it, up to the limits of the site (`hafabench.runs.growth`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hafabench.config.experiment import Experiment, LatencyConfig
from hafabench.config.recipes import Task
from hafabench.config.site import Site
from hafabench.errors import Problem, UserError
from hafabench.runs.estimates import Throughput
from hafabench.runs.growth import NONE, Growth
from hafabench.runs.run import Run

# Minutes and MB of jobs that follow no recipe, measured on the embedded experiment and rounded up.
_COUNT_MODELS = (2, 4000)
_PREPARE_EMBEDDED = (1, 2000)
_PREPARE_FULL = (60, 8000)
_COLLECT = (1, 2000)
_REPORT = (1, 2000)
_PICTURES = (2, 4000)
# The shortest time limits in minutes, without and with GPUs; a shorter one would only cause further attempts.
_MIN_RUNTIME = {False: 30, True: 15}
# In the paper, the slowest model of Table 4 takes 38.5 ms per image.
_SECONDS_PER_LATENCY_ROUND = 0.05


@dataclass(frozen=True)
class Resources:
    """The resources that one job requests.

    Attributes:
        gpus: GPUs of the whole job.
        nodes: Nodes; the GPUs are spread evenly over them.
        cpus: CPUs per node.
        mem_mb: Host memory per node.
        runtime: The time limit in minutes.
        estimated_minutes: The duration that the time limit was derived from, including the startup.
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

    @property
    def attempts(self) -> int:
        """The number of attempts that a job takes; trainings that exceed their time limit are resumed."""
        return max(1, math.ceil(self.estimated_minutes / self.runtime))


class ResourceRequests:
    """What each job of an experiment requests on a site.

    Args:
        experiment: A checked experiment.
        site: The limits of the cluster's nodes.
        speed: The speed of one of its GPUs, relative to the GPU that ``throughput.yaml`` describes.

    Raises:
        UserError: If the files of rates or sizes are invalid.
    """

    def __init__(self, experiment: Experiment, site: Site | None = None, speed: float = 1.0):
        self.experiment = experiment
        self.site = site or Site()
        self.speed = speed
        self.throughput = Throughput(experiment)
        self._uses_gpus = experiment.config.uses_gpus

    def train(self, run: Run, growth: Growth = NONE) -> Resources:
        """A training uses the paper's number of GPUs, or the number that the experiment or the site limits it to.

        In an experiment without GPUs it uses one CPU.

        Raises:
            UserError: If no number of GPUs on the site divides the recipe's batch evenly.
        """
        gpus, nodes = self.gpus_of(run)
        minutes = self.throughput.train(run, gpus, self.speed).hours * 60
        return self._request(run, gpus, nodes, minutes, growth)

    def evaluate(self, run: Run, growth: Growth = NONE) -> Resources:
        """An evaluation uses one GPU if the experiment uses GPUs."""
        gpus = 1 if self._uses_gpus else 0
        return self._request(run, gpus, 1, self.throughput.evaluate(run, gpus, self.speed).hours * 60, growth)

    def prepare_dataset(self, task: Task, growth: Growth = NONE) -> Resources:
        """Making a data set, or verifying all of its files, uses no GPU."""
        generated = self.experiment.config.datasets[task].generator is not None
        return self._without_gpu(*(_PREPARE_EMBEDDED if generated else _PREPARE_FULL), growth)

    def count_models(self, growth: Growth = NONE) -> Resources:
        """Models are counted on the meta device, without a GPU."""
        return self._without_gpu(*_COUNT_MODELS, growth)

    def measure_latency(self, group: LatencyConfig, growth: Growth = NONE) -> Resources:
        """A latency group uses one GPU if the experiment uses GPUs, and CPUs for its threads."""
        rounds = (group.warmup + group.repeats) * (len(group.models) + 1)
        images = group.batch_size + (group.throughput_batch or 0)
        minutes = rounds * images * _SECONDS_PER_LATENCY_ROUND / 60
        gpus = 1 if self._uses_gpus else 0
        rates = self.throughput.rates
        mem = rates.process_memory_mb.value if self._uses_gpus else rates.embedded_memory_mb.value
        return self._within(gpus, 1, group.threads or 2, mem, minutes, growth)

    def collect_records(self, growth: Growth = NONE) -> Resources:
        """Records are read without a GPU."""
        return self._without_gpu(*_COLLECT, growth)

    def draw_pictures(self, growth: Growth = NONE) -> Resources:
        """A few images pass through three trained models, without a GPU."""
        return self._without_gpu(*_PICTURES, growth)

    def write_report(self, growth: Growth = NONE) -> Resources:
        """The report is written without a GPU."""
        return self._without_gpu(*_REPORT, growth)

    def gpus_of(self, run: Run) -> tuple[int, int]:
        """GPUs and nodes of a training: the paper's number, or the largest within the limits that divides the batch.

        The limits are those of the experiment and of the site. With mixup or CutMix, the share of each GPU is even.

        Raises:
            UserError: If no number of GPUs on the site divides the batch evenly.
        """
        if not self._uses_gpus:
            return 0, 1
        pool, batch = self.site.gpu, run.recipe.batch_size
        wanted = self.experiment.config.gpus or int(self.throughput.rates.gpus.value)
        for gpus in range(min(wanted, pool.gpus * pool.max_nodes), 0, -1):
            nodes = math.ceil(gpus / pool.gpus)
            if batch % (gpus * run.recipe.images_go_in) == 0 and gpus % nodes == 0:
                return gpus, nodes
        raise UserError(Problem(run.id, "batch_size", f"{batch} images cannot be shared among the site's GPUs"))

    def _request(self, run: Run, gpus: int, nodes: int, minutes: float, growth: Growth) -> Resources:
        rates, workers = self.throughput.rates, run.recipe.workers
        if not self._uses_gpus:
            memory = rates.embedded_memory_mb.value + workers * rates.worker_memory_mb.value
            return self._within(0, 1, 1 + workers, memory, minutes, growth)
        per_node = gpus // nodes
        memory = per_node * (rates.process_memory_mb.value + workers * rates.worker_memory_mb.value)
        return self._within(gpus, nodes, per_node * (workers + 1), memory, minutes, growth)

    def _without_gpu(self, minutes: float, mem_mb: float, growth: Growth) -> Resources:
        return self._within(0, 1, 1, mem_mb, minutes, growth)

    def _within(self, gpus: int, nodes: int, cpus: int, mem_mb: float, minutes: float, growth: Growth) -> Resources:
        """The request within the limits of the site, with what earlier attempts were short of."""
        rates, pool = self.throughput.rates, self.site.pool(gpus)
        estimated = minutes + self.throughput.startup_minutes
        min_runtime = _MIN_RUNTIME[self._uses_gpus]
        memory = (mem_mb + rates.workflow_memory_mb.value) * (1 + growth.memory / 2)
        return Resources(
            gpus=gpus,
            nodes=nodes,
            cpus=min(cpus, pool.cpus),
            mem_mb=math.ceil(min(memory, pool.memory_gb * 1024)),
            runtime=self.site.runtime(max(estimated * rates.margin.value, min_runtime) * (1 + growth.time), gpus),
            estimated_minutes=estimated,
        )
