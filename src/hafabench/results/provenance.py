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

import yaml

from hafabench import __version__
from hafabench.config.experiment import Experiment
from hafabench.config.site import site_file
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
# What can change a number. The site, the rates of GPUs and the profiles only change where and how long jobs run.
_CODE = ("src", "workflow", "Snakefile", ":(exclude)workflow/profiles")
# Files that git does not track change a number only if they are imported or included.
_IMPORTED = (".py", ".so", ".pyd", ".smk")
_WHAT_COUNTS = (
    *_CODE,
    "configs",
    *(f":(exclude)configs/{name}" for name in ("site.yaml", "throughput.yaml", "schemas")),
)
_SHOWN = 10


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

    What cannot change a number is no change: documentation, tests, samples, tools, permissions of files, the site
    file, profiles of Snakemake, the folders of data sets (records contain the digests of data), experiments other
    than the one that is worked on, and untracked files that are neither code nor the experiment file. The repository
    is that which contains the package. Neither the working directory nor git's environment variables, which git sets
    for hooks, choose another one.

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
        options = [word for name in ("fsmonitor", "quotepath", "fileMode") for word in ("-c", f"core.{name}=false")]
        command = ["git", *options, *map(str, arguments)]
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
        return {"git_commit": None, "git_dirty": None, "git_changes": None, "experiment_tracked": None}
    # New modules change what is imported; new configuration files do nothing unless they are named.
    added = git("ls-files", "--others", "--exclude-standard", "--", *_CODE)
    if added is not None:
        added = "\n".join(path for path in added.splitlines() if path.strip('"').endswith(_IMPORTED))
    # git does not compare files with the flags `assume-unchanged` (a lower-case letter) and `skip-worktree` (S).
    listed = git("ls-files", "-v", "--", *_WHAT_COUNTS)
    flagged = (line[2:] for line in (listed or "").splitlines() if line[0].islower() or line[0] == "S")
    hidden = None if listed is None else "\n".join(path for path in flagged if is_changed(path))
    differences = ("diff", "--no-ext-diff", "--no-renames", "--name-only")
    answers = [git(*differences, "--relative", "HEAD", "--", *_WHAT_COUNTS), added, hidden]
    tracked = None
    if experiment_file is not None:
        experiment_file = experiment_file.resolve()
        tracked = is_tracked(experiment_file)
        if tracked:
            # It may be outside of the checkout, in the same repository.
            own = git("--literal-pathspecs", *differences, "HEAD", "--", experiment_file)
            answers.append(own and os.path.relpath(experiment_file, checkout.resolve()))
    fields = {"git_commit": commit, "git_dirty": None, "git_changes": None, "experiment_tracked": tracked}
    if None in answers:
        return fields
    site = site_file().resolve()
    differing = sorted({path for answer in answers for path in (answer or "").splitlines()})
    changes = [
        path
        for path in differing
        if (checkout / path).resolve() != site
        and not _is_irrelevant(checkout / path, git("show", f"HEAD:./{path}"), experiment_file)
    ]
    if len(changes) > _SHOWN:
        changes[_SHOWN:] = [f"and {len(changes) - _SHOWN} more"]
    return fields | {"git_dirty": bool(changes), "git_changes": changes}


def _is_irrelevant(file: Path, committed: str | None, experiment_file: Path | None) -> bool:
    """Whether the changes of a tracked file cannot change the numbers of an experiment.

    Args:
        file: The file.
        committed: Its content in the last commit; None if it is new or not known.
        experiment_file: The file of the experiment; None if it is not known.
    """
    if committed is None or file.suffix != ".yaml":
        return False
    try:
        before, after = yaml.safe_load(committed), yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    if not all(isinstance(content, dict) and "experiment" in content for content in (before, after)):
        return False
    if experiment_file is not None and file.resolve() != experiment_file:
        return True
    return _without_roots(before) == _without_roots(after)


def _without_roots(experiment: dict[str, Any]) -> dict[str, Any]:
    """The content of an experiment file without the folders of its data sets."""
    datasets = experiment.get("datasets")
    if not isinstance(datasets, dict):
        return experiment
    return {**experiment, "datasets": {task: _without_root(dataset) for task, dataset in datasets.items()}}


def _without_root(dataset: Any) -> Any:
    return {key: value for key, value in dataset.items() if key != "root"} if isinstance(dataset, dict) else dataset


def device_fields() -> dict[str, Any]:
    """Return the device that torch computes on and its number of threads, as fields of `Provenance`."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"device": device, "threads": torch.get_num_threads()}
