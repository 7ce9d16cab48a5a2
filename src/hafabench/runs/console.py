"""What a driver of the workflow prints while its jobs run: one line per job that has ended.

A line has the number of the job, what it does, its duration and the time left. On a terminal a status line follows,
which shows what runs. In a file or pipe nothing is rewritten, and a line tells what runs if no job has ended for
minutes.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from hafabench.formatting.durations import format_duration
from hafabench.formatting.text import one_line, printable

if TYPE_CHECKING:
    from hafabench.runs.jobs import Job, JobList
    from hafabench.runs.time_left import TimeLeft

# What the jobs of each rule do, with the wildcards of the rule in braces.
_LABELS = {
    "prepare_dataset": "prepare data, {task}",
    "train_run": "train {task} {model}, seed {seed}",
    "evaluate_run": "evaluate {task} {model}, seed {seed}",
    "count_complexity": "count parameters and GFLOPs, {task}",
    "count_conventions": "count parameters and GFLOPs by part of the model",
    "measure_latency": "measure latency, {group}",
    "collect_records": "collect the records",
    "draw_pictures": "draw pictures of trained models",
    "write_report": "write the tables and the report",
    "regression": "compare with the baseline",
}
# Rules whose jobs print their result on the console themselves.
_PRINTS = {"regression"}
# Without an ended job, a line tells what runs after this many seconds, and again after twice the time.
_SILENCE_S, _LONGEST_SILENCE_S = 180.0, 3600.0
_CLEAR_LINE = "\r\x1b[2K"


def label(rule: str, wildcards: Mapping[str, str]) -> str:
    """Return in words what a job does: ``train classification pvt_tiny_hafa, seed 0``."""
    with suppress(KeyError):
        return one_line(_LABELS[rule].format(**wildcards))
    values = f" {', '.join(map(str, wildcards.values()))}" if wildcards else ""
    return one_line(f"{rule}{values}")


@dataclass(frozen=True)
class _Running:
    rule: str
    label: str
    since: float
    job: Job | None


class Console:
    """Prints what happens to the jobs of a driver.

    Args:
        stream: Where it is printed.
        clock: Returns the present time in seconds.
        width: The number of characters per line of a terminal; None if the stream is none.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.time, width: int | None = None):
        self._stream: TextIO | None = stream
        self._clock = clock
        self._is_terminal = width is not None or _is_terminal(stream)
        self._width = width
        self._lock = threading.RLock()
        self._jobs: JobList | None = None
        self._left: TimeLeft | None = None
        self._total = self._ended = self._label_width = 0
        self._running: dict[int, _Running] = {}
        self._finished: dict[str, float] = {}
        self._first_start: float | None = None
        self._last_print, self._silence = clock(), _SILENCE_S
        self._status = ""
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None

    def knows(self, jobs: JobList) -> None:
        """Tell the console the jobs of the experiment."""
        self._jobs = jobs

    def begin(self, jobs: Sequence[Job], logs: Iterable[str | Path] = ()) -> None:
        """Announce the jobs that the driver runs.

        Args:
            jobs: The jobs, without those that are up to date.
            logs: The files that contain the driver's own messages.
        """
        from hafabench.runs.time_left import TimeLeft

        with self._lock:
            self._total = len(jobs)
            self._label_width = max((len(label(job.rule, job.wildcards)) for job in jobs), default=0)
            self._left = TimeLeft({job.id: job for job in jobs})
        plural = "" if len(jobs) == 1 else "s"
        self.say(f"{len(jobs)} job{plural} to run.")
        if self._jobs is not None:
            results = os.path.relpath(self._jobs.experiment.results)
            where = "".join(f" The driver's full log is {os.path.relpath(path)}." for path in logs)
            self.say(f"The output of each job is stored in a log beside its results in {results}.{where}")

    def nothing_to_do(self, message: str) -> None:
        """Say that all results exist, and where the report is."""
        self.say(message)
        report = self._report()
        if report is not None:
            self.say(f"The report is {report}. Any browser opens it offline.")

    def started(self, number: int, rule: str, wildcards: Mapping[str, str], is_shown: bool = True) -> None:
        """Note that a job has started.

        Args:
            number: The number that identifies the job.
            rule: Its rule.
            wildcards: The values of the rule's wildcards.
            is_shown: Whether the job is counted and shown; the goal of a workflow is none.
        """
        if not is_shown:
            return
        with self._lock:
            now = self._clock()
            self._first_start = now if self._first_start is None else self._first_start
            self._running[number] = _Running(rule, label(rule, wildcards), now, self._job(rule, wildcards))
        self._start_ticker()

    def finished(self, number: int) -> None:
        """Print that a job has finished."""
        with self._lock:
            job = self._running.pop(number, None)
            if job is None:
                return
            seconds = self._clock() - job.since
            self._ended += 1
            self._finished[job.job.id if job.job is not None else job.label] = seconds
            self._print_job(self._number(), job.label, seconds, self._time_left())

    def failed(self, number: int, reason: str = "", logs: Sequence[str | Path] = ()) -> None:
        """Print that an attempt at a job has failed, why, and where its log is.

        Args:
            number: The number that identifies the job.
            reason: The reason if the caller knows it; otherwise it is read from the log of the job.
            logs: The logs that the caller knows.
        """
        with self._lock:
            job = self._running.pop(number, None)
            if job is None:
                return
            log = str(job.job.log) if job.job is not None else next(iter(map(str, logs)), "")
            reason = reason or _reason(job.job)
            self._print_job("failed", job.label, self._clock() - job.since, "")
            if reason:
                self.say(f"  {one_line(reason)}")
            for path in dict.fromkeys([*([log] if log else []), *map(str, logs)]):
                self.say(f"  log: {path}")

    def say(self, text: str) -> None:
        """Print lines."""
        with self._lock:
            self._write(_CLEAR_LINE if self._status else "", printable(text), "\n")
            self._status = ""
            self._last_print = self._clock()
            self._silence = _SILENCE_S

    def tick(self) -> None:
        """Show what runs: on a terminal now, elsewhere after a long silence."""
        with self._lock:
            now = self._clock()
            if not self._running or any(job.rule in _PRINTS for job in self._running.values()):
                return
            if self._is_terminal:
                width = self._width or shutil.get_terminal_size().columns
                status = self._what_runs(now)[: width - 1]
                self._write(_CLEAR_LINE, printable(status))
                self._status = status
            elif now - self._last_print >= self._silence:
                silence = min(2 * self._silence, _LONGEST_SILENCE_S)
                self.say(self._what_runs(now))
                self._silence = silence

    def close(self) -> None:
        """Remove the status line, and print nothing more."""
        self._stop.set()
        with self._lock:
            if self._status:
                self._write(_CLEAR_LINE)
                self._status = ""
            self._stream = None

    def _print_job(self, number: str, text: str, seconds: float, left: str) -> None:
        self.say(f"{number} {text:<{self._label_width}}  {format_duration(seconds):>12}  {left}".rstrip())

    def _number(self) -> str:
        total = str(self._total or "?")
        return f"[{self._ended:>{len(total)}}/{total}]"

    def _time_left(self) -> str:
        if self._left is None or self._first_start is None or self._ended >= self._total:
            return ""
        from hafabench.runs.time_left import describe

        now = self._clock()
        running = {job.job.id: now - job.since for job in self._running.values() if job.job is not None}
        seconds = self._left.seconds(self._finished, running, now - self._first_start)
        return "" if seconds is None else describe(seconds)

    def _what_runs(self, now: float) -> str:
        jobs = sorted(self._running.values(), key=lambda job: job.since)
        shown = [f"{job.label} ({format_duration(float(round(now - job.since)))})" for job in jobs[:3]]
        more = f" and {len(jobs) - 3} more" if len(jobs) > 3 else ""
        left = self._time_left()
        return f"{self._number()} running: {'; '.join(shown)}{more}{f'; {left}' if left else ''}"

    def _job(self, rule: str, wildcards: Mapping[str, str]) -> Job | None:
        from hafabench.errors import UserError

        if self._jobs is None:
            return None
        try:
            return self._jobs.find(rule, wildcards.values())
        except UserError:
            return None

    def _report(self) -> Path | None:
        if self._jobs is None:
            return None
        from hafabench.runs.paths import report_files

        pages = (path for path in report_files(self._jobs.experiment) if path.suffix == ".html")
        return next((path for path in pages if path.is_file()), None)

    def _write(self, *texts: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write("".join(texts))
            self._stream.flush()
        except (OSError, ValueError):
            # The reader of a pipe has ended, or the terminal was closed. The jobs go on.
            self._stream = None

    def _start_ticker(self) -> None:
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._tick_on, name="console", daemon=True)
            self._ticker.start()

    def _tick_on(self) -> None:
        while not self._stop.wait(1.0 if self._is_terminal else 5.0):
            self.tick()


def _is_terminal(stream: TextIO) -> bool:
    with suppress(AttributeError, OSError, ValueError):
        return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return False


def _reason(job: Job | None) -> str:
    """Return why the last attempt at a job ended, according to its log; empty if nothing explains it."""
    if job is None:
        return ""
    from hafabench.runs.attempts import last_attempt

    attempt = last_attempt(job.log, None)
    return attempt.line if attempt is not None and attempt.ended != "finished" else ""
