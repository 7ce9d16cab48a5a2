"""The provenance of a number: the machine, the code and the process that made it."""

from __future__ import annotations

import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from hafabench import __version__
from hafabench.config.experiment import Experiment
from hafabench.results.record import Provenance

PACKAGES = (
    "hafabench",
    "torch",
    "torchvision",
    "timm",
    "mmengine",
    "mmcv",
    "mmcv-lite",
    "mmdet",
    "mmsegmentation",
    "pycocotools",
    "numpy",
    "pandas",
    "snakemake",
)


# The root of the checkout that this package runs from, if it does. A link to the package is followed.
_CHECKOUT = Path(__file__).resolve().parents[3]
_PACKAGE = "src/hafabench/__init__.py"
# What can change a number. The site and the rates of GPUs only change where and how long jobs run.
_CODE = ("src", "workflow", "Snakefile")
_WHAT_COUNTS = (
    *_CODE,
    "configs",
    *(f":(exclude)configs/{name}" for name in ("site.yaml", "throughput.yaml", "schemas")),
)


class Stopwatch:
    """Measures the time from its creation to the call of `provenance`.

    The state of the code is that at the creation, because a checkout may change while a training runs.

    Args:
        experiment: The experiment that is worked on; None if what is measured does not belong to one.
    """

    def __init__(self, experiment: Experiment | None = None) -> None:
        self._started = datetime.now(UTC)
        self._clock = time.perf_counter()
        self._code = code_state(_CHECKOUT, experiment.file if experiment else None)

    def seconds(self) -> float:
        """Return the seconds since the creation of this object."""
        return time.perf_counter() - self._clock

    def provenance(self, *, device: str, threads: int, **known: str | None) -> Provenance:
        """Return the provenance of what was done since the creation of this object.

        Args:
            device: The device that was used.
            threads: The number of threads.
            known: Optional fields of `Provenance`.
        """
        return Provenance(
            command=shlex.join(["hafabench", *sys.argv[1:]]),
            **self._code,
            packages=package_versions(),
            python=platform.python_version(),
            device=device,
            threads=threads,
            host=platform.node(),
            started=self._started.isoformat(timespec="seconds"),
            duration_s=round(self.seconds(), 3),
            peak_memory_mb=peak_memory_mb(),
            slurm_job_id=os.environ.get("SLURM_JOB_ID"),
            **known,
        )


def package_versions() -> dict[str, str]:
    """Return the installed versions of the packages that can change a number, and the version of this package.

    The version of this package is that of the code which runs. Another one may be installed beside a checkout.
    """
    found = {"hafabench": __version__}
    for name in PACKAGES:
        if name in found:
            continue
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def peak_memory_mb() -> float:
    """Return the peak resident memory of this process so far, in MB (10^6 bytes)."""
    # macOS reports bytes, Linux KiB.
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def code_state(checkout: Path, experiment_file: Path | None) -> dict[str, Any]:
    """Return the commit of a checkout and what it does not describe, as fields of `Provenance`.

    Changed documentation, tests, samples and tools do not count as changes, and neither do untracked configuration
    files other than the experiment file. The repository is that which contains the package. Neither the working
    directory nor git's environment variables, which git sets for hooks, choose another one.

    Args:
        checkout: The root of the checkout that this package runs from. Unless the last commit of the repository
            contains the package at this place, all fields are None: an installed package may lie inside a checkout of
            something else.
        experiment_file: The experiment file, which may be anywhere.
    """
    # Containers may allow repositories of another owner (`safe.directory`) by variables of git's configuration.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(("GIT_CONFIG_", "GIT_EXEC_PATH"))
    }
    environment["GIT_OPTIONAL_LOCKS"] = "0"

    def git(*arguments: str | Path) -> str | None:
        command = ["git", "-c", "core.fsmonitor=false", "-c", "core.quotepath=false", *map(str, arguments)]
        try:
            done = subprocess.run(
                command, cwd=checkout, env=environment, capture_output=True, errors="replace", timeout=20
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        # The first character of a status may be a space.
        return done.stdout.rstrip() if done.returncode == 0 else None

    def is_tracked(path: Path) -> bool:
        return git("--literal-pathspecs", "ls-files", "--error-unmatch", "--", path) is not None

    def is_changed(path: str) -> bool:
        return (checkout / path).is_file() and git("hash-object", "--", path) != git("rev-parse", f"HEAD:./{path}")

    commit = git("rev-parse", "HEAD") if git("ls-tree", "--name-only", "HEAD", "--", _PACKAGE) else None
    if commit is None:
        return {"git_commit": None, "git_dirty": None, "experiment_tracked": None}
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *_WHAT_COUNTS)
    # New modules change what is imported; new configuration files do nothing unless they are named.
    added = git("ls-files", "--others", "--exclude-standard", "--", *_CODE)
    # git does not compare files with the flags `assume-unchanged` (a lower-case letter) and `skip-worktree` (S).
    listed = git("ls-files", "-v", "--", *_WHAT_COUNTS)
    flagged = (line[2:] for line in (listed or "").splitlines() if line[0].islower() or line[0] == "S")
    hidden = None if listed is None else "\n".join(path for path in flagged if is_changed(path))
    states = [changed, added, hidden]
    tracked = None
    if experiment_file is not None:
        experiment_file = experiment_file.resolve()
        tracked = is_tracked(experiment_file)
        if tracked:
            states.append(git("--literal-pathspecs", "status", "--porcelain", "--", experiment_file))
    dirty = None if None in states else any(states)
    return {"git_commit": commit, "git_dirty": dirty, "experiment_tracked": tracked}


def device_fields() -> dict[str, Any]:
    """Return the device that torch computes on and its number of threads, as fields of `Provenance`."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"device": device, "threads": torch.get_num_threads()}
