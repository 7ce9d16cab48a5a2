"""Everything that is generated from an experiment's frame: tables, comparisons, claims and figures."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hafabench.config.experiment import Experiment
from hafabench.files import write_text
from hafabench.reporting import comparison_text
from hafabench.reporting.claims.write import write_claims
from hafabench.reporting.comparison_figure import draw_comparisons
from hafabench.reporting.comparisons import comparisons, uncompared
from hafabench.reporting.figures import accuracy_vs_complexity, learning_curves
from hafabench.reporting.frame import read_frame
from hafabench.reporting.write import write_tables
from hafabench.runs.run import expand


def write_report(experiment: Experiment) -> list[Path]:
    """Write the experiment's tables, comparisons, claims and figures from its collected frame.

    Returns:
        The files written, all under the experiment's reports folder.

    Raises:
        UserError: without a frame, or where a table or figure cannot be made.
    """
    frame = read_frame(experiment.results / "frame.parquet")
    written = write_tables(
        experiment.table_layouts,
        frame,
        experiment.paper_values,
        experiment.reports / "tables",
        experiment=experiment.name,
        title=experiment.config.title,
        scale=experiment.config.scale,
    )
    figures = experiment.reports / "figures"
    histories = {run.id: run.history for run in expand(experiment).values() if run.history.is_file()}
    curves, complexity = figures / "learning_curves.svg", figures / "accuracy_vs_complexity.svg"
    learning_curves(histories, curves)
    accuracy_vs_complexity(frame, complexity, experiment.models)
    return [*written, curves, complexity, *_write_comparisons(experiment, frame), *write_claims(experiment, frame)]


def _write_comparisons(experiment: Experiment, frame: pd.DataFrame) -> list[Path]:
    found, left = comparisons(experiment, frame), uncompared(experiment, frame)
    scale = experiment.config.scale
    page = experiment.reports / "comparisons.md"
    table, figure = page.with_suffix(".csv"), experiment.reports / "figures" / "comparisons.svg"
    text = comparison_text.page(found, left, experiment=experiment.name, title=experiment.config.title, scale=scale)
    write_text(page, text)
    write_text(table, comparison_text.render_csv(found, experiment=experiment.name, scale=scale))
    draw_comparisons(found, figure, experiment=experiment.name, scale=scale)
    return [page, table, figure]
