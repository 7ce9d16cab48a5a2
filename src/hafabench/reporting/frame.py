"""The frame: all records of an experiment as one pandas table, one row per metric, with its provenance.

Tables, figures and comparisons are built from the frame alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hafabench.config.experiment import Experiment
from hafabench.errors import Problem, UserError
from hafabench.files import atomic_path, sha256_of
from hafabench.formatting.csv import csv_text, text_of_csv
from hafabench.formatting.text import one_line
from hafabench.reporting.records import RecordCheck
from hafabench.results.digest import DIGEST
from hafabench.results.findings import Finding
from hafabench.results.record import Record, read_record
from hafabench.runs.fingerprints import imported_fingerprint
from hafabench.runs.jobs import JobList, job_id
from hafabench.runs.state import JobState

# All types are nullable: an unknown seed is a missing integer, not a float. This also holds for a frame without rows.
DTYPES: dict[str, str] = {
    "experiment": "string",
    "scale": "string",
    "origin": "string",
    "verb": "string",
    "id": "string",
    "task": "string",
    "model": "string",
    "seed": "Int64",
    "name": "string",
    "value": "Float64",
    "unit": "string",
    "low": "Float64",
    "high": "Float64",
    "repeats": "Int64",
    "convention": "string",
    "fingerprint": "string",
    "git_commit": "string",
    "git_dirty": "boolean",
    "experiment_tracked": "boolean",
    "version": "string",
    "device": "string",
    "threads": "Int64",
    "host": "string",
    "started": "string",
    "duration_s": "Float64",
    "peak_memory_mb": "Float64",
    "checkpoint_sha256": "string",
    "dataset_digest": "string",
    "listing_digest": "string",
    "training_listing_digest": "string",
    "training_seconds": "Float64",
    "training_steps": "Int64",
    "starting_weights": "string",
    "trained_params": "Int64",
    "mergers": "string",
    "record": "string",
    "record_sha256": "string",
}

_CODE = ("git_commit", "git_dirty", "experiment_tracked")
# The names of rows that are no metrics: the training of a run collapsed, or it did not begin because that of its
# starting weights collapsed. Their value is the optimiser step, and their convention describes the outcome.
COLLAPSED, NOT_BEGUN = "collapsed", "not_begun"

# The rule that makes the records of a verb, and what precedes its subject in the ids of the records.
_MEASURED_BY = {
    "evaluate": ("evaluate_run", ""),
    "complexity": ("count_complexity", "complexity/"),
    "latency": ("measure_latency", "latency/"),
}
_COLLECTED_BEFORE = "stale: its record has changed since it was collected; `hafabench collect` reads it again"
_PROVENANCE = (*_CODE, "device", "threads", "host", "started", "duration_s", "peak_memory_mb")
# Columns that frames of earlier versions do not have; their values are unknown.
_ADDED = {
    *("experiment_tracked", "version", "starting_weights", "listing_digest", "training_listing_digest"),
    *("record_sha256", "trained_params", "mergers"),
}
_ORDER = ["experiment", "verb", "id", "task", "model", "seed", "name"]


def collect(paths: Iterable[Path]) -> pd.DataFrame:
    """Return the frame of the given record files, see `make_frame`, with the SHA-256 of each file.

    Raises:
        UserError: If records cannot be read; all problems are listed at once. Other errors as in `make_frame`.
    """
    problems: list[Problem | str] = []

    # Records are not kept after they are read: keeping thousands of them slows down the garbage collector.
    def readable() -> Iterator[tuple[Path, Record]]:
        for path in paths:
            try:
                yield path, read_record(path)
            except UserError as error:
                problems.extend(error.problems)

    return _with_digests(make_frame(readable(), problems))


def _with_digests(frame: pd.DataFrame) -> pd.DataFrame:
    digests = {path: sha256_of(Path(path)) for path in frame["record"].unique()}
    column = pd.Series([digests[path] for path in frame["record"]], dtype=DTYPES["record_sha256"])
    return frame.assign(record_sha256=column)


def make_frame(records: Iterable[tuple[Path, Record]], problems: list[Problem | str] | None = None) -> pd.DataFrame:
    """Return the frame of the given records: one row per metric, or one row for a training that collapsed.

    Args:
        records: The records with their files, in any order.
        problems: Problems found before or while the records are read; they are raised with those of the frame.

    Returns:
        A frame with the columns and types of `DTYPES` (also without rows), sorted by experiment, verb, id, task,
        model, seed and name.

    Raises:
        UserError: If there are problems, if the records have two scales, if a metric is given twice (an imported one
            without a seed conflicts with all seeds), or if a value is not finite.
    """
    rows: list[dict[str, Any]] = []
    scales: dict[str, Path] = {}
    problems = [] if problems is None else problems
    for path, record in records:
        scales.setdefault(record.scale, path)
        problems += _not_finite(path, record)
        rows += _rows(path, record)
    problems += _two_scales(scales)
    if problems:
        raise UserError(problems)
    columns = {name: [row[name] for row in rows] for name in DTYPES}
    frame = pd.DataFrame({name: pd.Series(columns[name], dtype=dtype) for name, dtype in DTYPES.items()})
    frame = frame.sort_values([*_ORDER, "record"], kind="stable", ignore_index=True)
    _refuse_duplicates(frame)
    _refuse_unknown_beside_known(frame)
    return frame


def empty_frame() -> pd.DataFrame:
    """Return a frame without rows."""
    return make_frame([])


def collect_experiment(
    experiment: Experiment, *, partial: bool = False, left_out: list[Finding] | None = None
) -> tuple[pd.DataFrame, list[Path]]:
    """Collect the records of an experiment and write the frame into its results folder.

    Args:
        experiment: The experiment.
        partial: Whether records that cannot be used are left out as if they were missing. The workflow makes a frame
            again that does not contain every record.
        left_out: If given, what is wrong with the records that are left out is added to this list.

    Returns:
        The frame, and the files of measured records that are missing or left out. Imported records are used if they
        exist.

    Raises:
        UserError: As in `collect`; also if a record cannot be used, see `RecordCheck`.
    """
    check = RecordCheck(experiment)
    frame = frame_of_usable(check)
    if check.findings and not partial:
        raise UserError([finding.as_problem() for finding in check.findings])
    if left_out is not None:
        left_out += check.findings
    write_frame(frame, experiment.results)
    return frame, check.missing


def leave_out_stale(
    frame: pd.DataFrame, jobs: JobList, states: Mapping[str, JobState]
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Leave out the rows of a frame that do not belong to the present experiment and its present records.

    The numbers of a record that was lost after it was collected are kept.

    Args:
        frame: A frame of the experiment.
        jobs: The jobs of the experiment.
        states: The states of the jobs, by id.

    Returns:
        The other rows, and the reasons as clauses, by the ids of the records that are left out.
    """
    left_out: dict[str, str] = {}
    records: list[str] = []
    columns = ["verb", "origin", "id", "task", "fingerprint", "record", "record_sha256"]
    rows: Iterable[Any] = frame.drop_duplicates("record")[columns].itertuples(index=False)
    for row in rows:
        reason = _why_left_out(row, jobs, states)
        if reason:
            left_out[row.id] = reason
            records.append(row.record)
    return frame[~frame["record"].isin(records)].reset_index(drop=True), left_out


