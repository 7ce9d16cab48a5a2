"""Everything that is known of an experiment, put into one page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hafabench import __version__
from hafabench.cluster.costs import COLUMNS, AccountingRecord, accounting_file, cost_rows, read_accounting
from hafabench.config.experiment import Experiment
from hafabench.config.metrics import METRICS, main_metric
from hafabench.config.paper_values import load_paper_values
from hafabench.config.recipes import TASKS
from hafabench.files import write_text
from hafabench.reporting import legend
from hafabench.reporting.claims.settle import settle
from hafabench.reporting.claims.verdicts import Ruling
from hafabench.reporting.comparison_text import NONE
from hafabench.reporting.comparisons import Comparison, comparisons, uncompared
from hafabench.reporting.figures import headline_points, read_curve
from hafabench.reporting.frame import read_frame
from hafabench.reporting.html import charts
from hafabench.reporting.html.claims import Claims, by_locator, claims_view
from hafabench.reporting.html.gallery import Gallery, read_gallery
from hafabench.reporting.html.overview import RecordLine, experiment_facts, record_lines
from hafabench.reporting.html.tables import Facts, TableView, table_view
from hafabench.reporting.tables import build_table
from hafabench.results.counts import read_current
from hafabench.runs.paths import counts_record, picture_index
from hafabench.runs.run import Run, expand
from hafabench.runs.static_models import counts_fingerprint

NAME = "report.html"


@dataclass(frozen=True)
class Costs:
    """The cost table: a sentence, headings, rows of texts."""

    summary: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True)
class Page:
    """What the template shows; the names are those of its sections."""

    name: str
    title: str
    warning: str
    facts: Facts
    comparisons: list[Comparison]
    uncompared: list[str]
    forest: charts.Forest | None
    claims: Claims
    tables: list[TableView]
    scatters: list[tuple[str, list[charts.Chart]]]
    curves: list[charts.Chart]
    gallery: Gallery
    costs: Costs | None
    records: list[RecordLine]
    has_spread: bool
    several_seeds: bool
    file: str
    frame: str
    command: str
    remake: str
    version: str = __version__

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Anchor and text of each section, in the page's order."""
        costs = [("costs", "Cost")] if self.costs else []
        return [
            ("comparisons", "Comparisons"),
            ("tables", "Tables"),
            ("claims", "Claims"),
            ("accuracy", "Accuracy and cost"),
            ("curves", "Learning curves"),
            ("pictures", "Pictures"),
            *costs,
            ("records", "Records"),
        ]


def write_page(experiment: Experiment) -> Path:
    """Write the experiment's ``report.html`` from its collected frame and what lies beside it.

    Histories, pictures and accounting are shown where they are there.

    Raises:
        UserError: without a frame, or where something that is there cannot be read.
    """
    path = experiment.reports / NAME
    write_text(path, render(make_page(experiment)))
    return path


def make_page(experiment: Experiment) -> Page:
    """Read what there is of an experiment; raises as `write_page`."""
    source = experiment.results / "frame.parquet"
    frame, runs = read_frame(source), expand(experiment)
    ledger = settle(experiment, read_current(counts_record(experiment), counts_fingerprint(experiment)), frame)
    histories = _histories(runs)
    scatters = _scatters(experiment, frame)
    file, found = experiment.file, comparisons(experiment, frame)
    return Page(
        name=experiment.name,
        title=experiment.config.title,
        warning=legend.warning(experiment.config.title, experiment.config.scale),
        facts=experiment_facts(experiment, runs, frame),
        comparisons=found,
        uncompared=uncompared(experiment, frame),
        forest=charts.forest(found) if found else None,
        claims=claims_view(ledger),
        tables=_tables(experiment, frame, by_locator(ledger)),
        scatters=scatters,
        curves=_curves(histories),
        gallery=read_gallery(picture_index(experiment), runs, f"hafabench pictures --experiment {file}"),
        costs=_costs(accounting_file(experiment)),
        records=record_lines(frame),
        has_spread=any(dot.bar for _, panels in scatters for chart in panels for dot in chart.dots),
        several_seeds=any(len(of_model) > 1 for task in histories.values() for of_model in task.values()),
        file=str(file),
        frame=str(source),
        command=f"hafabench report --experiment {file}",
        remake=f"snakemake all --profile workflow/profiles/local --configfile {file}",
    )


def render(page: Page) -> str:
    """The page as one HTML file; the same page gives the same bytes."""
    loader = PackageLoader("hafabench.reporting.html", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, _, _ = loader.get_source(environment, "style.css")
    words = {"chart_width": charts.WIDTH, "chart_height": charts.HEIGHT, "no_comparison": NONE}
    return environment.get_template("report.html.j2").render(page=page, style=Markup(style), **words)


def _tables(experiment: Experiment, frame: pd.DataFrame, rulings: Mapping[str, Ruling]) -> list[TableView]:
    paper = load_paper_values(experiment.paper_values)
    about = {"experiment": experiment.name, "title": experiment.config.title, "scale": experiment.config.scale}
    return [
        table_view(build_table(layout, frame, paper, **about), layout, frame, rulings)
        for layout in experiment.table_layouts
    ]


def _scatters(experiment: Experiment, frame: pd.DataFrame) -> list[tuple[str, list[charts.Chart]]]:
    """Task -> its headline metric against parameters, multiply-accumulates and each latency measurement."""
    costs = [
        ("parameters", "params", None, METRICS["params"].factor, METRICS["params"].label),
        ("multiply-accumulates", "gmacs", None, METRICS["gmacs"].factor, METRICS["gmacs"].label),
    ]
    latencies = [
        (
            f"latency, group {group.name}",
            "latency_ms",
            f"latency/{group.name}",
            1.0,
            f"ms for {group.batch_size} image{'s' if group.batch_size > 1 else ''} of {group.image_size} pixels",
        )
        for group in experiment.config.latency
    ]
    found = []
    for task in TASKS:
        panels = []
        for title, cost, source, factor, x_label in [*costs, *latencies]:
            points = headline_points(frame, task, cost, source)
            if points:
                labels = {"x_label": x_label, "y_label": main_metric(task).label}
                panels.append(charts.scatter(title, points, experiment.models, factor=factor, **labels))
        if panels:
            found.append((task, panels))
    return found


def _histories(runs: Mapping[str, Run]) -> dict[str, dict[str, list[dict[str, list[float]]]]]:
    """Task -> model -> its histories, one per seed that has one."""
    found: dict[str, dict[str, list[dict[str, list[float]]]]] = {}
    for run in runs.values():
        curve = read_curve(run.history) if run.history.is_file() else {"step": []}
        if curve["step"]:
            found.setdefault(run.task, {}).setdefault(run.model.name, []).append(curve)
    return found


def _curves(histories: Mapping[str, Mapping[str, list[dict[str, list[float]]]]]) -> list[charts.Chart]:
    # A model keeps its colour over all panels.
    looks = {name: i for i, name in enumerate(dict.fromkeys(n for of_task in histories.values() for n in of_task))}
    return [charts.curves(task, of_task, looks) for task, of_task in histories.items()]


def _costs(path: Path) -> Costs | None:
    if not path.exists():
        return None
    record: AccountingRecord = read_accounting(path)
    summary = (
        f"{record.gpu_hours:,.1f} GPU-hours over all attempts and requeues, by {record.backend}, {record.updated}. "
        "Empty: not known to Slurm; use is of allocated time."
    )
    return Costs(summary, COLUMNS, cost_rows(record))
