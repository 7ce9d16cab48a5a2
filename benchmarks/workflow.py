"""Time of everything except training that a user waits for: imports, dry runs, second runs, tables."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from benchmarks.rows import Row
from hafabench.config.experiment import Experiment, load_experiment
from hafabench.files import write_text
from hafabench.reporting import csv, latex, markdown
from hafabench.reporting.frame import collect, read_frame, write_frame
from hafabench.reporting.report import Report
from hafabench.results.record import write_record
from hafabench.runs.run import expand
from hafabench.stats.intervals import Interval, median_interval
from tools.checkout import BIN, REPOSITORY, snakemake
from tools.synthetic_records import evaluation

PAPER, DIGITS = (REPOSITORY / "configs" / name for name in ("paper.yaml", "digits.yaml"))
RECORDS = 10_000
# The metrics that the evaluation of each task gives.
METRICS = {
    "classification": ("top1", "top5"),
    "segmentation": ("miou", "pixel_acc", "mean_acc"),
    "detection": tuple(
        f"{of}_{ap}" for of in ("box", "mask") for ap in ("ap", "ap50", "ap75", "ap_s", "ap_m", "ap_l")
    ),
}


def imports(quick: bool) -> Iterator[Row]:
    """Time whole processes, including the start of the interpreter."""
    for what, limit, command in (
        ("import hafabench", 0.3, [sys.executable, "-c", "import hafabench"]),
        ("hafabench --help", 0.5, [str(BIN / "hafabench"), "--help"]),
    ):
        seconds = _repeated(lambda command=command: _run(command), 5 if quick else 20)
        yield Row.of("imports", what, seconds, at_most=limit, unit="s")


def plans(quick: bool) -> Iterator[Row]:
    """Time dry runs of the paper's experiment, and of 10 and 100 times as many runs (by more seeds)."""
    for times, limit in ((1, 3.0), (10, None)) if quick else ((1, 3.0), (10, None), (100, None)):
        with TemporaryDirectory() as folder:
            experiment = enlarged(Path(folder), times)
            call = lambda folder=folder, experiment=experiment: _dry_run(Path(folder), experiment)  # noqa: E731
            seconds = _repeated(call, {1: 9, 10: 5, 100: 1}[times])
            jobs = expand(load_experiment(experiment))
        what = f"snakemake --dry-run of the paper's matrix x {times}"
        yield Row.of("plans", what, seconds, at_most=limit, unit="s", note=f"{len(jobs)} runs")
    yield Row.of("plans", "snakemake --dry-run of a Snakefile of one empty rule", _nothing_planned(quick), unit="s")


def second_run(quick: bool) -> Iterator[Row]:
    """Time a run that has nothing to do: every output of the embedded experiment exists as an empty file."""
    with TemporaryDirectory() as folder:
        workspace = Path(folder)
        listed = snakemake(workspace, DIGITS, "--summary", "all").stdout
        outputs = [line.split("\t")[0] for line in listed.splitlines() if "\t" in line][1:]
        for name in outputs:
            path = workspace / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        snakemake(workspace, DIGITS, "--touch", "all")
        done = snakemake(workspace, DIGITS, "all").stdout
        if "Nothing to be done" not in done:
            yield Row("second_run", "snakemake all with nothing to do", None, at_most=5.0, unit="s", note=done[-300:])
            return
        seconds = _repeated(lambda: snakemake(workspace, DIGITS, "all"), 3 if quick else 9)
    yield Row.of("second_run", "snakemake all with nothing to do", seconds, at_most=5.0, unit="s")


def records(quick: bool) -> Iterator[Row]:
    """Time making the frame and the six tables from records, for all records and for a tenth of them."""
    for number, limit in ((RECORDS // 10, None), (RECORDS, 5.0)):
        with TemporaryDirectory() as folder:
            experiment, paths = _results(Path(folder), number)

            def call(experiment: Experiment = experiment, paths: list[Path] = paths) -> None:
                folder = paths[0].parents[3]
                write_frame(collect(paths), folder)
                report = Report(experiment, read_frame(folder / "frame.parquet"), None)
                for table in report.tables.values():
                    for suffix, writer in (("md", markdown), ("tex", latex), ("csv", csv)):
                        write_text(folder / "tables" / f"{table.id}.{suffix}", writer.render_table(table))

            call()
            seconds = _repeated(call, 2 if quick else 9)
        what = f"{len(paths)} records to a frame to the tables"
        yield Row.of("records", what, seconds, at_most=limit, unit="s")


def demo(quick: bool) -> Iterator[Row]:
    """Time the embedded experiment from scratch on all cores. Left out with ``--quick``."""
    what = "make demo, after installation"
    if quick:
        yield Row("demo", what, None, at_most=10.0, unit="min", note="left out by --quick")
        return
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = snakemake(Path(folder), DIGITS, "all")
        minutes = (time.perf_counter() - start) / 60
    note = "" if done.returncode == 0 else f"failed: {done.stdout[-300:]}"
    yield Row("demo", what, minutes if done.returncode == 0 else None, at_most=10.0, unit="min", note=note)


def _repeated(call: Callable[[], object], number: int) -> Interval:
    seconds = []
    for _ in range(number):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return median_interval(seconds)


def _nothing_planned(quick: bool) -> Interval:
    """Time a dry run of a Snakefile with one empty rule."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "Snakefile").write_text("rule all:\n", encoding="utf-8")
        command = [str(BIN / "snakemake"), "--dry-run", "--quiet", "all", "--cores", "2", "--directory", folder]
        command += ["--snakefile", f"{folder}/Snakefile"]
        return _repeated(lambda: subprocess.run(command, capture_output=True, check=True), 3 if quick else 9)


def _run(command: list[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def _dry_run(folder: Path, experiment: Path) -> None:
    done = snakemake(folder, experiment, "--dry-run", "--quiet", "all", "--", "all")
    if done.returncode != 0:
        raise RuntimeError(done.stdout)


def enlarged(folder: Path, times: int) -> Path:
    """Write the paper's experiment with ``times`` times as many seeds and return its path."""
    content = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    content["seeds"] = list(range(times * len(content["seeds"])))
    path = folder / "paper.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def _results(folder: Path, number: int) -> tuple[Experiment, list[Path]]:
    """Return the paper's experiment with enough seeds for about ``number`` evaluations, and their records."""
    experiment = load_experiment(PAPER)
    seeds = -(-number // len(expand(experiment)))
    experiment = replace(experiment, config=experiment.config.model_copy(update={"seeds": list(range(seeds))}))
    paths = []
    for run in expand(experiment).values():
        values = dict.fromkeys(METRICS[run.task], 50.0 + run.seed % 7)
        path = folder / run.id / "evaluate.json"
        about = {"experiment": experiment.name, "scale": "full", "fingerprint": run.fingerprint}
        write_record(path, evaluation(run.task, run.model.name, run.seed, values, **about))
        paths.append(path)
    return experiment, paths
