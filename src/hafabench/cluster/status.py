"""Where every cell of an experiment stands: from its files, Slurm's queue and its logs; no driver needed.

Works without Slurm too: then only files are looked at, and a cell whose history or log grew lately counts as running.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hafabench.cluster.commands import CommandFailed, Runner, is_installed, run
from hafabench.cluster.queue import QueuedJob, live_jobs
from hafabench.config.experiment import Experiment
from hafabench.config.recipes import ClassificationRecipe, DetectionRecipe
from hafabench.formatting.durations import format_duration
from hafabench.results.counts import is_current
from hafabench.runs.fingerprints import complexity_fingerprint, latency_fingerprint
from hafabench.runs.jobs import Cell, cells
from hafabench.runs.paths import complexity_record, counts_record, latency_record
from hafabench.runs.run import expand
from hafabench.runs.snakemake import driver_processes, is_locked
from hafabench.runs.state import RunState, dataset_is_ready, record_is_current, run_state
from hafabench.runs.static_models import counts_fingerprint

# Where the Slurm profile puts the output of jobs.
SLURM_LOGS = Path("logs/slurm")
ORDER = ("running", "queued", "failed", "interrupted", "stale", "waiting", "done")
FRESH_S = 120.0
# Tried, ended, and not done.
_IN_VAIN = ("failed", "interrupted")
# Where a cell runs that the local executor, or a person, has started.
OUTSIDE = "without a Slurm job"
_TAIL_BYTES = 16384
# A line that says why a job ended; the last one counts.
_REASON = re.compile(r"^(error: |\w*Error\b|slurmstepd: error: |.*\bDUE TO\b|Killed\b|.*[Oo]ut of memory)")


@dataclass(frozen=True)
class CellStatus:
    """One cell.

    Attributes:
        cell: which.
        state: one of `ORDER`; ``waiting``: nobody has submitted it yet.
        detail: progress, reason of waiting, or the last line of the log; may be empty.
        node: where it runs.
        job: Slurm's id of its live job.
        log: the file to read about a failed or interrupted cell.
    """

    cell: Cell
    state: str
    detail: str = ""
    node: str = ""
    job: str = ""
    log: Path | None = None


@dataclass(frozen=True)
class Status:
    """An experiment's cells, and whether anybody looks after them.

    Attributes:
        cells: in the workflow's order.
        driver: a sentence about the driver.
        slurm: a sentence about why the queue is not shown; empty where it is.
    """

    cells: tuple[CellStatus, ...]
    driver: str
    slurm: str


def experiment_status(
    experiment: Experiment, folder: Path | None = None, runner: Runner = run, fresh_s: float = FRESH_S
) -> Status:
    """Look at every cell once.

    Args:
        folder: the workflow's working folder; the present one by default.
        runner: of Slurm's commands.
        fresh_s: a cell without a job of Slurm runs where its files grew within so many seconds; 0 where nothing can
            run any more.

    Raises:
        UserError: for an experiment that is not in order.
    """
    folder = folder or Path.cwd()
    jobs, slurm = _queue(folder, runner)
    runs = {run.id: run_state(run) for run in expand(experiment).values()}
    done = _done(experiment, runs)
    found = []
    for comment, cell in cells(experiment).items():
        known = done.get(cell.id, False), runs.get(cell.subject)
        found.append(_status(cell, comment, jobs.get(comment), *known, fresh_s))
    return Status(tuple(found), _driver(folder), slurm)


def _queue(folder: Path, runner: Runner) -> tuple[dict[str, QueuedJob], str]:
    """Live jobs by comment; of two for one cell the one that runs."""
    if runner is run and not is_installed():
        return {}, "no Slurm on this machine"
    try:
        jobs = live_jobs(folder, runner)
    except CommandFailed as error:
        return {}, str(error)
    return {job.comment: job for job in sorted(jobs, key=lambda job: not job.is_pending)}, ""


def _done(experiment: Experiment, runs: dict[str, RunState]) -> dict[str, bool]:
    found = {f"prepare_dataset {task}": dataset_is_ready(experiment, task) for task in experiment.config.datasets}
    for name, state in runs.items():
        found[f"train_run {name}"] = state.state in ("done", "trained")
        found[f"evaluate_run {name}"] = state.state == "done"
    for task in experiment.config.complexity.image_size:
        path, wanted = complexity_record(experiment, task), complexity_fingerprint(experiment, task)
        found[f"count_complexity {task}"] = record_is_current(path, wanted) is True
    found["count_conventions"] = is_current(counts_record(experiment), counts_fingerprint(experiment)) is True
    for group in experiment.config.latency:
        path, wanted = latency_record(experiment, group), latency_fingerprint(experiment, group)
        found[f"measure_latency {group.name}"] = record_is_current(path, wanted) is True
    everything = all(found.values())
    found["collect_records"] = everything and (experiment.results / "frame.parquet").exists()
    found["write_report"] = found["collect_records"] and (experiment.reports / "tables.md").exists()
    return found


def _status(
    cell: Cell, comment: str, job: QueuedJob | None, done: bool, run: RunState | None, fresh_s: float
) -> CellStatus:
    if done:
        return CellStatus(cell, "done")
    training = run if cell.rule == "train_run" else None
    if job is not None and job.is_pending:
        return CellStatus(cell, "queued", job.reason, job=job.id)
    if job is not None:
        detail = progress(training) if training is not None else _said(cell.log, fresh_s) or f"for {job.elapsed}"
        if job.state != "RUNNING":
            detail = f"{job.state.lower()}; {detail}"
        return CellStatus(cell, "running", detail, job.node, job.id)
    if training is not None and training.is_begun and _is_fresh(training.run.history, fresh_s):
        return CellStatus(cell, "running", progress(training), OUTSIDE)
    return _without_job(cell, comment, run, fresh_s)


def _without_job(cell: Cell, comment: str, run: RunState | None, fresh_s: float) -> CellStatus:
    """A cell that is neither done nor a job of Slurm: did somebody try, or does it run here?"""
    log, line, is_reason = _last_word(
        [path for path in (cell.log, slurm_log(comment)) if path is not None and path.is_file()]
    )
    if cell.rule == "train_run" and run is not None:
        if run.state == "stale":
            return CellStatus(cell, "stale", "; ".join(run.changes))
        if run.is_begun and not is_reason:
            # A training that stopped by itself says that it can be resumed, a killed one says nothing.
            return CellStatus(cell, "interrupted", progress(run), log=log)
    if cell.rule == "evaluate_run" and run is not None and run.state != "trained":
        # Its log is about weights that are no longer there.
        return CellStatus(cell, "stale" if run.state == "stale" and run.record else "waiting")
    if log is None:
        return CellStatus(cell, "waiting")
    if not is_reason and _is_fresh(log, fresh_s):
        return CellStatus(cell, "running", line, OUTSIDE)
    return CellStatus(cell, "failed", line, log=log)


def slurm_log(comment: str) -> Path | None:
    """The output of the last job with this comment; None where there is none."""
    rule, _, wildcards = comment.partition("_wildcards_")
    logs = [path for path in (SLURM_LOGS / rule / wildcards).glob("*.log") if path.stem.isdecimal()]
    return max(logs, key=lambda path: int(path.stem), default=None)


def _last_word(logs: Iterable[Path]) -> tuple[Path | None, str, bool]:
    """The file and line that say why a job ended, else the last line of the first file that has one.

    Returns:
        File, line, and whether the line is a reason.
    """
    fallback: tuple[Path | None, str, bool] = (None, "", False)
    for path in logs:
        lines = [line.strip() for line in _tail(path) if line.strip()]
        reasons = [line for line in lines if _REASON.match(line)]
        if reasons:
            return path, reasons[-1], True
        if fallback[0] is None:
            fallback = (path, lines[-1] if lines else "the log is empty", False)
    return fallback


def _said(log: Path, fresh_s: float) -> str:
    """The last line of a log that grows; empty where it does not."""
    lines = [line for line in _tail(log) if line.strip()] if _is_fresh(log, fresh_s) else []
    return lines[-1].strip() if lines else ""


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as handle:
            handle.seek(0, 2)
            handle.seek(max(handle.tell() - _TAIL_BYTES, 0))
            return handle.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def _is_fresh(path: Path, seconds: float) -> bool:
    try:
        return time.time() - path.stat().st_mtime < seconds
    except OSError:
        return False


def progress(state: RunState) -> str:
    """How far a training is: epoch, step, rate, time left, from the last line of its history."""
    last: dict[str, Any] | None = state.last
    if last is None:
        return "no step reported yet"
    recipe = state.run.recipe
    words = []
    if isinstance(recipe, ClassificationRecipe | DetectionRecipe):
        words.append(f"epoch {recipe.epochs * state.steps / state.total:.1f} of {recipe.epochs}")
    words.append(f"step {state.steps:,} of {state.total:,}")
    if last.get("images_per_s") is not None:
        words.append(f"{last['images_per_s']:,.1f} images/s")
    if last.get("eta_s") is not None:
        words.append(f"{format_duration(last['eta_s'])} left")
    return ", ".join(words)


def _driver(folder: Path) -> str:
    drivers = driver_processes(folder)
    if drivers:
        return f"the driver runs here, process {', '.join(map(str, drivers))}"
    if is_locked(folder):
        return (
            "the folder is locked and no driver runs on this machine: if none runs on another one either, it died, "
            "and `hafabench cluster recover` goes on"
        )
    return "no driver runs here"


def render(status: Status, *, everything: bool = False) -> str:
    """The status to read; cells that wait or are done only as numbers, unless ``everything`` is asked for."""
    counts = Counter(cell.state for cell in status.cells)
    lines = [", ".join(f"{counts[state]} {state}" for state in reversed(ORDER) if counts[state]), status.driver]
    if status.slurm:
        lines.append(f"the queue is not shown: {status.slurm}")
    hidden = () if everything else ("waiting", "done")
    width = max((len(cell.cell.id) for cell in status.cells if cell.state not in hidden), default=0)
    for state in ORDER:
        shown = [cell for cell in status.cells if cell.state == state]
        if state not in hidden and shown:
            lines += ["", state, *(line for cell in shown for line in _lines(cell, width))]
    return "\n".join(lines)


def render_failed(status: Status) -> str:
    """The cells alone that were tried in vain, each with its reason, its log and the command that repeats it."""
    failed = [cell for cell in status.cells if cell.state in _IN_VAIN]
    width = max((len(cell.cell.id) for cell in failed), default=0)
    heading = f"{len(failed)} failed or interrupted" if failed else "no cell has failed"
    return "\n".join([heading, *(line for cell in failed for line in _lines(cell, width))])


def _lines(cell: CellStatus, width: int) -> list[str]:
    words = [cell.cell.id.ljust(width), cell.detail, f"job {cell.job}" if cell.job else "", cell.node]
    lines = ["  " + "  ".join(word for word in words if word).rstrip()]
    if cell.state in _IN_VAIN and cell.log is not None:
        lines += [f"    log: {cell.log}", f"    again: {cell.cell.command}"]
    return lines
