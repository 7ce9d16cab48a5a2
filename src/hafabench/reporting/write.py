"""Writes all files of a report."""

from __future__ import annotations

from pathlib import Path

from hafabench.cluster.costs import write_costs
from hafabench.files import write_text
from hafabench.reporting import csv, latex, markdown
from hafabench.reporting.charts.report_charts import figure_files
from hafabench.reporting.html import page
from hafabench.reporting.report import Report


def write_report(report: Report) -> list[Path]:
    """Write tables, comparisons, claims, costs, the HTML page and figures into the experiment's reports folder.

    All texts are rendered before the first one is written. The same report gives the same bytes.

    Returns:
        The files written.

    Raises:
        UserError: If a part of the report cannot be built or a file cannot be written.
    """
    files = markdown.files(report) | latex.files(report) | csv.files(report) | page.files(report)
    files |= figure_files(report.experiment, report.charts, report.shown_scale)
    for path, text in files.items():
        write_text(path, text)
    costs = write_costs(report.costs, report.experiment.reports) if report.costs else []
    return [*files, *costs]
