"""The report as one HTML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hafabench import __version__
from hafabench.cluster.costs import COLUMNS, AccountingRecord, cost_rows
from hafabench.config.metrics import METRICS, main_metric
from hafabench.config.recipes import TASKS
from hafabench.reporting import legend
from hafabench.reporting.curves import Curve
from hafabench.reporting.figures import headline_points
from hafabench.reporting.html import charts
from hafabench.reporting.html.claims import ClaimGroup, claim_groups
from hafabench.reporting.html.gallery import Gallery, read_gallery
from hafabench.reporting.html.overview import RecordLine, experiment_details, record_lines
from hafabench.reporting.html.tables import Details, TableView, table_view
from hafabench.reporting.report import Report
from hafabench.runs.paths import picture_index


@dataclass(frozen=True)
class Costs:
    """The table of costs: a sentence, headings, and rows of texts."""

    summary: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True)
class Page:
    """A report arranged in the sections of the page; the template uses these names."""

    report: Report
    warning: str
    details: Details
    forest: charts.Forest | None
    claims: list[ClaimGroup]
    tables: list[TableView]
    scatters: list[tuple[str, list[charts.Chart]]]
    curves: list[charts.Chart]
    gallery: Gallery
    costs: Costs | None
    records: list[RecordLine]
    version: str = __version__

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Anchor and title of each section, in order."""
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

    @property
    def has_spread(self) -> bool:
        """Whether any chart shows a spread over seeds."""
        return any(dot.bar for _, panels in self.scatters for chart in panels for dot in chart.dots)

    @property
    def has_several_seeds(self) -> bool:
        """Whether any model has the learning curves of several seeds."""
        return any(line.thin for chart in self.curves for line in chart.lines)


def page_file(report: Report) -> Path:
    """The path of the page."""
    return report.experiment.reports / "report.html"


def files(report: Report) -> dict[Path, str]:
    """The page, by its path."""
    return {page_file(report): render(build_page(report))}


def build_page(report: Report) -> Page:
    """Arrange a report in the sections of the page.

    Raises:
        UserError: If a part of the report cannot be built, or if a picture differs from the one that was indexed.
    """
    experiment = report.experiment
    return Page(
        report=report,
        warning=legend.warning(experiment.config.title, experiment.config.scale),
        details=experiment_details(report),
        forest=charts.forest(report.comparisons) if report.comparisons else None,
        claims=claim_groups(report.ledger),
        tables=[
            table_view(table, report.metrics[name], report.ledger.by_locator) for name, table in report.tables.items()
        ],
        scatters=_scatters(report),
        curves=_curves(report),
        gallery=read_gallery(
            report.pictures,
            picture_index(experiment).parent,
            report.runs,
            f"hafabench pictures --experiment {experiment.file}",
        ),
        costs=_costs(report.costs) if report.costs else None,
        records=record_lines(report.frame),
    )


def render(page: Page) -> str:
    """The page as one HTML file; the same page gives the same bytes."""
    loader = PackageLoader("hafabench.reporting.html", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, _, _ = loader.get_source(environment, "style.css")
    sizes = {"chart_width": charts.WIDTH, "chart_height": charts.HEIGHT}
    template = environment.get_template("report.html.j2")
    return template.render(
        page=page, report=page.report, style=Markup(style), no_comparison=legend.NO_COMPARISON, **sizes
    )


def _scatters(report: Report) -> list[tuple[str, list[charts.Chart]]]:
    """For each task, the headline metric against parameters, multiply-accumulates and each latency measurement."""
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
        for group in report.experiment.config.latency
    ]
    found: list[tuple[str, list[charts.Chart]]] = []
    for task in TASKS:
        panels = []
        for title, cost, source, factor, x_label in [*costs, *latencies]:
            points = headline_points(report.frame, task, cost, source)
            if points:
                labels = {"x_label": x_label, "y_label": main_metric(task).label}
                panels.append(charts.scatter(title, points, report.experiment.models, factor=factor, **labels))
        if panels:
            found.append((task, panels))
    return found


def _curves(report: Report) -> list[charts.Chart]:
    """For each task, the learning curves of its models."""
    by_task: dict[str, dict[str, list[Curve]]] = {}
    for run_id, curve in report.curves.items():
        run = report.runs[run_id]
        by_task.setdefault(run.task, {}).setdefault(run.model.name, []).append(curve)
    # A model has the same colour in all panels.
    colours = {name: i for i, name in enumerate(dict.fromkeys(n for of_task in by_task.values() for n in of_task))}
    return [charts.curves(task, of_task, colours) for task, of_task in by_task.items()]


def _costs(record: AccountingRecord) -> Costs:
    summary = (
        f"{record.gpu_hours:,.1f} GPU-hours over all attempts and requeues, by {record.backend}, {record.updated}. "
        "Empty fields are not known to Slurm. Use is a share of the allocated time."
    )
    return Costs(summary, COLUMNS, cost_rows(record))
