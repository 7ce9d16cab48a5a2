"""Records: files that are refused on reading, and failed writes that leave nothing behind."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from hafabench.errors import UserError
from hafabench.results.record import read_record, write_record
from tools.synthetic_records import complexity, evaluation

RECORD = evaluation("classification", "pvt_tiny", 0, {"top1": 91.25, "top5": 99.5})


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "evaluate.json"
    write_record(path, RECORD)
    return path


def change(path: Path, **changes) -> None:
    """Change the content of a record as an earlier version would have written it, without its SHA-256."""
    content = json.loads(path.read_text())
    del content["content_sha256"]
    path.write_text(json.dumps(content | changes))


def test_round_trip(written):
    assert read_record(written) == RECORD
    assert json.loads(written.read_text())["schema"] == "hafabench.record/1"


def test_numbers_survive_to_the_last_bit(tmp_path):
    value = 0.1 + 0.2
    write_record(tmp_path / "r.json", complexity("classification", {"pvt_tiny": {"gmacs": value}}))
    assert read_record(tmp_path / "r.json").metrics[0].value == value


@pytest.mark.parametrize("schema", ["hafabench.record/2", None, 1])
def test_record_of_another_schema_is_refused_by_that_alone(written, schema):
    change(written, schema=schema, metrics="nonsense")
    with pytest.raises(UserError) as caught:
        read_record(written)
    assert str(caught.value) == f"{written}: schema: expected 'hafabench.record/1', found {schema!r}"


def test_all_wrong_values_are_reported_at_once(written):
    metric = json.loads(written.read_text())["metrics"][0]
    change(written, scale="tiny", metrics=[metric | {"value": "much"}], colour="red", fingerprint=None)
    with pytest.raises(UserError) as caught:
        read_record(written)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert all(line.startswith(f"{written}: ") for line in lines)
    for place in ("scale: ", "metrics[0].value: ", "colour: unknown key", "fingerprint: "):
        assert any(place in line for line in lines), place
    assert "found 'much'" in str(caught.value)


@pytest.mark.parametrize("missing", ["provenance", "experiment", "metrics"])
def test_missing_key_is_named(written, missing):
    content = json.loads(written.read_text())
    del content[missing]
    written.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"{missing}: required key is missing"):
        read_record(written)


def test_record_without_metrics_is_refused(written):
    change(written, metrics=[])
    with pytest.raises(UserError, match="metrics: "):
        read_record(written)


@pytest.mark.parametrize("content", [b"", b'{"schema": ', b"[1, 2]", b"\xff\xfe\x00"])
def test_files_that_are_no_records_are_refused(tmp_path, content):
    path = tmp_path / "evaluate.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)):
        read_record(path)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="no such record"):
        read_record(tmp_path / "evaluate.json")


def fail_sync(monkeypatch, number: int) -> None:
    def fsync(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)


def fail_half_way(monkeypatch, number: int) -> None:
    write = Path.write_text

    def write_half(self, text, **options):
        write(self, text[: len(text) // 2], **options)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_text", write_half)


@pytest.mark.parametrize("fail", [fail_sync, fail_half_way])
@pytest.mark.parametrize(
    ("number", "says"), [(errno.ENOSPC, "no space left on the device"), (errno.EDQUOT, "disk quota exceeded")]
)
def test_full_disk_leaves_the_old_record_and_nothing_else(written, monkeypatch, fail, number, says):
    before = written.read_bytes()
    fail(monkeypatch, number)
    with pytest.raises(UserError, match=says) as caught:
        write_record(written, evaluation("classification", "pvt_tiny", 0, {"top1": 1.0}))
    assert str(caught.value).startswith(f"{written}: not written")
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


@pytest.mark.parametrize("fail", [fail_sync, fail_half_way])
def test_full_disk_leaves_no_first_record(tmp_path, monkeypatch, fail):
    fail(monkeypatch, errno.ENOSPC)
    with pytest.raises(UserError):
        write_record(tmp_path / "run" / "evaluate.json", RECORD)
    assert list((tmp_path / "run").iterdir()) == []


COLLAPSE = {"run": "classification/pvt_tiny/seed0", "step": 12, "loss": None, "lr": 0.1, "reason": "the loss is nan"}


def test_a_collapsed_run_has_a_record_without_numbers(written):
    change(written, metrics=[], collapse=COLLAPSE)
    found = read_record(written).collapse
    assert found.clause("classification/pvt_tiny/seed0") == "training collapsed at step 12 (the loss is nan)"
    text = "not run: its starting weights, classification/pvt_tiny/seed0, collapsed at step 12"
    assert found.clause("segmentation/pvt_tiny/seed0") == text


def test_a_collapse_beside_numbers_is_refused(written):
    change(written, collapse=COLLAPSE)
    with pytest.raises(UserError, match="metrics: expected no numbers"):
        read_record(written)


def test_an_old_record_has_no_collapse(written):
    content = json.loads(written.read_text())
    del content["collapse"], content["content_sha256"]
    written.write_text(json.dumps(content))
    assert read_record(written).collapse is None
