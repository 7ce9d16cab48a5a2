"""The state of the machine while something is timed, by which readers can judge how reliable the times are.

Linux and macOS are supported. Values that a system does not report are None.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from hafabench.results.record import Machine

_CPUS = Path("/sys/devices/system/cpu")
_GPU_FIELDS = "name,clocks.sm,clocks.max.sm,temperature.gpu,power.draw"


@dataclass(frozen=True)
class _CpuTimes:
    """CPU seconds since boot, summed over all CPUs; ``steal`` is None if the system does not count it."""

    total: float
    busy: float
    steal: float | None

    @classmethod
    def now(cls) -> _CpuTimes:
        times = psutil.cpu_times()._asdict()
        # Linux counts the time of guests as user time too.
        total = sum(seconds for kind, seconds in times.items() if not kind.startswith("guest"))
        busy = total - times["idle"] - times.get("iowait", 0.0)
        return cls(total, busy, times.get("steal"))


class MachineWatch:
    """Measures the state of the machine from its creation to the call of `state`."""

    def __init__(self) -> None:
        self._load = os.getloadavg()[0]
        self._cpu_times = _CpuTimes.now()
        self._own_seconds = _own_seconds()
        self._preemptions = _preemptions()

    def state(self) -> Machine:
        """Return the state of the machine since the creation of this object."""
        affinity = _affinity()
        clocks = _clocks_mhz(affinity)
        now, own = _CpuTimes.now(), _own_seconds() - self._own_seconds
        total, busy = now.total - self._cpu_times.total, now.busy - self._cpu_times.busy
        steal = None
        if now.steal is not None and self._cpu_times.steal is not None:
            steal = now.steal - self._cpu_times.steal
        return Machine(
            cpu=cpu_name(),
            cores=os.cpu_count() or 1,
            affinity=affinity,
            governors=_governors(affinity),
            clock_mhz=(min(clocks), max(clocks)) if clocks else None,
            load=(round(self._load, 2), round(os.getloadavg()[0], 2)),
            busy_percent=_percent(busy, total),
            steal_percent=_percent(steal, total),
            others_percent=_percent(busy - own, total),
            preemptions=_preemptions() - self._preemptions,
            gpu=_gpu(),
        )


def this_machine() -> Machine:
    """Return what identifies the machine, without its state."""
    return Machine(cpu=cpu_name(), cores=os.cpu_count() or 1)


def cpu_name() -> str:
    """Return the CPU's model name."""
    if platform.system() == "Darwin":
        return _output(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.machine()
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [
        value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name"
    ]
    return names[0] if names else platform.processor() or platform.machine()


def _percent(part: float | None, total: float) -> float | None:
    return round(100 * max(part, 0.0) / total, 1) if part is not None and total > 0 else None


def _own_seconds() -> float:
    """Return the CPU time of this process and of its finished children."""
    return sum(os.times()[:4])


def _preemptions() -> int:
    # psutil reports none on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _affinity() -> list[int] | None:
    process = psutil.Process()
    return sorted(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else None


def _clocks_mhz(affinity: list[int] | None) -> list[float]:
    """Return the current clocks in MHz of the CPUs in ``affinity``; of all CPUs if they cannot be distinguished."""
    try:
        clocks = [round(clock.current, 1) for clock in psutil.cpu_freq(percpu=True)]
    except (AttributeError, NotImplementedError, OSError, RuntimeError):
        return []
    if affinity and len(clocks) > max(affinity):
        clocks = [clocks[cpu] for cpu in affinity]
    return clocks


def _governors(affinity: list[int] | None) -> list[str] | None:
    """Return the names of the frequency governors in use; only Linux has them."""
    cpus = affinity or range(os.cpu_count() or 1)
    paths = [_CPUS / f"cpu{cpu}" / "cpufreq/scaling_governor" for cpu in cpus]
    return sorted({path.read_text(encoding="utf-8").strip() for path in paths if path.is_file()}) or None


def _gpu() -> dict[str, str] | None:
    """Return what nvidia-smi reports about the first visible GPU; None if it reports nothing."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    line = _output([program, f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader", f"--id={visible}"])
    values, names = [value.strip() for value in line.split(",")], _GPU_FIELDS.split(",")
    return dict(zip(names, values, strict=True)) if len(values) == len(names) else None


def _output(command: list[str]) -> str:
    """Return the output of a command; empty if the command fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
