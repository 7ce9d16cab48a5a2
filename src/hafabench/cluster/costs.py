"""What every cell of an experiment has cost, over all attempts and requeues; kept in a file and shown as a table.

Accounting data bases forget: attempts that were read once stay in the experiment's ``accounting.json``.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from hafabench.cluster.accounting import Accounting, Attempt
from hafabench.cluster.commands import Runner, run
from hafabench.cluster.queue import live_jobs
from hafabench.config.base import StrictModel
from hafabench.config.experiment import Experiment
from hafabench.config.json_file import read_json_model
from hafabench.files import write_text
from hafabench.formatting.markdown import markdown_table
from hafabench.runs.jobs import Cell, cell_of, cells, experiment_of

SCHEMA = "hafabench.accounting/1"


class Turn(StrictModel):
    """One attempt as it is kept; the fields are those of `hafabench.cluster.accounting.Attempt`."""

    job_id: str
    state: str
    exit_code: int
    elapsed_s: float
    gpus: int
    cpus: int
    cpu_s: float | None
    peak_memory_mb: float | None
    gpu_use: float | None
    nodes: str
    submitted: str | None
    started: str | None
    ended: str | None


class CellCost(StrictModel):
    """One cell with everything that was spent on it.

    Attributes:
        rule, subject: of the cell.
        turns: its attempts, oldest first.
    """

    rule: str
    subject: str
    turns: list[Turn] = Field(min_length=1)

    @property
    def state(self) -> str:
        """State of the last attempt."""
        return self.turns[-1].state

    @property
    def jobs(self) -> int:
        """Jobs submitted."""
        return len({turn.job_id for turn in self.turns})

    @property
    def requeues(self) -> int:
        """Times that Slurm put a job back and started it again."""
        return len(self.turns) - self.jobs

    @property
    def elapsed_h(self) -> float:
        """Wall-clock hours on nodes."""
        return sum(turn.elapsed_s for turn in self.turns) / 3600

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all attempts."""
        return sum(turn.gpus * turn.elapsed_s for turn in self.turns) / 3600

    @property
    def peak_memory_mb(self) -> float | None:
        """Most memory of any attempt."""
        return max((turn.peak_memory_mb for turn in self.turns if turn.peak_memory_mb is not None), default=None)

    @property
    def cpu_use(self) -> float | None:
        """Share of the allocated CPUs' time that was used, 0 to 1, over the attempts that Slurm knows it of."""
        known = [turn for turn in self.turns if turn.cpu_s is not None and turn.cpus]
        allocated = sum(turn.cpus * turn.elapsed_s for turn in known)
        return sum(turn.cpu_s or 0 for turn in known) / allocated if allocated else None

    @property
    def gpu_use(self) -> float | None:
        """Share of the allocated GPUs' time that kernels ran, likewise."""
        known = [turn for turn in self.turns if turn.gpu_use is not None and turn.gpus]
        allocated = sum(turn.gpus * turn.elapsed_s for turn in known)
        used = sum((turn.gpu_use or 0) * turn.gpus * turn.elapsed_s for turn in known)
        return used / allocated if allocated else None

    @property
    def nodes(self) -> list[str]:
        """Where it ran, each once."""
        return list(dict.fromkeys(turn.nodes for turn in self.turns if turn.nodes))


class AccountingRecord(StrictModel):
    """What an experiment has cost on a cluster.

    Attributes:
        backend: what was asked, ``sacct`` or ``pyslurm``.
        updated: when (ISO 8601, local time).
        cells: those that have run, in the workflow's order.
    """

    schema_: Literal[SCHEMA] = Field(SCHEMA, alias="schema")
    experiment: str
    backend: str
    updated: str
    cells: list[CellCost]

    @property
    def gpu_hours(self) -> float:
        """Of all cells."""
        return sum(cell.gpu_hours for cell in self.cells)


def accounting_file(experiment: Experiment) -> Path:
    """Where an experiment's accounting lies."""
    return experiment.results / "accounting.json"


