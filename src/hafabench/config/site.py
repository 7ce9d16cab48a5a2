"""The schema of the site file: a cluster's partitions and GPUs, and what one job may request.

The workflow reads the site file when it is parsed, so this module imports no large package. `load_site` is its entry
point.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hafabench.config.base import StrictModel
from hafabench.config.shipped import own_or_shipped
from hafabench.config.yaml_file import YamlFile
from hafabench.errors import Problem, UserError

DEFAULT_SITE = Path("configs/site.yaml")
SITE_VARIABLE = "HAFABENCH_SITE"

# Options of sbatch that are refused in `extra`, each with the key of the site file that sets it. The rules or the
# Slurm executor set the options without a key.
_OTHER_SETTERS = {
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


_LONGEST_HOURS = 10**5


def _extra(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"expected options of a command line: {error}") from None
    for word in words:
        if not word.startswith("-"):
            raise ValueError(f"expected sbatch options such as '--exclusive --licenses=a', found {word!r}")
        name = word.lstrip("-").partition("=")[0]
        if name in _OTHER_SETTERS:
            key = _OTHER_SETTERS[name]
            setter = f"use the key {key!r}" if key else "the workflow sets it for each job"
            raise ValueError(f"option {word!r} is not allowed here: {setter}")
    return text


# HOURS:MINUTES:SECONDS or DAYS-HOURS[:MINUTES[:SECONDS]], as Slurm writes time limits.
_TIME = re.compile(
    r"(?:(?P<days>\d+)-(?P<hours>\d{1,2})(?::(?P<minutes>\d{2})(?::(?P<seconds>\d{2}))?)?|"
    r"(?P<h>\d+):(?P<m>\d{2}):(?P<s>\d{2}))"
)


def _hours(value: Any) -> Any:
    """Return the hours of a time limit such as ``24:00:00`` or ``1-12``; return what is not like one unchanged.

    ``12:30`` is refused: Slurm takes it for minutes and seconds, and many people for hours and minutes.
    """
    if not isinstance(value, str) or not re.search(r":|\d-\d", value):
        return value
    match = _TIME.fullmatch(value.strip())
    if match is None:
        expected = "expected hours, or a time such as 24:00:00 (hours, minutes, seconds) or 1-12:00:00 (with days)"
        raise ValueError(f"{expected}, found {value!r}")
    part = {name: int(text or 0) for name, text in match.groupdict().items()}
    minutes, seconds = part["minutes"] + part["m"], part["seconds"] + part["s"]
    if max(minutes, seconds) > 59 or part["hours"] > 23:
        raise ValueError(f"expected at most 59 minutes and seconds, and 23 hours after days, found {value!r}")
    return 24 * part["days"] + part["hours"] + part["h"] + minutes / 60 + seconds / 3600


_Hours = Annotated[float, BeforeValidator(_hours, json_schema_input_type=Annotated[float, Field(gt=0)] | str)]


def _checked(pattern: str, expectation: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {expectation}, found {text!r}")
        return text

    return AfterValidator(check)


_Name = Annotated[str, _checked(r"[\w.+-]+", "one name: letters, digits and . _ + -")]
_Partitions = Annotated[str, _checked(r"[\w.+-]+(,[\w.+-]+)*", "a partition, or several partitions joined by commas")]
_Features = Annotated[str, _checked(r"[\w.&|*()\[\],:+-]+", "node features such as 'a100&nvlink', without spaces")]
# Slurm allows hyphens in GPU types, but the executor does not.
_GpuType = Annotated[
    str, _checked(r"[A-Za-z0-9_.]+", "letters, digits, _ and . (choose a type with a hyphen by `constraint`)")
]


class Pool(StrictModel):
    """Nodes of one kind, with the options that request them and the resources of one node."""

    partition: _Partitions | None = Field(
        None,
        description="Partition to submit to; null uses the cluster's default. Slurm takes the first free one of "
        "several partitions joined by commas.",
    )
    constraint: _Features | None = Field(
        None, description="Required node features in Slurm's syntax, without spaces: `a100&nvlink`."
    )
    qos: _Name | None = Field(None, description="Quality of service.")
    extra: Annotated[str, AfterValidator(_extra)] | None = Field(
        None, description="Further options of `sbatch` as one string: `--exclusive --licenses=a`."
    )
    max_hours: _Hours = Field(
        24,
        gt=0,
        description="Longest run time that a job may request, in hours or as `24:00:00` or `1-12:00:00`: the time "
        "limit of the partition, or less. A longer training continues in further attempts.",
    )
    cpus: int = Field(16, gt=0, le=10**5, description="CPUs of a node that jobs may use.")
    memory_gb: float = Field(64, gt=0, le=10**6, description="Memory of a node that jobs may use, in GiB.")
    max_nodes: int = Field(
        1,
        gt=0,
        le=10**5,
        description="Largest number of nodes of a job. A training uses several nodes if one has fewer GPUs than it "
        "needs.",
    )


class GpuPool(Pool):
    """Nodes with GPUs."""

    gpu_type: _GpuType | None = Field(
        None,
        description="Slurm's name of the GPU type, the middle part of `gpu:a100:8` in `sinfo -o %G`; null takes any. "
        "A type with a hyphen has to be chosen by `constraint`.",
    )
    gpus: int = Field(8, gt=0, le=1024, description="GPUs of a node.")


class Site(StrictModel):
    """A Slurm cluster."""

    account: _Name | None = Field(None, description="Account to charge; null uses the cluster's default.")
    gpu: GpuPool = Field(GpuPool(), description="Nodes for jobs that need GPUs.")
    cpu: Pool = Field(Pool(), description="Nodes for all other jobs.")
    max_submitted_jobs: int | None = Field(
        None,
        gt=0,
        le=10**6,
        description="Largest number of jobs that the workflow has in Slurm at a time, waiting and running: the "
        "cluster's submit limit (`MaxSubmitJobs` of `sacctmgr`), or less, because Slurm counts all jobs of the user. "
        "null uses the `jobs` of the profile (100). A lower `--jobs` stays.",
    )
    stop_margin_minutes: float = Field(
        5,
        gt=0,
        description="Minutes before its time limit at which a training stores its state and exits. They have to "
        "cover the start of the job and the storing of the state.",
    )

    @model_validator(mode="after")
    def _limits_leave_time_to_work(self) -> Site:
        for name, pool in (("gpu", self.gpu), ("cpu", self.cpu)):
            if not 1 / 60 <= pool.max_hours <= _LONGEST_HOURS:
                raise ValueError(
                    f"{name}.max_hours: expected a minute to {_LONGEST_HOURS:,} hours, found {pool.max_hours:g} hours"
                )
            if pool.max_hours * 60 <= self.stop_margin_minutes:
                raise ValueError(
                    f"stop_margin_minutes: {name}.max_hours ({pool.max_hours:g} h) must be longer than "
                    f"stop_margin_minutes ({self.stop_margin_minutes:g})"
                )
        return self

    def pool(self, gpus: int) -> Pool:
        """Return the nodes for a job with ``gpus`` GPUs."""
        return self.gpu if gpus else self.cpu

    def runtime(self, minutes: float, gpus: int = 0) -> int:
        """Return the run time to request for a job that needs ``minutes``: whole minutes within the pool's limit."""
        return max(1, min(math.ceil(minutes), math.floor(self.pool(gpus).max_hours * 60)))

    def stop_after_s(self, runtime: int) -> int:
        """Return the seconds after which a training of ``runtime`` minutes stores its state and exits.

        This is at least half of the run time.
        """
        return round(max(runtime - self.stop_margin_minutes, runtime / 2) * 60)


def site_file(root: Path = Path()) -> Path:
    """Return the site file: the one that `SITE_VARIABLE` names, `DEFAULT_SITE` in ``root``, or the shipped one."""
    named = os.environ.get(SITE_VARIABLE)
    return Path(named) if named else own_or_shipped(Path(root) / DEFAULT_SITE.parent, DEFAULT_SITE.name)


def load_site(path: Path) -> Site:
    """Read a site file.

    Raises:
        UserError: With every problem of the file, each with line, key and expectation.
    """
    if str(path) == os.environ.get(SITE_VARIABLE) and not Path(path).is_file():
        raise UserError(
            Problem(str(path), "", f"no such file, but the environment variable {SITE_VARIABLE} names it")
        )
    return YamlFile(path).validate(Site)
