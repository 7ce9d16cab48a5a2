"""The audit finds every planted break of the chain, names the file, and finds nothing where the chain is whole."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from hafabench.audit.chain import audit_records
from hafabench.cli import cli
from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.files import sha256_of
from hafabench.models.checkpoints.storage import load_checkpoint
from hafabench.regression.baseline import replace_baseline
from hafabench.regression.records import read_records
from hafabench.reporting.frame import collect_experiment, read_frame, write_frame
from hafabench.results.counts import read_counts, write_counts
from hafabench.results.decomposition import Decomposition
from hafabench.results.findings import LINKS
from hafabench.results.predictions import read_predictions, write_predictions
from hafabench.results.record import read_record, write_record
from hafabench.runs.run import expand
from tests.support.experiments import EXAMPLE
from tests.support.whole_chain import edit_json, make_chain, shrink_to_one_task
from tools.checkout import REPOSITORY
from tools.samples import SAMPLES, restore

RUN, SEED1 = "classification/pvt_tiny/seed0", "classification/pvt_tiny/seed1"
HAFA = "classification/pvt_tiny_hafa/seed0"
CONFIG = "digits.yaml"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an experiment whose chain is whole."""
    folder = tmp_path_factory.mktemp("whole")
    content = yaml.safe_load(EXAMPLE.read_text())
    content["recipes"] = str(REPOSITORY / "configs/recipes")
    content["tables"] = str(REPOSITORY / "configs/tables.yaml")
    content["paper_values"] = str(REPOSITORY / "configs/paper_values.csv")
    content["claims"] = str(REPOSITORY / "configs/claims.yaml")
    shrink_to_one_task(content)
    (folder / CONFIG).write_text(yaml.safe_dump(content))
    before = Path.cwd()
    os.chdir(folder)
    try:
        experiment = load_experiment(Path(CONFIG))
        make_chain(experiment)
        for verb in ("collect", "report"):
            done = CliRunner().invoke(cli, [verb, "-e", CONFIG], catch_exceptions=False)
            assert done.exit_code == 0, done.output
        replace_baseline(Path("results/baseline"), read_records(experiment.results), reason="a test", who="me")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def experiment(whole, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return load_experiment(Path(CONFIG))


def run_of(name: str = RUN):
    return expand(load_experiment(Path(CONFIG)))[name]


def audited(*options: str) -> dict[str, list[str]]:
    """The findings of the audit by link, as text."""
    done = CliRunner().invoke(cli, ["audit", "-e", CONFIG, "--json", *options], catch_exceptions=False)
    content = json.loads(done.stdout)
    assert done.exit_code == (0 if content["holds"] else 1)
    links = {link["link"]: link for link in content["links"]}
    assert list(links) == list(LINKS)
    return {
        name: [f"{found['file']}: {found['key']}: {found['says']}" for found in link["findings"]]
        for name, link in links.items()
        if link["findings"]
    }


def test_nothing_is_found_where_the_chain_is_whole(experiment):
    done = CliRunner().invoke(cli, ["audit", "-e", CONFIG], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == list(LINKS)
    assert lines[-1] == "digits: everything that was checked holds"
    for line in (
        "data         1 data set holds",
        "checkpoint   4 final checkpoints hold",
        "predictions  4 predictions",
    ):
        assert line in done.stdout


def test_what_is_not_on_this_machine_is_not_checked(experiment):
    shutil.rmtree("data")
    for run in expand(experiment).values():
        run.checkpoint.unlink()
        run.predictions.unlink()
    done = CliRunner().invoke(cli, ["audit", "-e", CONFIG], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "4 final checkpoints were not checked (not on this machine)" in done.stdout
    assert "4 predictions were not checked (not on this machine)" in done.stdout


def value(number):
    return lambda: edit_json(run_of().record, "metrics", 0, "value", value=number)


def old_record_with(**changes):
    """Write a record of an earlier version, which has no SHA-256 of its content, with other values."""

    def plant():
        path = run_of().record
        content = json.loads(path.read_text())
        del content["content_sha256"]
        metric = changes.get("metric", {})
        content["metrics"][0] |= metric
        content["provenance"] |= changes.get("provenance", {})
        path.write_text(json.dumps(content | changes.get("record", {})))

    return plant


def copy_to_another_seed():
    shutil.copy(run_of().record, run_of(SEED1).record)


def copy_to_another_seed_and_say_so():
    """Make one evaluation look like two: a copy that names the other seed everywhere it should."""
    run = run_of(SEED1)
    record = read_record(run_of().record)
    metrics = [metric.model_copy(update={"seed": 1}) for metric in record.metrics]
    provenance = record.provenance.model_copy(update={"command": "hafabench evaluate"})
    training = record.training | {"command": "hafabench train"}
    changes = {"id": run.id, "fingerprint": run.fingerprint, "metrics": metrics, "provenance": provenance}
    write_record(run.record, record.model_copy(update={**changes, "training": training}))
    run.checkpoint.unlink()
    shutil.copy(run_of().predictions, run.predictions)


def swap_predictions():
    one, other = run_of().predictions, run_of(SEED1).predictions
    one.rename("kept")
    other.rename(one)
    Path("kept").rename(other)


def edit_predictions_and_their_digest():
    run = run_of()
    found = read_predictions(run.predictions)
    write_predictions(run.predictions, type(found)(found.images, ~found.top1, np.ones_like(found.top5)))
    write_record(
        run.record, read_record(run.record).model_copy(update={"predictions_sha256": sha256_of(run.predictions)})
    )


def predictions_of_half_the_images():
    """Keep the predictions of half of the images, in the record too."""
    run = run_of()
    found, record = read_predictions(run.predictions), read_record(run.record)
    half = type(found)(found.images[:5], found.top1[:5], found.top5[:5])
    write_predictions(run.predictions, half)
    values = {"top1": 20.0 * half.top1.sum(), "top5": 20.0 * half.top5.sum()}
    metrics = [metric.model_copy(update={"value": values[metric.name]}) for metric in record.metrics]
    digest = sha256_of(run.predictions)
    write_record(run.record, record.model_copy(update={"metrics": metrics, "predictions_sha256": digest}))


def edit_a_value_without_predictions(keep_digest: bool):
    """Edit a number and say that there were no predictions, which are still there."""

    def plant():
        path = run_of().record
        record = read_record(path)
        metrics = [metric.model_copy(update={"value": 10.0}) for metric in record.metrics if metric.name == "top1"]
        metrics += [metric for metric in record.metrics if metric.name != "top1"]
        write_record(path, record.model_copy(update={"metrics": metrics, "predictions_sha256": None}))
        if not keep_digest:
            content = json.loads(path.read_text())
            del content["content_sha256"]
            path.write_text(json.dumps(content))

    return plant


def exchange_an_image():
    one, other, *_ = sorted(path for path in Path("data").rglob("*") if path.suffix in (".png", ".jpg", ".JPEG"))
    shutil.copy(one, other)


def flip_a_byte():
    file = run_of().checkpoint
    content = bytearray(file.read_bytes())
    content[content.index(load_checkpoint(file)["state_dict"]["weight"].numpy().tobytes())] ^= 1
    file.write_bytes(content)


def replace_the_checkpoint():
    shutil.copy(run_of(SEED1).checkpoint, run_of().checkpoint)


def edit_the_frame():
    file = Path("results/digits/frame.parquet")
    frame = read_frame(file)
    frame.loc[frame["id"] == RUN, "value"] += 1.0
    frame.to_parquet(file, index=False)


def edit_the_frame_with_pandas():
    file = Path("results/digits/frame.parquet")
    frame = pd.read_parquet(file)
    frame.loc[frame["id"] == RUN, "value"] += 1.0
    frame.to_parquet(file, index=False)


def edit_the_csv_of_the_frame():
    file = Path("results/digits/frame.csv")
    frame = read_frame(file)
    frame[frame["id"] != RUN].to_csv(file, index=False)


def edit_a_table():
    file = Path("reports/digits/tables/table1.csv")
    file.write_text(file.read_text().replace(",77.5,", ",78.5,"))


def edit(file: str, before: str, after: str):
    def plant():
        text = Path(file).read_text()
        assert before in text
        Path(file).write_text(text.replace(before, after, 1))

    return plant


def edit_the_baseline():
    edit_json(Path("results/baseline") / RUN / "evaluate.json", "metrics", 0, "value", value=1.0)


def other_counts():
    path = Path("results/digits/counts.json")
    counts = read_counts(path)
    first = counts.models[0]
    twice = Decomposition((*first.amounts.parameters, *first.amounts.parameters))
    write_counts(path, counts.model_copy(update={"models": [first.model_copy(update={"amounts": twice})]}))


def change_the_experiment():
    content = yaml.safe_load(Path(CONFIG).read_text())
    content["overrides"][0]["set"]["lr"] = 0.5
    Path(CONFIG).write_text(yaml.safe_dump(content))


COMMIT = "f" * 40
BREAKS = {
    "edited value": (value(1.0), "record", RUN),
    "value as text": (value("99.9"), "record", "metrics[0].value"),
    "value above its range": (value(150), "record", "expected 0 to 100 %"),
    "negative value": (value(-5), "record", "expected 0 to 100 %"),
    "enormous value": (value(1e308), "record", "expected 0 to 100 %"),
    "truth value": (value(True), "record", "metrics[0].value"),
    "no number": (value(float("nan")), "record", "metrics[0].value"),
    "edited value of an old record": (
        old_record_with(metric={"value": 10.0}),
        "predictions",
        "top1 of pvt_tiny is 10 %",
    ),
    "metric of another task": (old_record_with(metric={"name": "miou"}), "record", "unknown metric 'miou'"),
    "metric of another verb": (
        old_record_with(metric={"name": "latency_ms", "unit": "ms"}),
        "record",
        "a number of latency",
    ),
    "another unit": (old_record_with(metric={"unit": "1"}), "record", "expected '%' for top1"),
    "seed of an old record": (old_record_with(metric={"seed": 1}), "record", "expected 0 at this path, found 1"),
    "model of an old record": (old_record_with(metric={"model": "pvt_tiny_hafa"}), "record", "expected 'pvt_tiny'"),
    "id of an old record": (old_record_with(record={"id": SEED1}), "record", f"expected '{RUN}' at this path"),
    "verb of an old record": (old_record_with(record={"verb": "latency"}), "record", RUN),
    "experiment of an old record": (old_record_with(record={"experiment": "x"}), "record", "expected 'digits'"),
    "lost metric": (lambda: edit_json(run_of().record, "metrics", value=[]), "record", "metrics"),
    "changed commit": (
        lambda: edit_json(run_of().record, "provenance", "git_commit", value=COMMIT),
        "record",
        "edited after it was written",
    ),
    "changed commit of an old record": (old_record_with(provenance={"git_commit": COMMIT}), "frame", "git_commit"),
    "commit of the training": (
        old_record_with(record={"training": {"git_commit": COMMIT}}),
        "checkpoint",
        "meta.training",
    ),
    "copied record": (copy_to_another_seed, "record", f"expected '{SEED1}' at this path, found '{RUN}'"),
    "copied record that names the seed": (
        copy_to_another_seed_and_say_so,
        "record",
        "the same training and evaluation",
    ),
    "swapped predictions": (swap_predictions, "predictions", "not the predictions that the record"),
    "other predictions": (edit_predictions_and_their_digest, "predictions", "by its predictions"),
    "value without predictions": (
        edit_a_value_without_predictions(keep_digest=True),
        "predictions",
        "top1 of pvt_tiny is 10 %",
    ),
    "value without predictions and digest": (
        edit_a_value_without_predictions(keep_digest=False),
        "predictions",
        "top1 of pvt_tiny is 10 %",
    ),
    "predictions of half of the images": (
        predictions_of_half_the_images,
        "predictions",
        "the predictions beside the record are of 5 images, but the validation split has 10",
    ),
    "edited configuration": (
        lambda: edit_json(run_of().folder / "config.json", "recipe", "lr", value=9.0),
        "experiment",
        "config.json: : the file was edited after it was written: recipe.lr is 9.0, but 0.001 under this fingerprint",
    ),
    "empty record": (
        lambda: run_of().record.write_text(""),
        "record",
        f"the file is empty; remove it, and `hafabench evaluate {RUN}` makes it again",
    ),
    "folder of predictions": (
        lambda: (run_of().predictions.unlink(), run_of().predictions.mkdir()),
        "predictions",
        f"expected a regular file; `hafabench evaluate {RUN}` makes it again",
    ),
    "exchanged image": (exchange_an_image, "data", "changed since they were made"),
    "flipped byte": (flip_a_byte, "checkpoint", "changed since"),
    "replaced checkpoint": (replace_the_checkpoint, "checkpoint", RUN),
    "edited frame": (edit_the_frame, "frame", "value of top1 of pvt_tiny"),
    "frame edited with pandas": (edit_the_frame_with_pandas, "frame", "edited after it was written"),
    "edited csv of the frame": (edit_the_csv_of_the_frame, "frame", f"lacks the record of {RUN}"),
    "edited table": (edit_a_table, "table", "is not what the frame gives"),
    "edited latex": (edit("reports/digits/tables/table1.tex", "13.2", "12.2"), "table", "table1.tex"),
    "edited markdown": (edit("reports/digits/tables.md", "13.2", "12.2"), "report", "tables.md"),
    "edited page": (edit("reports/digits/report.html", "13.2", "12.2"), "report", "edited after it was written"),
    "edited baseline": (edit_the_baseline, "baseline", RUN),
    "edited counts": (
        lambda: edit_json(Path("results/digits/counts.json"), "cells", 0, "dead_weights", value=7),
        "record",
        "counts.json: content_sha256: the record was edited",
    ),
    "counts of another model": (other_counts, "record", "in the complexity record"),
    "changed experiment": (change_the_experiment, "experiment", "lr"),
}


@pytest.mark.parametrize("name", list(BREAKS))
def test_a_planted_break_is_found(experiment, name):
    plant, link, says = BREAKS[name]
    plant()
    if link in ("predictions", "record", "frame"):
        found = {check.link: list(map(str, check.findings)) for check in audit_records(experiment)}
    else:
        found = audited()
    assert any(says in finding for finding in found.get(link, [])), found


def test_two_breaks_at_once_are_both_found(experiment):
    value(1.0)()
    flip_a_byte()
    edit_a_table()
    assert {"record", "checkpoint", "table"} <= audited().keys()


def test_an_edited_record_is_named_and_left_out(experiment):
    value(99.0)()
    with pytest.raises(UserError, match="the record was edited after it was written; `hafabench evaluate"):
        collect_experiment(experiment)
    done = CliRunner().invoke(cli, ["collect", "-e", CONFIG, "--partial"], catch_exceptions=False)
    assert f"left out: results/digits/{RUN}/evaluate.json" in done.stderr
    assert RUN not in set(read_frame(Path("results/digits/frame.parquet"))["id"])
    CliRunner().invoke(cli, ["report", "-e", CONFIG], catch_exceptions=False)
    for page in ("reports/digits/tables.md", "reports/digits/report.html"):
        assert "edited after it was written" in Path(page).read_text()


@pytest.mark.parametrize("name", ["copied record", "copied record that names the seed", "swapped predictions"])
def test_one_evaluation_is_not_counted_twice(experiment, name):
    BREAKS[name][0]()
    with pytest.raises(UserError):
        collect_experiment(experiment)
    left_out: list = []
    frame, missing = collect_experiment(experiment, partial=True, left_out=left_out)
    assert len(frame[(frame["model"] == "pvt_tiny") & (frame["name"] == "top1")]) < 2
    assert left_out and missing


@pytest.mark.parametrize("verb", ["report", "claims"])
def test_an_edited_frame_is_not_reported(experiment, verb):
    edit_the_frame_with_pandas()
    with pytest.raises(UserError, match=r"frame\.parquet: the frame was edited after it was written"):
        CliRunner().invoke(cli, [verb, "-e", CONFIG], catch_exceptions=False)


def test_an_old_frame_is_no_finding(experiment):
    frame = read_frame(Path("results/digits/frame.parquet"))
    write_frame(frame.drop(columns=["listing_digest", "starting_weights"]), Path("results/digits"))
    assert audited() == {}


def test_an_experiment_that_cannot_be_read_has_its_own_exit_code(tmp_path):
    for options in (["-e", str(tmp_path / "none.yaml")], ["--baseline", str(tmp_path / "none")], ["--nonsense"]):
        assert CliRunner().invoke(cli, ["audit", *options]).exit_code == 2


def test_nothing_is_found_in_the_tracked_study_and_baseline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = REPOSITORY / "configs/digits_study.yaml"
    restore(load_experiment(config), REPOSITORY / SAMPLES)
    baseline = str(REPOSITORY / "results/baseline")
    done = CliRunner().invoke(cli, ["audit", "-e", str(config), "--baseline", baseline], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "record       35 records hold" in done.stdout
    assert "baseline     7 records hold" in done.stdout
