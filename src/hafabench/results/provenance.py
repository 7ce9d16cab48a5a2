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


class Stopwatch:
    """Measures the time from its creation to the call of `provenance`."""

    def __init__(self) -> None:
        self._started = datetime.now(UTC)
        self._clock = time.perf_counter()

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
        commit, dirty = _git_state()
        return Provenance(
            command=shlex.join(["hafabench", *sys.argv[1:]]),
            git_commit=commit,
            git_dirty=dirty,
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
    """Return the installed versions of the packages that can change a number."""
    found = {}
    for name in PACKAGES:
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


def _git_state() -> tuple[str | None, bool | None]:
    """Return the commit of the checkout that this package runs from, and whether it has uncommitted changes.

    Both are None outside a checkout.
    """
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    status = git("status", "--porcelain", "--untracked-files=no") if commit else None
    return commit, (status != "" if status is not None else None)


def device_fields() -> dict[str, Any]:
    """Return the device that torch computes on and its number of threads, as fields of `Provenance`."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"device": device, "threads": torch.get_num_threads()}
