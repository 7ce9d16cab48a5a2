"""A plain CSV of numbers from anywhere: one number a line, columns as docs/imports.md has them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from hafabench.config.catalog import ModelSpec
from hafabench.config.recipes import TASKS
from hafabench.errors import Problem, UserError
from hafabench.imports.imported import Import, Reading, in_record_unit, resolve_model

REQUIRED = ("task", "model", "metric", "value", "unit")
OPTIONAL = ("seed", "epoch", "device", "commit", "note")


def read_plain(file: Path, models: Mapping[str, ModelSpec]) -> Import:
    """Every number of the file.

    Raises:
        UserError: with every problem at once: other columns, unknown tasks, models, metrics or units, texts where
            numbers belong, numbers that are not finite or out of range. Nothing is read of such a file.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, strict=True)
            header, rows = reader.fieldnames or [], [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(Problem(str(file), "", f"cannot be read as CSV: {error}")) from None
    problems: list[Problem | str] = _wrong_header(file, header)
    if not problems and not rows:
        problems.append(Problem(str(file), "", "no line below the heading"))
    if problems:
        raise UserError(problems)
    readings = []
    for number, row in rows:
        if None in row or None in row.values():
            problems.append(Problem(str(file), "", f"expected {len(header)} fields", number))
            continue
        try:
            readings.append(_reading(row, number, models))
        except UserError as error:
            problems += [Problem(str(file), "", str(problem), number) for problem in error.problems]
    if problems:
        raise UserError(problems)
    return Import("csv", file, tuple(readings))


def _wrong_header(file: Path, header: list[str]) -> list[Problem | str]:
    missing = [name for name in REQUIRED if name not in header]
    unknown = [name for name in header if name not in (*REQUIRED, *OPTIONAL)]
    twice = sorted({name for name in header if header.count(name) > 1})
    clauses = [f"no column {', '.join(missing)}"] if missing else []
    clauses += [f"unknown column {', '.join(map(repr, unknown))}"] if unknown else []
    clauses += [f"column {', '.join(twice)} twice"] if twice else []
    if not clauses:
        return []
    expected = f"expected {', '.join(REQUIRED)} and, where known, {', '.join(OPTIONAL)}"
    return [Problem(str(file), "", f"{'; '.join(clauses)}; {expected}", 1)]


def _reading(row: Mapping[str, str], number: int, models: Mapping[str, ModelSpec]) -> Reading:
    row = {name: value.strip() for name, value in row.items()}
    problems: list[Problem | str] = []
    task, seed, value = row["task"], None, None
    if task not in TASKS:
        problems.append(f"unknown task {task!r}; expected one of {', '.join(TASKS)}")
    model = row["model"]
    try:
        model = resolve_model(model, models)
    except UserError as error:
        problems += error.problems
    if row.get("seed"):
        if row["seed"].isdecimal():
            seed = int(row["seed"])
        else:
            problems.append(f"expected a whole number or nothing as seed, found {row['seed']!r}")
    try:
        value = float(row["value"])
    except ValueError:
        problems.append(f"expected a number as value, found {row['value']!r}")
    held, unit = 0.0, ""
    if task in TASKS and value is not None:
        try:
            held, unit = in_record_unit(task, row["metric"], value, row["unit"])
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    epoch = f", epoch {row['epoch']}" if row.get("epoch") else ""
    return Reading(
        task,
        model,
        seed,
        row["metric"],
        held,
        unit,
        f"line {number}{epoch}",
        number,
        convention=row.get("note") or None,
        device=row.get("device") or None,
        commit=row.get("commit") or None,
    )
