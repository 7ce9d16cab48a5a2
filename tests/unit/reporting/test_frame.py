"""The frame of an experiment's records: its rows, types, order and files, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.reporting.frame import DTYPES, collect, collect_experiment, read_frame, write_frame
from hafabench.results.record import write_record
from hafabench.runs.run import expand
from tools.synthetic_records import COMMIT, complexity, evaluation, frame_of, latency, write_records


def test_one_row_per_metric_with_its_provenance(tmp_path):
    record = evaluation(
        "segmentation",
        "pvt_tiny",
        3,
        {"miou": 40.5, "mean_acc": 51.0},
        git_dirty=True,
        threads=2,
        checkpoint_sha256="c0ffee",
        training={"seconds": 12.5, "steps": 60, "device": "cpu"},
    )
    frame = frame_of(tmp_path, record)
    assert list(frame["name"]) == ["mean_acc", "miou"]
    row = frame.iloc[1].to_dict()
    expected = {
        "experiment": "digits",
        "scale": "embedded",
        "origin": "measured",
        "verb": "evaluate",
        "id": "segmentation/pvt_tiny/seed3",
        "task": "segmentation",
        "model": "pvt_tiny",
        "seed": 3,
        "value": 40.5,
        "unit": "%",
        "git_commit": COMMIT,
        "git_dirty": True,
        "threads": 2,
        "checkpoint_sha256": "c0ffee",
        "training_seconds": 12.5,
        "training_steps": 60,
        "record": str(tmp_path / "segmentation/pvt_tiny/seed3/evaluate.json"),
    }
    assert {key: row[key] for key in expected} == expected
    assert pd.isna(row["dataset_digest"])
    assert pd.isna(row["low"])


def test_quartiles_and_repeats_of_latency(tmp_path):
    row = frame_of(tmp_path, latency("table4", {"pvt_v2_b1": (9.5, 10.0, 11.25)})).iloc[0]
    assert (row["low"], row["value"], row["high"], row["repeats"]) == (9.5, 10.0, 11.25, 20)
    assert pd.isna(row["seed"])


def some_records():
    return [
        evaluation("classification", model, seed, {"top1": 90.0 + seed}) for model in ("b", "a") for seed in (10, 2)
    ] + [complexity("detection", {"a": {"params": 5.0}}), latency("table4", {"a": (1.0, 2.0, 3.0)})]


def test_order_and_types_do_not_depend_on_the_order_of_files(tmp_path):
    paths = write_records(tmp_path, some_records())
    frame = collect(paths)
    pd.testing.assert_frame_equal(frame, collect(reversed(paths)))
    runs = frame[frame["verb"] == "evaluate"]
    assert list(zip(runs["model"], runs["seed"], strict=True)) == [("a", 10), ("a", 2), ("b", 10), ("b", 2)]
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == DTYPES


def test_no_records_give_the_same_columns_and_types():
    assert {name: str(dtype) for name, dtype in collect([]).dtypes.items()} == DTYPES
    assert len(collect([])) == 0


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("empty", [False, True])
def test_files_read_back_equal(tmp_path, suffix, empty):
    # "NA" is an ordinary name, fast parsers read the last bit of this number incorrectly, and an empty convention is
    # a missing value.
    odd = evaluation("classification", "NA", 1, {"top1": 30.331272607892746}, git_commit=None, git_dirty=None)
    odd = odd.model_copy(update={"metrics": [odd.metrics[0].model_copy(update={"convention": ""})]})
    frame = collect([]) if empty else frame_of(tmp_path, *some_records(), odd)
    write_frame(frame, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["frame.csv", "frame.parquet"]
    again = read_frame(tmp_path / "out" / f"frame.{suffix}")
    pd.testing.assert_frame_equal(again, frame)
    # The comparison above always accepts a difference in the last bit.
    assert again.equals(frame)


def test_frame_that_is_missing_or_foreign(tmp_path):
    with pytest.raises(UserError, match="no such frame"):
        read_frame(tmp_path / "frame.parquet")
    (tmp_path / "frame.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="not a readable frame"):
        read_frame(tmp_path / "frame.parquet")
    pd.DataFrame({"model": ["a"]}).to_csv(tmp_path / "frame.csv", index=False)
    with pytest.raises(UserError, match="columns differ"):
        read_frame(tmp_path / "frame.csv")
    pd.DataFrame({"model": ["a"]}).to_parquet(tmp_path / "frame.parquet", index=False)
    with pytest.raises(UserError, match="columns differ"):
        read_frame(tmp_path / "frame.parquet")
    pd.DataFrame({name: ["much"] for name in DTYPES}).to_parquet(tmp_path / "frame.parquet", index=False)
    with pytest.raises(UserError, match="not a frame of this version"):
        read_frame(tmp_path / "frame.parquet")


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_frame_from_before_experiment_tracked_is_read(tmp_path, suffix):
    frame = frame_of(tmp_path, *some_records())
    write_frame(frame.drop(columns="experiment_tracked"), tmp_path / "out")
    pd.testing.assert_frame_equal(read_frame(tmp_path / "out" / f"frame.{suffix}"), frame)


def test_all_unreadable_records_are_reported_at_once(tmp_path):
    good, *bad = write_records(tmp_path, some_records())
    bad[0].write_text("{")
    bad[1].write_text('{"schema": "hafabench.record/0"}')
    bad[2].unlink()
    with pytest.raises(UserError) as caught:
        collect([good, *bad])
    assert [problem.file for problem in caught.value.problems] == [str(path) for path in bad[:3]]


def test_two_scales_are_refused(tmp_path):
    small = evaluation("classification", "a", 0, {"top1": 90.0})
    large = evaluation("classification", "b", 0, {"top1": 80.0}, scale="full")
    paths = write_records(tmp_path, [small, large])
    with pytest.raises(UserError) as caught:
        collect(paths)
    (problem,) = caught.value.problems
    assert problem.file == str(paths[1])
    assert "found 'full', but 'embedded'" in problem.message
    assert str(paths[0]) in problem.message


def test_a_metric_given_twice_is_refused(tmp_path):
    first, second = tmp_path / "one.json", tmp_path / "two.json"
    write_record(first, evaluation("classification", "a", 0, {"top1": 90.0, "top5": 99.0}))
    write_record(second, evaluation("classification", "a", 0, {"top1": 91.0}))
    with pytest.raises(UserError) as caught:
        collect([second, first])
    assert str(caught.value) == (f"{second}: classification/a/seed0: top1 of a is given twice: also in {first}")


def test_a_static_metric_given_twice_in_one_record_is_refused(tmp_path):
    record = complexity("classification", {"a": {"params": 1.0}})
    write_record(tmp_path / "r.json", record.model_copy(update={"metrics": record.metrics * 2}))
    with pytest.raises(UserError, match="params of a is given twice: also in the same record"):
        collect([tmp_path / "r.json"])


def test_numbers_that_are_none_are_refused(tmp_path):
    paths = write_records(tmp_path, [evaluation("classification", "a", 0, {"top1": 1.0})])
    paths[0].write_text(paths[0].read_text().replace("1.0,", "NaN,", 1))
    with pytest.raises(UserError, match=r"metrics\[0\].value: top1 of a is nan"):
        collect(paths)


@pytest.fixture
def experiment(write_experiment, monkeypatch, tmp_path):
    path = write_experiment()
    monkeypatch.chdir(tmp_path)
    return load_experiment(path)


def test_experiment_is_collected_with_what_is_missing(experiment):
    run = expand(experiment)["classification/pvt_tiny/seed0"]
    write_record(run.record, evaluation("classification", "pvt_tiny", 0, {"top1": 90.0}, fingerprint=run.fingerprint))
    # Left over from a run that the experiment no longer has: not part of it.
    stray = evaluation("classification", "pvt_tiny", 7, {"top1": 10.0})
    write_record(experiment.results / stray.id / "evaluate.json", stray)
    frame, missing = collect_experiment(experiment)
    assert list(frame["id"]) == [run.id]
    assert run.record not in missing
    assert expand(experiment)["classification/resnet18/seed0"].record in missing
    assert experiment.results / "complexity/segmentation.json" in missing
    pd.testing.assert_frame_equal(read_frame(experiment.results / "frame.parquet"), frame)


def test_record_of_another_configuration_is_refused(experiment):
    run = expand(experiment)["classification/pvt_tiny/seed0"]
    write_record(run.record, evaluation("classification", "pvt_tiny", 0, {"top1": 90.0}, fingerprint="f" * 12))
    with pytest.raises(UserError, match=f"expected {run.fingerprint}, found {'f' * 12}") as caught:
        collect_experiment(experiment)
    assert caught.value.problems[0].file == str(run.record)
    assert not (experiment.results / "frame.parquet").exists()


def test_collecting_needs_no_torch():
    code = "import sys, hafabench.reporting.frame; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
