"""Every reader of a file refuses what is no regular file, instead of waiting for it or filling the memory."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from hafabench.config.experiment import load_experiment
from hafabench.config.json_file import read_json, read_json_object
from hafabench.config.paper_values import load_paper_values
from hafabench.config.recipes import load_recipe
from hafabench.config.regression import load_limits
from hafabench.config.site import load_site
from hafabench.config.tables import load_table_layouts
from hafabench.config.text_file import read_bytes, read_csv_table, read_text
from hafabench.config.yaml_file import YamlFile
from hafabench.data.images import read_image
from hafabench.data.sort_imagenet import read_synsets
from hafabench.errors import UserError
from hafabench.files import not_a_file, sha256_of
from hafabench.models.checkpoints.reading import read_tensors
from hafabench.results.counts import read_counts
from hafabench.results.history import read_history
from hafabench.results.predictions import read_predictions
from hafabench.results.record import read_record

READERS = {
    "text": read_text,
    "json": read_json,
    "csv": read_csv_table,
    "yaml": YamlFile,
    "experiment": load_experiment,
    "recipe": lambda path: load_recipe(path, "classification"),
    "tables": load_table_layouts,
    "paper values": load_paper_values,
    "limits": load_limits,
    "site": load_site,
    "record": read_record,
    "counts": read_counts,
    "history": read_history,
    "predictions": read_predictions,
    "weights": read_tensors,
    "image": read_image,
    "labels": read_synsets,
    "digest": sha256_of,
}


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def bound_socket(path: Path) -> None:
    # The path of a socket has at most 107 bytes.
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(path.parent)
        listener.bind(path.name)
        os.chdir(here)


def folder(path: Path) -> None:
    path.mkdir()


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def sparse(path: Path) -> None:
    with path.open("wb") as handle:
        handle.truncate(2**42)


def other_encoding(path: Path) -> None:
    path.write_bytes(b"\xff\x00\x80" * 50)


@pytest.fixture
def in_time():
    """Interrupt a reader that waits."""

    def stop(number, frame):
        raise TimeoutError("the reader waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


KINDS = (pipe, link_to_zeros, bound_socket, folder, link_to_itself, sparse, other_encoding)
# A file of any size and content has a digest.
PAIRS = [
    (make, name) for make in KINDS for name in READERS if name != "digest" or make not in (sparse, other_encoding)
]


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize(("make", "reader"), PAIRS, ids=[f"{make.__name__}-{name}" for make, name in PAIRS])
def test_one_error_that_names_the_file(make, reader, tmp_path):
    path = tmp_path / "file.yaml"
    make(path)
    with pytest.raises((UserError, OSError)) as caught:
        READERS[reader](path)
    if reader != "digest":
        assert isinstance(caught.value, UserError)
        assert str(path) in str(caught.value)


@pytest.mark.usefixtures("in_time")
def test_a_pipe_in_place_of_a_json_object_counts_as_none(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    assert read_json_object(tmp_path / "config.json") is None


def test_a_file_that_does_not_fit_into_memory(tmp_path, monkeypatch):
    path = tmp_path / "large"
    path.write_text("text")

    def fail(self):
        raise MemoryError

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(UserError, match="does not fit into memory"):
        read_bytes(path)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "secret"
    path.write_text("text")

    def fail(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        read_text(path)


def test_files_and_what_is_missing_are_no_reason_to_refuse(tmp_path):
    (tmp_path / "file").touch()
    assert not_a_file(tmp_path / "file") is None
    assert not_a_file(tmp_path / "missing") is None
    assert not_a_file("a\0b") is None
