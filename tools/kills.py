"""Kill every command that writes files at random moments, and check the files: ``python -m tools.kills --kills 50``.

A small experiment runs in a temporary folder, command by command. Each command is started several times and killed
(SIGKILL) before a random one of its changes of the file system, or a moment after it. After each kill all files have
to be whole, old or new. Afterwards the command has to succeed, and nothing of the killed ones may be left. The
commands run in forks of one process, which has loaded the packages.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import torch
import yaml

from hafabench.cli import cli
from hafabench.config.experiment import load_experiment
from hafabench.data import manifest
from hafabench.engines import classification, evaluation  # noqa: F401
from hafabench.errors import UserError
from hafabench.files import final_path
from hafabench.models.checkpoints.storage import load_checkpoint
from hafabench.regression.baseline import read_baseline
from hafabench.results.predictions import read_predictions
from hafabench.results.record import is_record, predictions_beside, read_record
from tools.checkout import REPOSITORY

RUN = "classification/resnet18/seed0"
_MODELS = ("resnet18", "pvt_tiny", "pvt_tiny_hafa")
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.utime")
_PATIENCE_S = 300.0


class NotWhole(Exception):
    """A file is not whole, or a command failed after it had been killed; the message says which."""


@dataclass(frozen=True)
class Command:
    """The words of a command of hafabench, without ``--experiment``."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.words)


COMMANDS = tuple(
    Command(tuple(line.split()))
    for line in (
        "data prepare classification",
        f"train {RUN}",
        f"evaluate {RUN}",
        f"evaluate {RUN} --weights results/kills/{RUN}/checkpoint.pth",
        "complexity --task classification --format record",
        "count",
        "latency classification",
        "import numbers.csv",
        "import changed.csv --replace",
        "collect --partial",
        "report --partial",
        "data preview classification",
        "regress --update --candidate results/kills --reason first",
        "regress --update --candidate results/kills --reason second",
        "regress --candidate results/kills --markdown gate.md --junit gate.xml",
    )
)
_WITHOUT_EXPERIMENT = ("regress",)


def write_experiment(folder: Path) -> Path:
    """Write a small experiment, its tables and numbers to import into a folder; return the experiment file."""
    content = yaml.safe_load((REPOSITORY / "configs/digits.yaml").read_text())
    tables = yaml.safe_load((REPOSITORY / "configs/tables.yaml").read_text())
    tables["tables"] = [table for table in tables["tables"] if table["id"] == "table1"]
    for table in tables["tables"]:
        table["rows"] = [row for row in table["rows"] if row.get("model") in _MODELS]
    (folder / "tables.yaml").write_text(yaml.safe_dump(tables))
    content.update(experiment="kills", train={"classification": ["resnet18"]}, tables="tables.yaml")
    content["datasets"]["classification"].update(images={"train": 32, "val": 10}, root="data/kills")
    content["datasets"]["classification"]["generator"]["image_size"] = 32
    length = {
        "epochs": 6,
        "warmup_epochs": 0,
        "batch_size": 16,
        "checkpoint_every": 2,
        "log_every": 1,
        "image_size": 32,
    }
    content["overrides"] = [entry for entry in content["overrides"] if entry["runs"] == "classification/*"]
    content["overrides"].append({"runs": "classification/*", "why": "speed", "set": length})
    latency = {"name": "classification", "baseline": "resnet18", "models": ["pvt_tiny"]}
    content["latency"] = [{**latency, "image_size": 32, "repeats": 2, "warmup": 0}]
    file = folder / "kills.yaml"
    file.write_text(yaml.safe_dump(content))
    for name, value in (("numbers", 70), ("changed", 71)):
        rows = f"task,model,metric,value,unit,seed\nclassification,pvt_tiny,top1,{value},%,0\n"
        (folder / f"{name}.csv").write_text(rows)
    return file


def start(command: Command, file: Path, log: Path, kill_at: int | None = None, delay: float = 0.0) -> int:
    """Run a command in a fork, and return how it ended: its exit code, or the negated number of a signal.

    Args:
        command: The command.
        file: The experiment file, in the working directory of the command.
        log: The file for its output.
        kill_at: Number of the change of the file system, from 0, before which the command is killed.
        delay: Seconds after this change at which it is killed instead.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _run(command, file, log, kill_at, delay)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise NotWhole(f"{command}: it hangs; see {log}")
        time.sleep(0.005)


def _run(command: Command, file: Path, log: Path, kill_at: int | None, delay: float) -> NoReturn:
    os.chdir(file.parent)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code: Any = 70
    try:
        if kill_at is not None:
            sys.addaudithook(_Killer(file.parent, kill_at, delay))
        option = () if command.words[0] in _WITHOUT_EXPERIMENT else ("--experiment", file.name)
        sys.argv = ["hafabench", *command.words, *option]
        cli(sys.argv[1:], prog_name="hafabench")
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    except UserError as error:
        print(error, file=sys.stderr)
        code = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


class _Killer:
    """Kills its process at a change of the file system below a folder; an audit hook."""

    def __init__(self, folder: Path, kill_at: int, delay: float):
        self._folder, self._left, self._delay = str(folder.resolve()), kill_at, delay

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not (event in _CHANGES or (event == "open" and self._writes(arguments))):
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        if not os.path.realpath(os.fsdecode(path)).startswith(self._folder):
            return
        self._left -= 1
        if self._left == -1:
            if self._delay:
                threading.Thread(target=self._kill_later, daemon=True).start()
            else:
                os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def _writes(arguments: tuple[Any, ...]) -> bool:
        flags = arguments[2] if len(arguments) > 2 else 0
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    def _kill_later(self) -> None:
        time.sleep(self._delay)
        os.kill(os.getpid(), signal.SIGKILL)


def check_whole(folder: Path) -> None:
    """Check that all files below a folder are whole, except temporary ones and logs.

    Raises:
        NotWhole: If one is not.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or final_path(path) != path or path.suffix == ".log" or _is_temporary(path, folder):
            continue
        try:
            _read(path)
        except Exception as error:
            raise NotWhole(f"{path.relative_to(folder)}: {type(error).__name__}: {error}") from error
    experiment = load_experiment(folder / "kills.yaml")
    dataset = experiment.config.datasets["classification"]
    root = folder / dataset.root
    if root.exists() and not manifest.is_unchanged(dataset.model_copy(update={"root": root})):
        raise NotWhole(f"{root}: not as it was made")
    for record in folder.rglob("evaluate.json"):
        digest = read_record(record).predictions_sha256
        if digest is not None:
            read_predictions(predictions_beside(record), digest)
    baseline = folder / "results/baseline"
    if baseline.exists():
        read_baseline(baseline)


