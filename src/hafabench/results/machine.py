"""The state of the machine while something is timed: what a reader needs to judge whether the clock can be trusted.

Everything comes from the kernel's own files; what cannot be read is left out.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
from pathlib import Path

from hafabench.results.record import Machine

_CPUS = Path("/sys/devices/system/cpu")
_GPU_FIELDS = "name,clocks.sm,clocks.max.sm,temperature.gpu,power.draw"


class MachineWatch:
    """Looks at the machine at creation; `state` looks again and gives what happened between."""

    def __init__(self) -> None:
        self._load = os.getloadavg()[0]
        self._ticks = _cpu_ticks()
        self._own = _own_ticks()
        self._preempted = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw

    def state(self) -> Machine:
        """The machine's state from creation to now."""
        affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        frequencies = _frequencies(affinity)
        return Machine(
            cpu=cpu_name(),
            cores=os.cpu_count() or 1,
            affinity=affinity,
            governors=sorted(set(_read_each("cpufreq/scaling_governor", affinity))) or None,
            clock_mhz=(min(frequencies), max(frequencies)) if frequencies else None,
            load=(round(self._load, 2), round(os.getloadavg()[0], 2)),
            busy_percent=self._share("busy"),
            steal_percent=self._share("steal"),
            others_percent=self._share("busy", less=_own_ticks() - self._own),
            preemptions=resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - self._preempted,
            gpu=_gpu(),
        )

    def _share(self, kind: str, less: float = 0) -> float | None:
        if self._ticks is None:
            return None
        now = _cpu_ticks()
        total = now["total"] - self._ticks["total"]
        return round(100 * max(now[kind] - self._ticks[kind] - less, 0) / total, 1) if total else None


def this_machine() -> Machine:
    """What is known of the machine without watching it."""
    return Machine(cpu=cpu_name(), cores=os.cpu_count() or 1)


def cpu_name() -> str:
    """The CPU's model name."""
    names = [value for key, value in _cpuinfo() if key == "model name"]
    return names[0] if names else platform.processor() or platform.machine()


def _cpuinfo() -> list[tuple[str, str]]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]


def _cpu_ticks() -> dict[str, int] | None:
    """Ticks of all CPUs since boot: in total, at work, and taken by the hypervisor for somebody else."""
    path = Path("/proc/stat")
    if not path.is_file():
        return None
    ticks = [int(part) for part in path.read_text(encoding="utf-8").splitlines()[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return {"total": sum(ticks), "busy": sum(ticks) - idle, "steal": ticks[7]}


def _own_ticks() -> float:
    """CPU time of this process and of those it has waited for, in the kernel's ticks."""
    return sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")


def _frequencies(affinity: list[int] | None) -> list[float]:
    kilohertz = [float(text) for text in _read_each("cpufreq/scaling_cur_freq", affinity)]
    if kilohertz:
        return [round(value / 1e3, 1) for value in kilohertz]
    return [float(value) for key, value in _cpuinfo() if key == "cpu MHz"]


def _read_each(name: str, affinity: list[int] | None) -> list[str]:
    found = []
    for cpu in affinity or range(os.cpu_count() or 1):
        path = _CPUS / f"cpu{cpu}" / name
        if path.is_file():
            found.append(path.read_text(encoding="utf-8").strip())
    return found


def _gpu() -> dict[str, str] | None:
    """What nvidia-smi says of the first visible GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    command = [program, f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader", f"--id={visible}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    values = [value.strip() for value in done.stdout.strip().split(",")]
    names = _GPU_FIELDS.split(",")
    return dict(zip(names, values, strict=True)) if done.returncode == 0 and len(values) == len(names) else None
