"""The site file: what a cluster calls its partitions and GPUs, and how much one job may ask for.

Imports nothing heavy: the workflow reads it at parse time. `load_site` is the one entry.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from hafabench.config.base import StrictModel
from hafabench.config.yaml_file import YamlFile
from hafabench.errors import Problem, UserError

DEFAULT_SITE = Path("configs/site.yaml")
SITE_VARIABLE = "HAFABENCH_SITE"


# sbatch options that the site's other keys, the rules or the executor set; the executor refuses them in `extra`.
_TAKEN = {
    "account": "account",
    "A": "account",
    "partition": "partition",
    "p": "partition",
    "constraint": "constraint",
    "C": "constraint",
    "qos": "qos",
    "gpus": "gpu_type",
    "G": "gpu_type",
    "gres": "gpu_type",
    **dict.fromkeys(("time", "t", "mem", "mem-per-cpu", "nodes", "N", "ntasks", "n", "cpus-per-task", "c"), ""),
    **dict.fromkeys(("job-name", "J", "output", "o", "error", "e", "export", "comment", "chdir", "D"), ""),
}


def _extra(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"not readable as a command line: {error}") from None
    for word in words:
        if not word.startswith("-"):
            raise ValueError(f"expected sbatch options such as '--exclusive --licenses=a', found {word!r}")
        name = word.lstrip("-").partition("=")[0]
        if name in _TAKEN:
            setter = f"use the key {_TAKEN[name]!r}" if _TAKEN[name] else "the workflow sets it per job"
            raise ValueError(f"option {word!r} does not belong here: {setter}")
    return text


def _checked(pattern: str, expectation: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {expectation}, found {text!r}")
        return text

    return AfterValidator(check)


_Name = Annotated[str, _checked(r"[\w.+-]+", "one name: letters, digits and . _ + -")]
_Partitions = Annotated[str, _checked(r"[\w.+-]+(,[\w.+-]+)*", "a partition, or several joined by commas")]
_Features = Annotated[str, _checked(r"[\w.&|*()\[\],:+-]+", "node features such as 'a100&nvlink', without spaces")]
# The executor takes no hyphen here, though Slurm does.
_GpuType = Annotated[
    str, _checked(r"[A-Za-z0-9_.]+", "letters, digits, _ and . only (choose a type with a hyphen by constraint)")
]


class Pool(StrictModel):
    """Nodes of one kind: how a job asks for them, and what one of them holds.

    Attributes:
        partition: where to submit; None leaves it to the cluster's default. Several, joined by commas, let Slurm
            take the first that is free.
        constraint: node features, in Slurm's syntax (``a100&nvlink``).
        qos: quality of service.
        extra: further sbatch options, as one string.
        max_hours: longest run time that a job may ask for; what needs longer is done in several attempts.
        cpus, memory_gb: of one node, as far as jobs may take them (GiB).
        max_nodes: most nodes of one job.
    """

    partition: _Partitions | None = None
    constraint: _Features | None = None
    qos: _Name | None = None
    extra: Annotated[str, AfterValidator(_extra)] | None = None
    max_hours: float = Field(24, gt=0)
    cpus: int = Field(16, gt=0)
    memory_gb: float = Field(64, gt=0)
    max_nodes: int = Field(1, gt=0)


class GpuPool(Pool):
    """Nodes with GPUs.

    Attributes:
        gpu_type: as Slurm names it (the middle of ``gpu:a100:8`` in ``sinfo -o %G``); None takes any.
        gpus: of one node.
    """

    gpu_type: _GpuType | None = None
    gpus: int = Field(8, gt=0)


class Site(StrictModel):
    """A cluster as its user describes it.

    Attributes:
        account: whom to charge; None leaves it to the cluster's default.
        gpu: nodes for jobs that ask for GPUs.
        cpu: nodes for jobs that do not.
        stop_margin_minutes: a training saves its state and leaves so long before its time limit: what starting it
            and writing its last state may take.
    """

    account: _Name | None = None
    gpu: GpuPool = GpuPool()
    cpu: Pool = Pool()
    stop_margin_minutes: float = Field(5, gt=0)

    @model_validator(mode="after")
    def _limits_leave_time_to_work(self) -> Site:
        for name, pool in (("gpu", self.gpu), ("cpu", self.cpu)):
            if pool.max_hours * 60 <= self.stop_margin_minutes:
                raise ValueError(
                    f"{name}.max_hours ({pool.max_hours:g} h) must be longer than stop_margin_minutes "
                    f"({self.stop_margin_minutes:g})"
                )
        return self

    def pool(self, gpus: int) -> Pool:
        """The nodes for a job with so many GPUs."""
        return self.gpu if gpus else self.cpu

    def resources(self, gpus: int = 0) -> dict[str, str]:
        """Where a job with so many GPUs goes, in the words of Snakemake's Slurm executor; unset ones are left out.

        They choose nodes and bill; none of them changes a result, and other executors ignore them.
        """
        pool = self.pool(gpus)
        words = {
            "slurm_account": self.account,
            "slurm_partition": pool.partition,
            "constraint": pool.constraint,
            "qos": pool.qos,
            "slurm_extra": pool.extra,
            "gpu_model": pool.gpu_type if isinstance(pool, GpuPool) else None,
        }
        return {name: value for name, value in words.items() if value is not None}

    def runtime(self, minutes: float, gpus: int = 0) -> int:
        """Run time to ask for where a job needs ``minutes``: whole minutes, at least one, within the pool's limit."""
        return max(1, min(math.ceil(minutes), math.floor(self.pool(gpus).max_hours * 60)))

    def stop_after_s(self, runtime: int) -> int:
        """Seconds after which a training with ``runtime`` minutes has to save and leave.

        Where the margin would take more than half of the time, half of the time is worked.
        """
        return round(max(runtime - self.stop_margin_minutes, runtime / 2) * 60)


def site_file(root: Path = Path()) -> Path:
    """The site file in force: `SITE_VARIABLE` of the environment, else `DEFAULT_SITE` in the checkout at ``root``."""
    return Path(os.environ.get(SITE_VARIABLE) or Path(root) / DEFAULT_SITE)


def load_site(path: Path) -> Site:
    """Read a site file.

    Raises:
        UserError: with every problem of the file, each with line, key and expectation.
    """
    if str(path) == os.environ.get(SITE_VARIABLE) and not Path(path).is_file():
        raise UserError(Problem(str(path), "", f"no such file, though {SITE_VARIABLE} in the environment names it"))
    return YamlFile(path).validate(Site)
