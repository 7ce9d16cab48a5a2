"""Writing the tables of an experiment in all their formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hafabench.config.paper_values import load_paper_values
from hafabench.config.tables import TableLayout
from hafabench.files import write_text
from hafabench.reporting import csv as cells_csv
from hafabench.reporting import latex, markdown
from hafabench.reporting.tables import build_table


def write_tables(
    layouts: Sequence[TableLayout],
    frame: pd.DataFrame,
    paper_values: Path,
    folder: Path,
    *,
    experiment: str,
    title: str,
    scale: str,
) -> list[Path]:
    """Write each table as ``folder/<id>.{md,tex,csv}``, all as ``folder/../tables.md`` and ``folder/../paper.tex``.

    Nothing is written where any table cannot be made; the same input gives the same bytes.

    Args:
        layouts: the tables.
        frame: of `hafabench.reporting.frame`.
        paper_values: the paper's values (CSV).
        folder: of the tables.
        experiment, title, scale: of the experiment that the frame has to be of.

    Returns:
        The files written.

    Raises:
        UserError: as `build_table` and `load_paper_values`, or where a file cannot be written.
    """
    about = {"experiment": experiment, "title": title, "scale": scale}
    paper = load_paper_values(paper_values)
    tables = [build_table(layout, frame, paper, **about) for layout in layouts]
    texts: dict[Path, str] = {}
    for table in tables:
        texts[folder / f"{table.id}.md"] = markdown.render(table)
        texts[folder / f"{table.id}.tex"] = latex.render(table)
        texts[folder / f"{table.id}.csv"] = cells_csv.render(table)
    texts[folder.parent / "paper.tex"] = latex.document(tables, **about)
    texts[folder.parent / "tables.md"] = markdown.overview(tables, **about)
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)