def update_accounting(
    experiment: Experiment, accounting: Accounting, since: datetime, folder: Path | None = None
) -> AccountingRecord:
    """Ask the accounting, add what is new to the experiment's file, and return the whole.

    Args:
        folder: working folder of the workflow; the present one by default.

    Raises:
        UserError: where the accounting does not answer, or the file is not one of this schema.
    """
    path = accounting_file(experiment)
    kept = read_accounting(path).cells if path.exists() else []
    known = cells(experiment)
    turns: dict[str, dict[tuple[str, str | None], Turn]] = {cell.id: {} for cell in known.values()}
    for cost in kept:
        of_cell = turns.setdefault(f"{cost.rule} {cost.subject}".strip(), {})
        of_cell |= {(turn.job_id, turn.started): turn for turn in cost.turns}
    for cell, attempt in assign(experiment, known, accounting.attempts(since), folder or Path.cwd()):
        turns[cell.id][attempt.job_id, attempt.started] = _turn(attempt)
    record = AccountingRecord(
        experiment=experiment.name,
        backend=accounting.name,
        updated=datetime.now().isoformat(timespec="seconds"),
        cells=[
            CellCost(
                rule=identifier.split(" ")[0],
                subject=identifier.partition(" ")[2],
                turns=sorted(of_cell.values(), key=lambda turn: (turn.started or "", int(turn.job_id))),
            )
            for identifier, of_cell in turns.items()
            if of_cell
        ],
    )
    write_text(path, json.dumps(record.model_dump(by_alias=True), indent=1) + "\n")
    return record


def settled_accounting(
    experiment: Experiment,
    accounting: Accounting,
    since: datetime,
    wait_s: float,
    runner: Runner = run,
    every_s: float = 3.0,
) -> AccountingRecord:
    """As `update_accounting` in the present folder, until the ends of all jobs that left the queue are known.

    Args:
        wait_s: the longest wait for that; Slurm's accounting lags behind its queue by seconds.
        runner: of squeue.

    Raises:
        UserError: also where the queue cannot be seen.
    """
    deadline = time.monotonic() + wait_s
    while True:
        live = {job.id for job in live_jobs(Path.cwd(), runner)} if wait_s else set()
        record = update_accounting(experiment, accounting, since)
        turns = (turn for cell in record.cells for turn in cell.turns)
        unknown = any(turn.ended is None and turn.job_id not in live for turn in turns)
        if not unknown or time.monotonic() >= deadline:
            return record
        time.sleep(every_s)


def assign(
    experiment: Experiment, known: Mapping[str, Cell], attempts: Iterable[Attempt], folder: Path
) -> list[tuple[Cell, Attempt]]:
    """The attempts that were made for cells of an experiment from a working folder, each with its cell."""
    here, file = folder.resolve(), (folder / experiment.file).resolve()
    found = []
    for attempt in attempts:
        cell = cell_of(known, attempt.comment)
        if cell is None or Path(attempt.folder).resolve() != here:
            continue
        submitted_with = experiment_of(attempt.submit_line)
        if submitted_with is None or (folder / submitted_with).resolve() == file:
            found.append((cell, attempt))
    return found


def _turn(attempt: Attempt) -> Turn:
    return Turn(**{name: getattr(attempt, name) for name in Turn.model_fields})


def read_accounting(path: Path) -> AccountingRecord:
    """Read and validate an experiment's accounting.

    Raises:
        UserError: for a missing file, invalid JSON, or other content, every problem at once.
    """
    message = "no such file; `hafabench cluster account` makes it on a cluster with accounting"
    return read_json_model(path, AccountingRecord, missing=message)


COLUMNS = (
    *("rule", "cell", "state", "jobs", "requeues", "hours", "GPUs", "GPU-hours", "peak memory (MB)"),
    *("CPU use (%)", "GPU use (%)", "nodes"),
)


def cost_rows(record: AccountingRecord) -> list[tuple[str, ...]]:
    """One row of `COLUMNS` per cell, texts; unknown values are empty."""
    return [
        (
            cell.rule,
            cell.subject,
            cell.state,
            str(cell.jobs),
            str(cell.requeues),
            f"{cell.elapsed_h:.3f}",
            str(cell.turns[-1].gpus),
            f"{cell.gpu_hours:.3f}",
            "" if cell.peak_memory_mb is None else f"{cell.peak_memory_mb:.0f}",
            "" if cell.cpu_use is None else f"{100 * cell.cpu_use:.0f}",
            "" if cell.gpu_use is None else f"{100 * cell.gpu_use:.0f}",
            " ".join(cell.nodes),
        )
        for cell in record.cells
    ]


def cost_markdown(record: AccountingRecord) -> str:
    """The cost table to read."""
    lines = [
        f"# What {record.experiment} has cost",
        "",
        f"{record.gpu_hours:,.1f} GPU-hours over all attempts and requeues, by {record.backend}, {record.updated}. "
        "Empty: not known to Slurm; use is of allocated time.",
        "",
        markdown_table(COLUMNS, cost_rows(record), "lllrrrrrrrrl", is_markdown=True),
    ]
    return "\n".join(lines) + "\n"


def write_costs(record: AccountingRecord, reports: Path) -> list[Path]:
    """Write ``costs.md`` and ``costs.csv`` into an experiment's reports."""

    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([COLUMNS, *cost_rows(record)])
    paths = [reports / "costs.md", reports / "costs.csv"]
    write_text(paths[0], cost_markdown(record))
    write_text(paths[1], table.getvalue())
    return paths
