"""The object that contains everything that the reports of an experiment show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from hafabench.cluster.costs import AccountingRecord, accounting_file, read_accounting
from hafabench.config.experiment import Experiment, Scale
from hafabench.config.paper_values import PaperValues, load_paper_values
from hafabench.config.recipes import Task
from hafabench.errors import UserError
from hafabench.pictures.index import PictureIndex, read_index
from hafabench.reporting import legend
from hafabench.reporting.claims.comparability import Comparability
from hafabench.reporting.claims.ledger import Ledger, settle_claims
from hafabench.reporting.comparisons import Comparison, comparisons, uncompared
from hafabench.reporting.curves import Curve, read_curve
from hafabench.reporting.frame import leave_out_stale, read_frame
from hafabench.reporting.merger_facts import MergerRow, merger_rows
from hafabench.reporting.outcomes import Outcomes, outcomes
from hafabench.reporting.table_metrics import TableMetrics
from hafabench.reporting.tables import Table, build_table
from hafabench.reporting.trained_sizes import TrainedSize, scale_sentence, trained_sizes
from hafabench.results.counts import Counts, read_current
from hafabench.results.findings import LinkCheck
from hafabench.runs.jobs import JobList, job_id
from hafabench.runs.paths import counts_record, frame_files, picture_index
from hafabench.runs.run import Run, expand
from hafabench.runs.state import JobState, has_own_history, job_states, made_from
from hafabench.runs.static_models import counts_fingerprint
from hafabench.runs.verified_data import DataRead, different_data

if TYPE_CHECKING:
    from hafabench.reporting.charts.report_charts import ReportCharts


@dataclass(frozen=True, eq=False)
class Report:
    """The measurements of an experiment, arranged for its reports.

    The writers (`markdown`, `latex`, `csv`, `html`, `charts`) and `hafabench explain` use only this object. They read
    no files themselves, except for the tiles of the pictures. Each part is built once, on its first use.

    Args:
        experiment: The experiment.
        frame: Its metrics, see `hafabench.reporting.frame`; it may have no rows.
        counts: The parameters and operations of its models; None if they have not been counted, in which case static
            claims are not settled.
        states: The states of its jobs by id, which describe why records are missing; None if that is of no interest.
        audit: The audit of its records and its frame (`hafabench.audit.chain.audit_records`); empty without one.
        left_out: Why records were left out of the frame, by their ids (`hafabench.reporting.frame.leave_out_stale`).
        made_from: The digest of what the report is made from (`hafabench.runs.state.made_from`); empty if unknown.

    Raises:
        UserError: If the frame contains numbers of another experiment or scale.
    """

    experiment: Experiment
    frame: pd.DataFrame
    counts: Counts | None
    states: Mapping[str, JobState] | None = None
    audit: tuple[LinkCheck, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    made_from: str = ""

    def __post_init__(self) -> None:
        name, scale = self.experiment.name, self.experiment.config.scale
        scales = sorted(self.frame["scale"].unique())
        if any(found != scale for found in scales):
            found = " and ".join(scales)
            raise UserError(f"experiment {name} is of {scale} scale, but its frame contains {found} numbers")
        others = sorted(set(self.frame["experiment"].unique()) - {name})
        if others:
            raise UserError(f"expected numbers of experiment {name} only, found also {', '.join(others)}")

    @cached_property
    def runs(self) -> dict[str, Run]:
        """The experiment's runs by id."""
        return expand(self.experiment)

    @cached_property
    def paper_values(self) -> PaperValues:
        """The paper's printed values."""
        return load_paper_values(self.experiment.paper_values)

    @cached_property
    def metrics(self) -> dict[str, TableMetrics]:
        """The metrics that fill each table, by the id of its table layout."""
        table_layouts = self.experiment.table_layouts
        return {table_layout.id: TableMetrics(table_layout, self.frame) for table_layout in table_layouts}

    @cached_property
    def outcomes(self) -> Outcomes:
        """The trainings that collapsed, the jobs that failed, and the records that are missing."""
        return outcomes(self.experiment, self.frame, self.states, self.left_out)

    @cached_property
    def not_shown(self) -> dict[str, list[str]]:
        """The ids of the records that were left out of the frame, by the reason, which is a clause."""
        found: dict[str, list[str]] = {}
        for identifier, reason in self.left_out.items():
            found.setdefault(reason, []).append(identifier)
        return found

    @cached_property
    def tables(self) -> dict[str, Table]:
        """The tables by id, in the paper's order."""
        about: dict[str, Any] = {
            "experiment": self.experiment.name,
            "title": self.experiment.config.title,
            "scale": self.experiment.config.scale,
            "seeds": len(self.experiment.config.seeds),
            "other_tasks": self.other_tasks,
            "model_scale": self.model_scale,
        }
        return {
            name: build_table(metrics, self.paper_values, outcomes=self.outcomes, **about)
            for name, metrics in self.metrics.items()
        }

    @property
    def model_scale(self) -> str:
        """A sentence on the size of the trained models; empty if it is the paper's."""
        return scale_sentence(self.experiment.config.model_scale)

    @cached_property
    def trained_sizes(self) -> list[TrainedSize]:
        """The sizes of the evaluated models if they are smaller than the paper's; otherwise empty."""
        return trained_sizes(self.frame, self.experiment.models) if self.model_scale else []

    @cached_property
    def merger_rows(self) -> list[MergerRow]:
        """What LAA and SIA of the evaluated models do; empty if no record contains it."""
        return merger_rows(self.frame, self.experiment.models)

    @cached_property
    def comparability(self) -> Comparability:
        """What makes the figures of the experiment incomparable with the paper's."""
        return Comparability(self.experiment, self.runs)

    @cached_property
    def other_tasks(self) -> tuple[Task, ...]:
        """The tasks whose data, input size or schedule is not the paper's."""
        return tuple(task for task in self.experiment.config.train if self.comparability.differs_in_setting(task))

    @cached_property
    def shown_scale(self) -> Scale:
        """The scale that decides on warnings: ``custom`` also for an experiment that is wrongly called ``full``."""
        scale = self.experiment.config.scale
        return "custom" if scale == "full" and self.other_tasks else scale

    @property
    def warning(self) -> str:
        """The warning that its numbers are not comparable with the paper's; empty if they are."""
        return legend.warning(self.experiment.config.title, self.shown_scale)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Every model with HAFA compared with its baseline, if they have at least two common seeds."""
        return comparisons(list(self.metrics.values()))

    @cached_property
    def uncompared(self) -> list[str]:
        """The pairs that were measured on fewer than two common seeds."""
        return uncompared(list(self.metrics.values()))

    @cached_property
    def ledger(self) -> Ledger:
        """The verdict on every claim of the paper."""
        return settle_claims(
            self.experiment, self.paper_values, self.counts, self.metrics, self.comparability, self.outcomes
        )

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """The learning curve of every run that has reported progress under its present configuration, by run id."""
        states = (self.states or {}).values()
        stale = {state.run.run.id for state in states if state.run is not None and state.run.state == "stale"}
        runs = [run for run in self.runs.values() if run.id not in stale and has_own_history(run)]
        found = {run.id: read_curve(run.history) for run in runs}
        return {run_id: curve for run_id, curve in found.items() if curve["step"]}

    @cached_property
    def different_data(self) -> list[str]:
        """Sentences about records that come from different data, so that their numbers cannot be compared."""
        frame = self.frame[self.frame["verb"] == "evaluate"].drop_duplicates("record")
        columns = {"train": frame["training_listing_digest"], "val": frame["listing_digest"]}
        return different_data(
            DataRead(name, task, {split: found[index] for split, found in columns.items() if pd.notna(found[index])})
            for index, name, task in zip(frame.index, frame["id"], frame["task"], strict=True)
        )

    @cached_property
    def charts(self) -> ReportCharts:
        """All charts, for the figure files and for the page."""
        # Importing matplotlib takes a second, and `hafabench claims` and `hafabench explain` do not need it.
        from hafabench.reporting.charts.report_charts import draw_charts

        return draw_charts(self.experiment, self.frame, self.curves, self.comparisons)

    @cached_property
    def costs(self) -> AccountingRecord | None:
        """The costs of the jobs on a cluster; None without accounting."""
        path = accounting_file(self.experiment)
        return read_accounting(path) if path.is_file() else None

    @cached_property
    def pictures(self) -> PictureIndex | None:
        """The pictures that were drawn; None if there are none."""
        path = picture_index(self.experiment)
        return read_index(path) if path.is_file() else None


def build_report(experiment: Experiment, *, partial: bool = False) -> Report:
    """Return the report of an experiment from its collected frame and its record of counts.

    Args:
        experiment: The experiment.
        partial: Whether a record of counts that cannot be used is left out, so that static claims are not settled.

    Raises:
        UserError: If there is no frame, or if the frame or the record of counts cannot be used.
    """
    frame = read_frame(frame_files(experiment)[0])
    try:
        counts = current_counts(experiment)
    except UserError:
        if not partial:
            raise
        counts = None
    return report_of(experiment, frame, counts)


def report_of(experiment: Experiment, frame: pd.DataFrame, counts: Counts | None) -> Report:
    """Return the report of an experiment without the rows of its frame that are stale.

    Args:
        experiment: The experiment.
        frame: Its collected frame.
        counts: The parameters and operations of its models; None if they have not been counted.
    """
    jobs = JobList(experiment)
    states = job_states(jobs)
    current, left_out = leave_out_stale(frame, jobs, states)
    digest = made_from(jobs[job_id("write_report")])
    return Report(experiment, current, counts, states, left_out=left_out, made_from=digest)


def current_counts(experiment: Experiment) -> Counts | None:
    """Return the experiment's record of counts; None if there is none.

    Raises:
        UserError: If the record cannot be read or was made under another configuration.
    """
    return read_current(counts_record(experiment), counts_fingerprint(experiment))
