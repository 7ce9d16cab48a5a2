"""A full disk or a used-up quota is one sentence for every kind of file, and leaves the file that was there."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from hafabench import files
from hafabench.cli.failures import messages_of
from hafabench.config.experiment import DatasetConfig
from hafabench.data.digits import make_digits
from hafabench.engines.progress import Progress
from hafabench.errors import UserError
from hafabench.files import append_text, atomic_path, write_text
from hafabench.models.checkpoints.storage import load_checkpoint, save_checkpoint
from hafabench.pictures.tiles import save_tile
from hafabench.reporting.frame import write_frame
from hafabench.results.predictions import Hits, write_predictions
from hafabench.runs.ends import end_of_log
from tests.support.full_disk import OPERATIONS, fill_disk

IMAGES = [f"{number}.jpg" for number in range(1000)]
FULL = [(errno.ENOSPC, "no space left on the device"), (errno.EDQUOT, "disk quota exceeded")]

OF_LINES = ("write", "close")


def checkpoint(path: Path) -> None:
    save_checkpoint(path, {"weights": torch.arange(100_000.0), "meta": {"step": 1}})


def predictions(path: Path) -> None:
    write_predictions(path, Hits(np.array(IMAGES), np.ones(1000, bool), np.ones(1000, bool)))


def text(path: Path) -> None:
    write_text(path, "text " * 1000)


def history(path: Path) -> None:
    append_text(path, json.dumps({"step": 2}) + "\n")


def tile(path: Path) -> None:
    save_tile(Image.new("RGB", (32, 32)), path)


WRITERS: dict[str, Callable[[Path], None]] = {
    function.__name__: function for function in (checkpoint, predictions, text, history, tile)
}


@pytest.mark.parametrize(("number", "says"), FULL)
@pytest.mark.parametrize(
    ("kind", "operation"),
    # A line of the history is neither flushed explicitly nor synchronised.
    [(kind, operation) for kind in WRITERS for operation in OPERATIONS if kind != "history" or operation in OF_LINES],
)
def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(tmp_path, monkeypatch, kind, operation, number, says):
    path = tmp_path / "file"
    path.write_text('{"step": 1}\n')
    fill_disk(monkeypatch, operation, number)
    with pytest.raises(UserError) as caught:
        WRITERS[kind](path)
    (message,) = messages_of(caught.value)
    assert message.startswith(f"{path}: not written: {says}")
    assert message.endswith("; free some space and run the same command again")
    assert ("are free)" in message) == (number == errno.ENOSPC)
    monkeypatch.undo()
    assert path.read_text() == '{"step": 1}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_the_last_checkpoint_can_be_read_after_a_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "state.pth"
    save_checkpoint(path, {"weights": torch.zeros(3)})
    fill_disk(monkeypatch, "write", errno.ENOSPC)
    with pytest.raises(UserError, match="no space left"):
        checkpoint(path)
    monkeypatch.undo()
    assert torch.equal(load_checkpoint(path)["weights"], torch.zeros(3))
    checkpoint(path)
    assert torch.equal(load_checkpoint(path)["weights"], torch.arange(100_000.0))


@pytest.mark.parametrize("free", [0, 10, 500, 5_000, 100_000, 400_500, 400_900])
def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint_is_understood(tmp_path, monkeypatch, free):
    """torch.save itself hides the error of the operating system unless it is the first or the last write."""
    opened, left = Path.open, [free]

    def open_file(self, mode="r", *arguments, **options):
        handle = opened(self, mode, *arguments, **options)
        write = handle.write

        def write_what_fits(data):
            left[0] -= len(data)
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(data)

        if "w" in mode:
            handle.write = write_what_fits
        return handle

    monkeypatch.setattr(Path, "open", open_file)
    with pytest.raises(UserError, match="not written: no space left on the device"):
        checkpoint(tmp_path / "state.pth")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("kind", ["checkpoint", "predictions", "text", "tile", "frame"])
def test_the_error_of_the_operating_system_is_understood_in_every_format(tmp_path, monkeypatch, kind):
    """Libraries write files in their own ways: here, all temporary files lead to a device that is full."""
    made = files._temporary

    def temporary(path: Path, suffix: str = "tmp") -> Path:
        found = made(path, suffix)
        found.symlink_to("/dev/full")
        return found

    monkeypatch.setattr(files, "_temporary", temporary)
    with pytest.raises(UserError, match=r"not written: no space left on the device \(.* are free\)"):
        if kind == "frame":
            write_frame(pd.DataFrame({"value": np.random.default_rng(0).random(1000)}), tmp_path)
        else:
            WRITERS[kind](tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_the_free_space_is_that_of_the_file_system_of_the_file(tmp_path, monkeypatch):
    asked, error = [], OSError(errno.ENOSPC, "full")

    def statvfs(path):
        asked.append(Path(path))
        return SimpleNamespace(f_files=100, f_favail=favail, f_frsize=4096, f_bavail=3000, f_blocks=10**9)

    monkeypatch.setattr(os, "statvfs", statvfs)
    favail = 5
    again = "; free some space and run the same command again"
    expected = f"not written: no space left on the device (12.3 MB of 4.1 TB are free){again}"
    assert files.why_not_written(error, tmp_path / "missing/folder/file") == expected
    assert asked == [tmp_path]
    favail = 0
    assert "(it cannot have more files)" in files.why_not_written(error, tmp_path / "file")


def test_a_line_of_the_history_is_written_completely_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "history.jsonl"
    progress = Progress("run", 4, start=0, every=1, batch_size=1, history=path)
    progress.step(1, loss=1.0)
    before = path.read_bytes()
    opened = Path.open

    def open_file(self, mode="r", *arguments, **options):
        handle = opened(self, mode, *arguments, **options)

        def write_half(data):
            os.write(handle.fileno(), data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        if "a" in mode:
            handle.write = write_half
        return handle

    monkeypatch.setattr(Path, "open", open_file)
    with pytest.raises(UserError, match=r"history\.jsonl: not written: no space left"):
        progress.step(2, loss=1.0)
    assert path.read_bytes() == before


def test_a_resume_on_a_full_disk_keeps_the_history(tmp_path, monkeypatch):
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    fill_disk(monkeypatch, "write", errno.ENOSPC)
    with pytest.raises(UserError, match=r"history\.jsonl: not written: no space left"):
        Progress("run", 4, start=1, every=1, batch_size=1, history=path)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize("operation", ["write", "close"])
@pytest.mark.parametrize("suffix", [".JPEG", ".jpg", ".png", ".json"])
def test_data_that_do_not_fit_leave_no_folder(tmp_path, monkeypatch, operation, suffix):
    formats = {".JPEG": "imagenet", ".jpg": "coco", ".png": "ade20k", ".json": "coco"}
    content = {
        "format": formats[suffix],
        "root": str(tmp_path / "data"),
        "num_classes": 11 if suffix == ".png" else 10,
        "images": {"train": 10, "val": 10},
        "generator": {"kind": "digits", "seed": 0, "image_size": 128, "max_objects": 5},
    }
    fill_disk(monkeypatch, operation, errno.ENOSPC, lambda path: path.suffix == suffix)
    with pytest.raises(UserError, match=r"data: not written: no space left on the device"):
        make_digits(DatasetConfig.model_validate({"name": "digits", **content}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_the_end_of_a_job_on_a_full_disk_is_known_from_its_log(tmp_path, number):
    why = files.why_not_written(OSError(number, os.strerror(number)), tmp_path / "state.pth")
    end = end_of_log([f"error: {tmp_path}/state.pth: {why}"])
    assert end is not None and end.kind == "space"


def test_errors_without_a_file_are_one_sentence():
    error = OSError(errno.ENOSPC, "No space left on device")
    assert messages_of(error) == [f"the output was {files.why_not_written(error)}"]
    named = OSError(errno.EDQUOT, "Disk quota exceeded", "/data/x")
    assert messages_of(named)[0].startswith("/data/x: not written: disk quota exceeded")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_does_not_fit_is_one_sentence():
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "hafabench", "check", "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the output was not written: no space left on the device; free some space")


def test_a_file_that_torch_saves_is_the_same_each_time(tmp_path):
    for name in ("a.pth", "b.pth"):
        checkpoint(tmp_path / name)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


def test_another_error_is_not_hidden(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("x")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