def _is_temporary(path: Path, folder: Path) -> bool:
    """Whether a path is in a temporary folder, or is the temporary file of a lease."""
    parts = path.relative_to(folder).parts
    return any(final_path(Path(part)) != Path(part) for part in parts) or path.name.startswith(".lease-")


def _read(path: Path) -> None:
    """Read a file, which fails if it is not whole."""
    if path.suffix == ".json":
        json.loads(path.read_text())
        if is_record(path):
            read_record(path)
    elif path.suffix == ".jsonl":
        for line in path.read_text().splitlines():
            json.loads(line)
    elif path.suffix == ".pth":
        load_checkpoint(path)
    elif path.suffix == ".npz":
        read_predictions(path)
    elif path.suffix == ".parquet":
        pd.read_parquet(path)
    elif path.suffix == ".csv":
        with path.open(newline="") as handle:
            widths = {len(row) for row in csv.reader(handle)}
        if len(widths) != 1:
            raise ValueError(f"rows of {sorted(widths)} fields")
    elif path.suffix in (".html", ".svg", ".xml"):
        if not path.read_text().rstrip().endswith(">"):
            raise ValueError("it ends too early")
    elif path.suffix in (".md", ".tex", ".yaml") and not path.read_bytes().endswith(b"\n"):
        raise ValueError("it ends too early")


def leftovers(folder: Path) -> Iterator[str]:
    """Yield the temporary files and folders below a folder."""
    for path in sorted(folder.rglob("*")):
        if final_path(path) != path:
            yield str(path.relative_to(folder))


def kill_all(folder: Path, kills: int, seed: int) -> int:
    """Kill every command of `COMMANDS` in turn, and finish it.

    Args:
        folder: An empty folder.
        kills: Number of kills, which are shared evenly by the commands.
        seed: Seed of the moments.

    Returns:
        The number of kills.

    Raises:
        NotWhole: If a file is not whole after a kill, or a command that was killed cannot be repeated.
    """
    numbers = random.Random(seed)
    work, saved, log = folder / "work", folder / "saved", folder / "log.txt"
    work.mkdir()
    file, done = write_experiment(work), 0
    for index, command in enumerate(COMMANDS):
        share = kills * (index + 1) // len(COMMANDS) - kills * index // len(COMMANDS)
        if share:
            _copy(work, saved)
            # A command that nobody kills tells how many changes there are.
            changes = _count_changes(command, file, log)
            _copy(saved, work)
        for number in range(share):
            at = numbers.randrange(changes)
            delay = numbers.choice((0.0, 0.0, 0.0, 0.001))
            code = start(command, file, log, at, delay)
            if code == -signal.SIGKILL:
                done += 1
            elif code:
                raise NotWhole(f"{command}: exit code {code}; see {log}")
            print(f"{command}: {'killed at' if code else 'finished before'} change {at} of {changes}", flush=True)
            check_whole(work)
            if number % 2:
                _copy(saved, work)
        code = start(command, file, log)
        if code:
            raise NotWhole(f"{command}: exit code {code} after it was killed; see {log}")
        check_whole(work)
        left = list(leftovers(work))
        if left:
            raise NotWhole(f"{command}: left {', '.join(left)}")
    return done


def _count_changes(command: Command, file: Path, log: Path) -> int:
    """Run a command and return the number of its changes of the file system."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        counter = _Killer(file.parent, 10**9, 0.0)
        sys.addaudithook(counter)
        leave = os._exit

        def report(code: int) -> NoReturn:
            os.write(writer, str(10**9 - counter._left).encode())
            leave(code)

        os._exit = report  # type: ignore[assignment]
        _run(command, file, log, None, 0.0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if status or not text:
        raise NotWhole(f"{command}: exit code {os.waitstatus_to_exitcode(status)}; see {log}")
    return max(1, int(text))


def _copy(source: Path, target: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(target)
    shutil.copytree(source, target, symlinks=True)


def main() -> int:
    """Run the command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="number of kills [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments [%(default)s]")
    parser.add_argument("--folder", type=Path, help="folder in which the temporary folder is made")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="hafabench-kills-", dir=arguments.folder))
    try:
        done = kill_all(folder, arguments.kills, arguments.seed)
    except NotWhole as error:
        print(f"error: {error}\nkept for inspection: {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    print(f"{done} kills of {len(COMMANDS)} commands left whole files only")
    return 0


if __name__ == "__main__":
    sys.exit(main())
