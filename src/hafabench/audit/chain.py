"""Walks the chain experiment, data, checkpoint, predictions, record, frame, table, report, baseline.

Every link is checked by the function that the other commands check it with when they read it. Files that are not on
this machine are not checked: records alone, without data and weights, are a valid experiment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from hafabench.config.experiment import Experiment
from hafabench.errors import Problem, UserError
from hafabench.regression.baseline import baseline_findings
from hafabench.regression.records import record_paths
from hafabench.reporting import csv, latex, markdown
from hafabench.reporting.frame import empty_frame, frame_findings, frame_of_usable
from hafabench.reporting.html.page import page_file, page_findings
from hafabench.reporting.records import RecordCheck
from hafabench.reporting.report import build_report, current_counts
from hafabench.results.checks import prediction_findings, record_findings
from hafabench.results.findings import Finding, Link, LinkCheck
from hafabench.results.place import place_of
from hafabench.results.record import Record, read_record
from hafabench.runs.paths import CONFIGURATION, counts_record, dataset_report, frame_files
from hafabench.runs.run import expand
from hafabench.runs.state import edited_values, run_state

Progress = Callable[[str], None]
_ABSENT = "not on this machine"
_ADVICE = "`hafabench report` makes it again"


def audit(
    experiment: Experiment, baseline: Path | None = None, progress: Progress = lambda _text: None
) -> Iterator[LinkCheck]:
    """Check every link of the chain, in its order. All files of data, weights and records are read.

    Args:
        experiment: A checked experiment.
        baseline: The folder that the regression gate compares with; None checks none.
        progress: Receives a clause before each step that may take long.
    """
    yield _of_experiment(experiment, progress)
    yield _of_data(experiment, progress)
    yield _of_checkpoints(experiment, progress)
    for check in audit_records(experiment, progress):
        # The checkpoints were compared with the records before, and with more.
        if check.link != "checkpoint":
            yield check
    yield from _of_report(experiment, progress)
    if baseline is not None:
        yield _of_baseline(baseline, progress)


def audit_records(experiment: Experiment, progress: Progress = lambda _text: None) -> Iterator[LinkCheck]:
    """Check the records against the files that they were made from, and the frame against the records.

    This is the part of the audit that a report contains. A checkpoint whose size and time of change are those of its
    last reading is not read again.

    Args:
        experiment: A checked experiment.
        progress: Receives a clause before each step that may take long.
    """
    progress("reading records and predictions")
    check = RecordCheck(experiment)
    problems: list[Finding] = []
    try:
        frame = frame_of_usable(check)
    except UserError as error:
        problems = [_of_problem("record", problem, experiment.results) for problem in error.problems]
        frame = empty_frame()
    found = [*check.findings, *check.incomplete, *problems]
    things: dict[Link, str] = {"checkpoint": "evaluated checkpoints", "predictions": "predictions"}
    for link, name in things.items():
        own = tuple(finding for finding in found if finding.link == link)
        yield LinkCheck(link, name, check.compared[link], check.absent[link], _ABSENT, own)
    own = tuple(finding for finding in found if finding.link == "record")
    counts = _of_counts(experiment, frame)
    own += tuple(counts or ())
    lost = [path for path in check.missing if not path.exists()]
    number = len(check.files) + (counts is not None)
    yield LinkCheck("record", "records", number, len(lost), "they do not exist", own)
    yield _of_frame(experiment, frame, lost)


def _of_counts(experiment: Experiment, frame: pd.DataFrame) -> list[Finding] | None:
    """Compare the record of counts, on which static claims are settled, with the complexity records.

    Returns:
        The findings; None if there is no such record.
    """
    file = counts_record(experiment)
    if not file.exists():
        return None
    try:
        counts = current_counts(experiment)
    except UserError as error:
        return [_of_problem("record", problem, file) for problem in error.problems]
    measured = frame[(frame["verb"] == "complexity") & (frame["origin"] == "measured")]
    keys = zip(measured["task"], measured["model"], measured["name"], strict=True)
    known = dict(zip(keys, measured["value"], strict=True))
    findings = []
    for counted in counts.models if counts is not None else []:
        own: dict[str, float] = {"params": counted.amounts.params}
        if counted.amounts.operations:
            own["gmacs"] = counted.amounts.macs / 1e9
        for name, number in own.items() if counted.build is None else ():
            other = known.get((counted.task, counted.model, name), number)
            if not math.isclose(number, other, rel_tol=1e-9):
                what = f"{name} of {counted.model} ({counted.task}) is {number:.10g}"
                message = f"{what}, but {other:.10g} in the complexity record; `hafabench count` makes it again"
                findings.append(Finding("record", str(file), message))
    return findings


def _of_experiment(experiment: Experiment, progress: Progress) -> LinkCheck:
    progress("reading the states of runs")
    findings, begun, runs = [], 0, expand(experiment)
    for run in runs.values():
        state = run_state(run)
        begun += state.state != "missing"
        if state.state == "stale":
            message = (
                f"the files of {run.id} were not made under the present configuration: {'; '.join(state.changes)}; "
                "the workflow makes them again"
            )
            findings.append(Finding("experiment", str(run.folder), message))
        if edited := edited_values(run):
            message = f"the file was edited after it was written: {'; '.join(edited)}; restore the file from a copy"
            findings.append(Finding("experiment", str(run.folder / CONFIGURATION), message))
    return LinkCheck("experiment", "runs", begun, len(runs) - begun, "they have not begun", tuple(findings))


def _of_data(experiment: Experiment, progress: Progress) -> LinkCheck:
    from hafabench.data.report import data_findings

    findings: list[Finding] = []
    checked = unchecked = 0
    for task, dataset in experiment.config.datasets.items():
        progress(f"reading the {task} data")
        found = data_findings(dataset, dataset_report(experiment, task))
        findings += found or []
        checked += found is not None
        unchecked += found is None
    return LinkCheck("data", "data sets", checked, unchecked, _ABSENT, tuple(findings))


def _of_checkpoints(experiment: Experiment, progress: Progress) -> LinkCheck:
    # Importing torch takes seconds, and a report needs none.
    from hafabench.engines.trained import checkpoint_findings

    findings: list[Finding] = []
    checked = unchecked = 0
    runs = expand(experiment)
    for number, run in enumerate(runs.values(), start=1):
        if not run.checkpoint.exists():
            unchecked += run.record.exists()
            continue
        progress(f"reading checkpoint {number} of {len(runs)}")
        findings += checkpoint_findings(run, _readable(run.record)) or []
        checked += 1
    return LinkCheck("checkpoint", "final checkpoints", checked, unchecked, _ABSENT, tuple(findings))


def _readable(path: Path) -> Record | None:
    """Return a record; None if it cannot be read, which the check of the records reports."""
    try:
        return read_record(path) if path.exists() else None
    except UserError:
        return None


def _of_frame(experiment: Experiment, collected: pd.DataFrame, lost: list[Path]) -> LinkCheck:
    places = (place_of(path, experiment.results) for path in lost)
    unknown = {place.id for place in places if place is not None}
    findings: list[Finding] = []
    checked = 0
    for file in frame_files(experiment):
        found = frame_findings(file, collected, unknown)
        checked += found is not None
        findings += found or []
    return LinkCheck("frame", "frames", checked, 0 if checked else 1, "not collected yet", tuple(findings))


def _of_report(experiment: Experiment, progress: Progress) -> Iterator[LinkCheck]:
    progress("comparing the tables with the frame")
    folder = experiment.reports
    try:
        report = build_report(experiment, partial=True)
        texts = markdown.files(report) | latex.files(report) | csv.files(report)
    except UserError as error:
        why = str(error.problems[0]) if error.problems else "there is no frame"
        yield LinkCheck("table", "tables", 0, 1, why)
        yield LinkCheck("report", "pages", 0, 1, why)
        return
    found: dict[Link, list[Finding]] = {"table": [], "report": []}
    checked: dict[Link, int] = {"table": 0, "report": 0}
    for path, text in texts.items():
        link: Link = "table" if path.parent != folder else "report"
        if not path.exists():
            continue
        checked[link] += 1
        message = _difference(path, text)
        if message:
            message = f"it is out of date, was edited, or was written by another version: {message}; {_ADVICE}"
            found[link].append(Finding(link, str(path), message))
    page = page_findings(page_file(report))
    found["report"] += page or []
    checked["report"] += page is not None
    things: dict[Link, str] = {"table": "table files", "report": "pages"}
    for link, thing in things.items():
        number = checked[link]
        yield LinkCheck(link, thing, number, 0 if number else 1, "not written yet", tuple(found[link]))


def _difference(path: Path, expected: str) -> str:
    """Return how a file of the report differs from what the frame gives, as a clause; empty if it does not."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    own, other = (markdown.without_audit(one).splitlines() for one in (expected, text))
    if own == other:
        return ""
    for number, (mine, found) in enumerate(zip(own, other, strict=False), start=1):
        if mine != found:
            return f"line {number} is not what the frame gives: expected {_cut(mine)}, found {_cut(found)}"
    return f"expected {len(own)} lines, as the frame gives, found {len(other)}"


def _cut(line: str) -> str:
    return repr(line if len(line) <= 120 else f"{line[:120]}...")


def _of_baseline(folder: Path, progress: Progress) -> LinkCheck:
    progress("reading the baseline")
    findings = baseline_findings(folder) or []
    paths = list(record_paths(folder))
    for path in paths:
        try:
            record = read_record(path)
        except UserError as error:
            findings += [_of_problem("baseline", problem, path) for problem in error.problems]
            continue
        place = place_of(path, folder)
        own = record_findings(path, record, place) if place is not None else []
        own = own or prediction_findings(path, record) or []
        advice = "restore the baseline from version control, or replace it with `hafabench regress --update`"
        findings += [replace(one, link="baseline", says=f"{one.says.rpartition('; ')[0]}; {advice}") for one in own]
    return LinkCheck("baseline", "records", len(paths), 0 if paths else 1, "there is no baseline", tuple(findings))


def _of_problem(link: Link, problem: Problem | str, path: Path) -> Finding:
    if isinstance(problem, str):
        return Finding(link, str(path), problem)
    return Finding(link, problem.file, problem.message, problem.key)