def _why_left_out(row: Any, jobs: JobList, states: Mapping[str, JobState]) -> str:
    """The reason why the rows of a record are left out, as a clause; empty if they belong to the experiment."""
    if row.origin == "imported":
        has_place = row.verb == "complexity" or row.task in jobs.experiment.config.datasets
        if not has_place or row.fingerprint != imported_fingerprint(jobs.experiment, row.verb, row.task):
            return "stale: imported for other data or sizes"
    else:
        rule, prefix = _MEASURED_BY[row.verb]
        state = states.get(job_id(rule, row.id.removeprefix(prefix)))
        if state is None:
            return "not part of this experiment"
        # An evaluation is repeated if its checkpoint is made again. Its record is not wrong until then.
        if (state.outputs if state.run is None else state.run.state) == "stale":
            return state.stale_clause
        if row.fingerprint != state.job.fingerprint:
            return _COLLECTED_BEFORE if state.outputs == "done" else state.stale_clause
    path = Path(row.record)
    if pd.notna(row.record_sha256) and path.is_file() and sha256_of(path) != row.record_sha256:
        return _COLLECTED_BEFORE
    return ""


def frame_of_usable(check: RecordCheck) -> pd.DataFrame:
    """Return the frame of the records of an experiment that can be used; the check then contains the others.

    Raises:
        UserError: As in `make_frame`.
    """
    frame = _with_digests(make_frame(check.usable()))
    repeated = check.repeated()
    return frame[~frame["record"].isin(map(str, repeated))].reset_index(drop=True) if repeated else frame


