"""The report as one HTML file."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hafabench import __version__
from hafabench.cluster.costs import COLUMNS, AccountingRecord, cost_rows
from hafabench.formatting.text import printable
from hafabench.reporting import legend, merger_facts
from hafabench.reporting.comparisons import COMPARISON_HEADER, how_to_read
from hafabench.reporting.html.claims import ClaimGroup, claim_groups
from hafabench.reporting.html.gallery import Gallery, read_gallery
from hafabench.reporting.html.overview import RecordLine, experiment_details, record_lines
from hafabench.reporting.html.tables import Details, TableView, table_view
from hafabench.reporting.report import Report
from hafabench.reporting.trained_sizes import HEADER, SIZES_NOTE
from hafabench.results.findings import Finding
from hafabench.runs.jobs import hafabench_command
from hafabench.runs.paths import picture_index
from hafabench.runs.snakemake import workflow_command
from hafabench.runs.state import MADE_FROM

# A page contains the SHA-256 of itself with zeros in the place of its digits.
_NO_DIGEST = "0" * 64
_DIGEST = re.compile(r'<meta name="sha256" content="([0-9a-f]{64})">')


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
    claims: list[ClaimGroup]
    tables: list[TableView]
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


def page_file(report: Report) -> Path:
    """Return the path of the page."""
    return report.experiment.reports / "report.html"


def files(report: Report) -> dict[Path, str]:
    """Return the page, by its path."""
    return {page_file(report): render(build_page(report))}


def page_findings(file: Path) -> list[Finding] | None:
    """Compare a written page with the SHA-256 that it contains.

    Returns:
        A finding if it was edited; None if there is no page, or if an earlier version wrote it.
    """
    if not file.is_file():
        return None
    try:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        return [Finding("report", str(file), f"it cannot be read: {error.strerror}")]
    found = _DIGEST.search(text)
    if found is None:
        return None
    if found[1] == _digest(text.replace(found[1], _NO_DIGEST, 1)):
        return []
    return [Finding("report", str(file), "it was edited after it was written; `hafabench report` makes it again")]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def build_page(report: Report) -> Page:
    """Arrange a report in the sections of the page.

    Raises:
        UserError: If a part of the report cannot be built, or if a picture differs from the one that was indexed.
    """
    experiment = report.experiment
    return Page(
        report=report,
        warning=report.warning,
        details=experiment_details(report),
        claims=claim_groups(report.ledger),
        tables=[
            table_view(table, report.metrics[name], report.ledger.by_locator) for name, table in report.tables.items()
        ],
        gallery=read_gallery(
            report.pictures,
            picture_index(experiment).parent,
            report.runs,
            hafabench_command(experiment, "pictures"),
        ),
        costs=_costs(report.costs) if report.costs else None,
        records=record_lines(report.frame),
    )


def render(page: Page) -> str:
    """Return the page as one HTML file; the same page gives the same bytes."""
    loader = PackageLoader("hafabench.reporting.html", "templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, _, _ = loader.get_source(environment, "style.css")
    text = environment.get_template("report.html.j2").render(
        page=page,
        digest=_NO_DIGEST,
        report=page.report,
        made_from=MADE_FROM,
        style=Markup(style),
        command=partial(hafabench_command, page.report.experiment),
        whole_workflow=workflow_command(page.report.experiment),
        no_comparison=legend.NO_COMPARISON,
        comparison_header=COMPARISON_HEADER,
        how_to_read=how_to_read(len(page.report.comparisons)),
        sizes_header=HEADER,
        sizes_note=SIZES_NOTE,
        mergers_header=merger_facts.HEADER,
        mergers_note=merger_facts.NOTE,
    )
    return text.replace(_NO_DIGEST, _digest(text), 1)


def _visible(value: Any) -> Any:
    """Return a text in which control characters are visible; HTML allows none of them."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _costs(record: AccountingRecord) -> Costs:
    summary = (
        f"{record.gpu_hours:,.1f} GPU-hours over all attempts and requeues, by {record.backend}, {record.updated}. "
        "Slurm reports no value for empty fields. Use is a share of the allocated time."
    )
    return Costs(summary, COLUMNS, cost_rows(record))
