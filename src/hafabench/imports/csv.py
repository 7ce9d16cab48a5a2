"""CSV files with one metric per line; docs/imports.md describes the columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hafabench.config.base import shown
from hafabench.config.bounds import MAX_IMPORTED_SEED
from hafabench.config.catalog import ModelSpec
from hafabench.config.recipes import TASKS
from hafabench.config.text_file import parse_number, read_csv_table
from hafabench.errors import Problem, UserError
from hafabench.imports.imported import Import, ImportedMetric, metric_in_record_unit, resolve_model

REQUIRED = ("task", "model", "metric", "value", "unit")
OPTIONAL = ("seed", "epoch", "device", "commit", "note")
_SEED_DIGITS = len(str(MAX_IMPORTED_SEED))


def read_csv(file: Path, models: Mapping[str, ModelSpec]) -> Import:
    """Read every metric of the file.

    Raises:
        UserError: With every problem at once: wrong columns, unknown tasks, models, metrics or units, texts in place
            of numbers, and numbers that are not finite or out of range.
    """
    table = read_csv_table(file)
    header, rows = table.header, table.rows
    problems: list[Problem | str] = _header_problems(file, header)
    if not problems and not rows:
        problems.append(Problem(str(file), "", "no line below the header"))
    if problems:
        raise UserError(problems)
    metrics = []
    for number, fields in rows:
        if len(fields) != len(header):
            message = f"expected {len(header)} fields, found {len(fields)}"
            hint = "; is a comma used as decimal point?" if len(fields) > len(header) else ""
            problems.append(Problem(str(file), "", message + hint, number))
            continue
        try:
            metrics.append(_imported_metric(dict(zip(header, fields, strict=True)), number, models))
        except UserError as error:
            problems += [Problem(str(file), "", str(problem), number) for problem in error.problems]
    if problems:
        raise UserError(problems)
    return Import("csv", file, tuple(metrics))


def _header_problems(file: Path, header: Sequence[str]) -> list[Problem | str]:
    missing = [name for name in REQUIRED if name not in header]
    unknown = [name for name in header if name not in (*REQUIRED, *OPTIONAL)]
    twice = sorted({name for name in header if header.count(name) > 1})
    clauses = [f"no column {', '.join(missing)}"] if missing else []
    clauses += [f"unknown column {', '.join(map(shown, unknown[:10]))}"] if unknown else []
    clauses += [f"column {', '.join(twice)} twice"] if twice else []
    if not clauses:
        return []
    expected = f"expected {', '.join(REQUIRED)} and optionally {', '.join(OPTIONAL)}"
    return [Problem(str(file), "", f"{'; '.join(clauses)}; {expected}", 1)]


def _imported_metric(row: Mapping[str, str], number: int, models: Mapping[str, ModelSpec]) -> ImportedMetric:
    row = {name: value.strip() for name, value in row.items()}
    problems: list[Problem | str] = []
    task = next((task for task in TASKS if task == row["task"]), None)
    if task is None:
        problems.append(f"unknown task {shown(row['task'])}; expected one of {', '.join(TASKS)}")
    model, seed, value = row["model"], None, None
    try:
        model = resolve_model(model, models)
    except UserError as error:
        problems += error.problems
    if row.get("seed"):
        if not re.fullmatch("[0-9]+", row["seed"]):
            problems.append(f"expected a whole number or nothing as seed, found {shown(row['seed'])}")
        elif len(row["seed"].lstrip("0")) > _SEED_DIGITS or int(row["seed"]) > MAX_IMPORTED_SEED:
            problems.append(f"expected a seed of at most {MAX_IMPORTED_SEED}, found {shown(row['seed'])}")
        else:
            seed = int(row["seed"])
    try:
        value = parse_number(row["value"])
    except ValueError as error:
        problems.append(f"value: {error}")
    metric = None
    if task is not None and value is not None:
        convention = row.get("note") or None
        try:
            metric = metric_in_record_unit(
                task, model, seed, row["metric"], value, row["unit"], convention=convention
            )
        except UserError as error:
            problems += error.problems
    if problems or metric is None:
        raise UserError(problems)
    epoch = f", epoch {row['epoch']}" if row.get("epoch") else ""
    return ImportedMetric(
        metric, f"line {number}{epoch}", number, device=row.get("device") or None, commit=row.get("commit") or None
    )