def write_frame(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """Write ``frame.parquet`` and ``frame.csv`` into ``folder``, each atomically.

    The attributes of the Parquet file contain the SHA-256 of the content.
    """
    parquet, csv = folder / "frame.parquet", folder / "frame.csv"
    marked = frame.copy(deep=False)
    marked.attrs = {DIGEST: _content_digest(frame)}
    with atomic_path(parquet) as temporary, temporary.open("wb") as handle:
        marked.to_parquet(handle, index=False)
    with atomic_path(csv) as temporary:
        _texts_with(csv_text, frame).to_csv(temporary, index=False, lineterminator="\n")
    return [parquet, csv]


def _content_digest(frame: pd.DataFrame) -> str:
    return hashlib.sha256(frame.to_csv(index=False, lineterminator="\n").encode(errors="surrogatepass")).hexdigest()


def read_frame(path: Path) -> pd.DataFrame:
    """Read a frame from its Parquet or CSV file; it is equal to the frame that was written.

    Raises:
        UserError: If the file is missing, cannot be read, has other columns, or was edited after it was written.
    """
    if not path.is_file():
        raise UserError(Problem(str(path), "", "no such frame; `hafabench collect` makes it from the records"))
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
            # Attributes would be copied by every operation.
            expected, frame.attrs = frame.attrs.get(DIGEST), {}
            if expected is not None and expected != _content_digest(frame):
                message = "the frame was edited after it was written; `hafabench collect` makes it again"
                raise UserError(Problem(str(path), "", message))
        else:
            # Only an empty field is missing, because a model may be called "NA". If numbers were read as nullable
            # floats, they would lose their last bit in spite of float_precision.
            dtypes = {name: "float64" if dtype == "Float64" else dtype for name, dtype in DTYPES.items()}
            frame = pd.read_csv(
                path, dtype=dtypes, na_values=[""], keep_default_na=False, float_precision="round_trip"
            )
            frame = _texts_with(text_of_csv, frame)
    except (ValueError, OSError) as error:  # pyarrow's and pandas' parser errors are both of these
        raise UserError(Problem(str(path), "", f"not a readable frame: {_first_line(error)}")) from None
    if set(DTYPES) - set(frame.columns) <= _ADDED and set(frame.columns) <= set(DTYPES):
        frame = frame.reindex(columns=list(DTYPES))
    if list(frame.columns) != list(DTYPES):
        unlike = sorted(set(frame.columns) ^ set(DTYPES))
        message = f"not a frame of this version (columns differ: {', '.join(unlike) or 'their order'})"
        raise UserError(Problem(str(path), "", f"{message}; `hafabench collect` makes it again"))
    try:
        return frame.astype(DTYPES)
    except (ValueError, TypeError) as error:
        raise UserError(Problem(str(path), "", f"not a frame of this version: {_first_line(error)}")) from None


def frame_findings(file: Path, collected: pd.DataFrame, unknown: Collection[str]) -> list[Finding] | None:
    """Compare a stored frame with the records.

    Args:
        file: The Parquet or CSV file of the frame.
        collected: The frame of the present records that can be used.
        unknown: The ids of measured records that are not on this machine; their rows cannot be compared.

    Returns:
        One finding for each record that the frame does not have as it is; None if there is no such file.
    """
    if not file.exists():
        return None
    try:
        stored = read_frame(file)
    except UserError as error:
        return [Finding("frame", str(file), getattr(problem, "message", str(problem))) for problem in error.problems]
    # The path depends on the folder from which the command was called.
    columns = [name for name in DTYPES if name != "record"]
    columns = [name for name in columns if name not in _ADDED or stored[name].notna().any()]
    own, other = _rows_by_record(collected, columns), _rows_by_record(stored, columns)
    findings = []
    for key in sorted(own.keys() | other.keys()):
        (_, origin, identifier), before, now = key, other.get(key), own.get(key)
        if before == now or (now is None and origin == "measured" and identifier in unknown):
            continue
        if before is None:
            message = f"it lacks the record of {identifier}"
        elif now is None:
            message = f"it contains numbers of {identifier}, which has no record that can be used"
        else:
            message = f"its numbers of {identifier} are not those of the record: {_first_difference(before, now)}"
        findings.append(Finding("frame", str(file), f"{message}; `hafabench collect` makes it again", identifier))
    return findings


_RecordKey = tuple[str, str, str]
_RecordRows = dict[str, dict[str, Any]]


def _rows_by_record(frame: pd.DataFrame, columns: list[str]) -> dict[_RecordKey, _RecordRows]:
    """Return the rows of each record, by the metric with its model, task and seed; missing values are None."""
    plain = frame[columns].astype(object)
    found: dict[_RecordKey, _RecordRows] = {}
    for row in plain.where(plain.notna(), None).to_dict("records"):
        name = f"{row['name']} of {row['model']}" + (f", seed {row['seed']}" if row["seed"] is not None else "")
        rows = found.setdefault((row["verb"], row["origin"], row["id"]), {})
        while name in rows:
            name += " (again)"
        rows[name] = {str(column): value for column, value in row.items()}
    return found


def _first_difference(before: _RecordRows, now: _RecordRows) -> str:
    for name in [*now, *(name for name in before if name not in now)]:
        if name not in before:
            return f"{name} is missing"
        if name not in now:
            return f"{name} is not in the record"
        for column, value in now[name].items():
            if before[name][column] != value:
                return f"{column} of {name} is {before[name][column]!r} instead of {value!r}"
    return "their order"


def _texts_with(change: Callable[[str], str], frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with every text changed."""
    texts = frame.select_dtypes(["object", "string"])
    return frame.assign(**{str(name): column.map(change, na_action="ignore") for name, column in texts.items()})


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _rows(path: Path, record: Record) -> list[dict[str, Any]]:
    provenance = record.provenance
    training = record.training or {}
    shared = {
        "experiment": record.experiment,
        "scale": record.scale,
        "origin": record.origin,
        "verb": record.verb,
        "id": record.id,
        "fingerprint": record.fingerprint,
        **{name: getattr(provenance, name) for name in _PROVENANCE},
        "version": provenance.packages.get("hafabench"),
        "checkpoint_sha256": provenance.checkpoint_sha256,
        "dataset_digest": provenance.dataset_digest,
        "listing_digest": provenance.listing_digest,
        "training_listing_digest": training.get("listing_digest"),
        "training_seconds": training.get("seconds"),
        "training_steps": training.get("steps"),
        "starting_weights": record.starting_weights.text if record.starting_weights else None,
        "trained_params": record.trained_params,
        "mergers": record.mergers.model_dump_json(exclude_none=True) if record.mergers else None,
        "record": str(path),
        "record_sha256": None,
    }
    if record.collapse is not None:
        task, model, seed = record.id.split("/")
        is_own = record.collapse.run == record.id
        outcome = {
            "task": task,
            "model": model,
            "seed": int(seed.removeprefix("seed")),
            "name": COLLAPSED if is_own else NOT_BEGUN,
            "value": float(record.collapse.step),
            "unit": "step",
            "convention": record.collapse.clause(record.id),
        }
        return [{**dict.fromkeys(DTYPES), **_on_one_line(shared), **outcome}]
    return [_on_one_line({**shared, **metric.model_dump()}) for metric in record.metrics]


def _on_one_line(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose texts are one line each, as pandas reads them back from CSV.

    CSV does not distinguish an empty text from a missing one, so neither does the frame.
    """
    return {name: (one_line(value) or None) if isinstance(value, str) else value for name, value in row.items()}


def _two_scales(scales: Mapping[str, Path]) -> list[Problem]:
    if len(scales) < 2:
        return []
    (one, first), (other, second) = sorted(scales.items())
    message = f"found {other!r}, but {one!r} in {first}: embedded and full-scale numbers are never collected together"
    return [Problem(str(second), "scale", message)]


def _not_finite(path: Path, record: Record) -> list[Problem]:
    return [
        Problem(str(path), f"metrics[{index}].value", f"{metric.name} of {metric.model} is {metric.value}")
        for index, metric in enumerate(record.metrics)
        if not math.isfinite(metric.value)
    ]


def _refuse_duplicates(frame: pd.DataFrame) -> None:
    problems = []
    for _, group in frame[frame.duplicated(_ORDER, keep=False)].groupby(_ORDER, dropna=False, sort=False):
        rows: list[Any] = list(group.itertuples())
        first, *others = rows
        for other in others:
            where = "the same record" if other.record == first.record else first.record
            message = f"{other.name} of {other.model} is given twice: also in {where}"
            problems.append(Problem(other.record, other.id, message))
    if problems:
        raise UserError(problems)


def _refuse_unknown_beside_known(frame: pd.DataFrame) -> None:
    """Refuse imported numbers of an unknown seed beside those of known seeds: they might be the same number."""
    problems = []
    imported = frame[frame["origin"] == "imported"]
    for _, group in imported.groupby(["experiment", "verb", "task", "model", "name"], sort=False):
        unknown, known = group[group["seed"].isna()], group[group["seed"].notna()]
        if len(unknown) and len(known):
            first: Any = next(known.itertuples())
            other: Any = next(unknown.itertuples())
            message = f"{other.name} of {other.model} is imported without a seed, but {first.record} has one"
            problems.append(Problem(other.record, other.id, f"{message}: delete one of them"))
    if problems:
        raise UserError(problems)
