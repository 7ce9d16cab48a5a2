"""Collapsed trainings, failed jobs and missing records in the frame, the tables, the report and the explanations."""

from __future__ import annotations

import pytest
import yaml

from hafabench.cluster.status import experiment_status, render
from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.explain.explain import explain
from hafabench.explain.render import to_json, to_text
from hafabench.files import write_text
from hafabench.reporting import latex, markdown
from hafabench.reporting.csv import render_table
from hafabench.reporting.frame import collect_experiment, read_frame
from hafabench.reporting.html.overview import experiment_details
from hafabench.reporting.report import build_report
from hafabench.reporting.write import write_report
from hafabench.results.record import Collapse, write_record
from hafabench.runs.jobs import JobList
from hafabench.runs.paths import counts_record
from hafabench.runs.run import Run, expand
from hafabench.runs.state import output_states
from tests.support.experiments import evaluated
from tests.support.slurm_commands import RecordedCommands
from tools.checkout import REPOSITORY
from tools.synthetic_records import evaluation

MODEL = "pvt_tiny_hafa"


@pytest.fixture
def experiment(write_experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return load_experiment(write_experiment(lambda content: content.update(seeds=[0, 1, 2])))


def trained(run: Run, value: float) -> None:
    name = {"classification": "top1", "segmentation": "miou", "detection": "box_ap"}[run.task]
    evaluated(run)
    write_record(
        run.record, evaluation(run.task, run.model.name, run.seed, {name: value}, fingerprint=run.fingerprint)
    )


def collapsed(run: Run, by: Run | None = None, step: int = 12) -> None:
    collapse = Collapse(run=(by or run).id, step=step, reason="the loss is nan")
    record = evaluation(run.task, run.model.name, run.seed, {"top1": 0.0}, fingerprint=run.fingerprint)
    evaluated(run)
    write_record(run.record, record.model_copy(update={"metrics": [], "collapse": collapse}))


def failed(run: Run, line: str = "error: data/digits/imagenet: no such folder") -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "train.log").write_text(
        f"hafabench: begins train_run {run.id}, fingerprint {run.fingerprint}, process 1 on x\n{line}\n"
    )


def cell_of(report, table: str, key: str):
    built = report.tables[table]
    row = next(row for row in built.rows if row.model == MODEL)
    return row.cells[[column.key for column in built.columns].index(key)]


def test_a_cell_whose_training_collapsed_shows_an_em_dash(experiment):
    runs = expand(experiment)
    for seed in (0, 1, 2):
        collapsed(runs[f"classification/{MODEL}/seed{seed}"], step=12 + seed)
        collapsed(runs[f"segmentation/{MODEL}/seed{seed}"], by=runs[f"classification/{MODEL}/seed{seed}"])
    frame, _ = collect_experiment(experiment)
    assert read_frame(experiment.results / "frame.csv").equals(frame)
    report = build_report(experiment)
    cell = cell_of(report, "table1", "top1")
    assert (cell.mark, cell.ours(1), cell.value) == ("collapsed", ("\u2014", ""), None)
    table = report.tables["table1"]
    assert "\u2014: the training collapsed." in table.notes
    assert any("PVT-Tiny(HAFA), seed 1 (Top-1 (%)): training collapsed at step 13" in note for note in table.notes)
    # A fine-tuning that did not begin is named, but did not collapse itself.
    dependent = cell_of(report, "table2", "miou")
    assert (dependent.mark, dependent.ours(1)[0]) == ("not run", "\u2013")
    text = f"not run: its starting weights, classification/{MODEL}/seed0, collapsed at step 12"
    assert any(text in note for note in report.tables["table2"].notes)
    verdict = report.ledger.by_locator[f"table2/{MODEL}/miou"]
    assert (verdict.verdict, verdict.because) == ("not run", text.removeprefix("not run: "))
    assert "---" in latex.render_table(table)
    assert "U+2014" not in latex.render_table(table)
    assert "| \u2014 |" in " ".join(markdown.render_table(table).split())
    assert ",collapsed," in render_table(table)
    assert "training collapsed at step 12" in dict(experiment_details(report))["Collapsed"]
    assert dict(experiment_details(report))["Runs"].startswith("0 of ")
    assert write_report(report)


def test_a_seed_that_collapsed_among_others_is_named_in_the_cell(experiment):
    runs = expand(experiment)
    for seed, value in ((0, 50.0), (2, 51.0)):
        trained(runs[f"classification/{MODEL}/seed{seed}"], value)
        trained(runs[f"classification/pvt_tiny/seed{seed}"], value - 1)
    collapsed(runs[f"classification/{MODEL}/seed1"])
    collect_experiment(experiment)
    report = build_report(experiment)
    left_out = f"- Not part of the comparisons: classification/{MODEL}/seed1, training collapsed at step 12"
    assert left_out in markdown.comparisons_page(report).replace("\\", "")
    cell = cell_of(report, "table1", "top1")
    assert cell.ours(1)[0] == "50.5 ± 0.7, seed 1 collapsed"
    assert (cell.mark, cell.n) == ("measured", 2)


def test_a_failed_run_and_those_that_wait_for_it_are_named(experiment):
    runs = expand(experiment)
    for seed in (0, 1):
        trained(runs[f"classification/{MODEL}/seed{seed}"], 50.0)
    failed(runs[f"classification/{MODEL}/seed2"])
    for seed in (0, 1, 2):
        failed(runs[f"classification/resnet18/seed{seed}"])
    collect_experiment(experiment, partial=True)
    report = build_report(experiment)
    assert cell_of(report, "table1", "top1").ours(1)[0] == "50.0 ± 0.0, seed 2 failed"
    resnet = next(row for row in report.tables["table1"].rows if row.model == "resnet18")
    assert "failed" in [cell.ours(1)[0] for cell in resnet.cells]
    page = markdown.tables_page(report)
    assert "- failed: train\\_run: data/digits/imagenet: no such folder: classification/" in page
    assert "not run: train\\_run classification/pvt\\_tiny\\_hafa/seed2 failed" in page
    details = dict(experiment_details(report))["Missing"]
    assert details.startswith("failed: train_run: data/digits/imagenet: no such folder: classification/")
    assert f"classification/{MODEL}/seed2" in details


def test_an_imported_number_does_not_hide_a_collapse(experiment):
    runs = expand(experiment)
    for seed in (0, 1, 2):
        collapsed(runs[f"classification/{MODEL}/seed{seed}"])
    imported = experiment.results / f"imported/evaluate/classification/{MODEL}/seed_unknown-00000000.json"
    from hafabench.runs.fingerprints import imported_fingerprint

    mark = imported_fingerprint(experiment, "evaluate", "classification")
    about = {"origin": "imported", "id": f"imported/classification/{MODEL}/seed_unknown", "fingerprint": mark}
    write_record(imported, evaluation("classification", MODEL, None, {"top1": 77.0}, **about))
    collect_experiment(experiment)
    assert cell_of(build_report(experiment), "table1", "top1").ours(1)[0] == "\u2014"


def test_a_partial_frame_leaves_out_what_cannot_be_used_and_is_made_again(experiment):
    runs = expand(experiment)
    good, stale, broken = (runs[f"classification/{MODEL}/seed{seed}"] for seed in (0, 1, 2))
    for run in (good, stale, broken):
        trained(run, 50.0)
    write_record(stale.record, evaluation("classification", MODEL, 1, {"top1": 40.0}, fingerprint="0" * 12))
    broken.record.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        collect_experiment(experiment)
    frame, missing = collect_experiment(experiment, partial=True)
    assert frame["id"].unique().tolist() == [good.id]
    assert {stale.record, broken.record} <= set(missing)
    assert output_states(JobList(experiment))["collect_records"].outputs == "stale"
    write_text(counts_record(experiment), "{")
    with pytest.raises(UserError, match=r"counts\.json"):
        build_report(experiment)
    assert build_report(experiment, partial=True).outcomes.missing


def test_a_collapsed_cell_is_explained(experiment):
    runs = expand(experiment)
    for seed in (0, 1, 2):
        collapsed(runs[f"classification/{MODEL}/seed{seed}"])
    found = explain(experiment, f"table1/{MODEL}/top1")
    assert (found.value.mark, found.value.printed, found.cost) == ("collapsed", "\u2014", None)
    assert f"classification/{MODEL}/seed0: training collapsed at step 12 (the loss is nan)" in found.notes
    assert "\u2014 (collapsed)" in to_text(found)
    assert '"mark": "collapsed"' in to_json(found)


def test_a_collapsed_run_is_no_failure_in_the_status(experiment):
    run = expand(experiment)[f"classification/{MODEL}/seed0"]
    collapsed(run)
    text = render(experiment_status(experiment, runner=RecordedCommands({})))
    assert "1 collapsed" in text
    assert "failed," not in text
    assert f"evaluate_run {run.id}  training collapsed at step 12 (the loss is nan)" in text


# The claim that a training collapsed.

LAA = "classification/pvt_v2_b1_laa_laa_laa"
CLAIM = "table4/pvt_v2_b1_laa_laa_laa/top1"


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """The paper's experiment with three seeds, in an empty folder."""
    content = yaml.safe_load((REPOSITORY / "configs/paper.yaml").read_text())
    file = tmp_path / "paper.yaml"
    file.write_text(yaml.safe_dump(content | {"seeds": [0, 1, 2]}, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    return load_experiment(file)


def full(run: Run, collapses: bool) -> None:
    about = {"fingerprint": run.fingerprint, "experiment": "paper", "scale": "full"}
    record = evaluation(run.task, run.model.name, run.seed, {"top1": 79.0}, **about)
    if collapses:
        outcome = Collapse(run=run.id, step=700 + run.seed, reason="the loss is nan")
        record = record.model_copy(update={"metrics": [], "collapse": outcome})
    write_record(run.record, record)


def verdict_of(experiment, locator: str):
    collect_experiment(experiment)
    return build_report(experiment).ledger.by_locator[locator]


@pytest.mark.parametrize(
    ("collapses", "verdict", "because"),
    [
        ([True, True, True], "reproduced", "3 of 3 trainings collapsed (step 700, 701, 702)"),
        ([True, True, False], "inconclusive", "2 of 3 trainings collapsed (step 700, 701)"),
        ([False, False, False], "contradicted", "0 of 3 trainings collapsed"),
    ],
)
def test_the_collapse_in_table_4_is_a_claim(paper, collapses, verdict, because):
    runs = expand(paper)
    for seed, collapsing in enumerate(collapses):
        full(runs[f"{LAA}/seed{seed}"], collapsing)
    found = verdict_of(paper, CLAIM)
    assert (found.verdict, found.because) == (verdict, because)
    assert (found.claim.text_with_unit, found.seeds) == ("\u2014", 3)


def test_the_papers_em_dash_is_printed_as_such(paper):
    found = verdict_of(paper, CLAIM)
    assert (found.verdict, found.because) == ("not run", "nothing measured")
    table = build_report(paper).tables["table4"]
    row = next(row for row in table.rows if row.label == "LAA-LAA-LAA")
    assert [cell.cited(1) for cell in row.cells] == [("\u2014", "")] * 2
    assert [cell.paper_mark for cell in row.cells] == ["collapsed"] * 2
    assert "\u2014: the training collapsed." in table.notes
    text = to_text(explain(paper, CLAIM))
    assert "paper    \u2014" in text


def test_a_figure_of_a_training_that_collapsed_is_inconclusive(paper):
    runs = expand(paper)
    for seed in (0, 1, 2):
        full(runs[f"classification/pvt_tiny/seed{seed}"], True)
    found = verdict_of(paper, "table1/pvt_tiny/top1")
    assert (found.verdict, found.value_text) == ("inconclusive", "\u2014")
    assert found.because == "no figure, training collapsed at step 700 (the loss is nan)"


def test_a_collapse_on_other_data_is_not_comparable(experiment):
    for seed in (0, 1, 2):
        collapsed(expand(experiment)[f"classification/{MODEL}/seed{seed}"])
    found = verdict_of(experiment, f"table1/{MODEL}/top1")
    assert found.verdict == "not comparable"
    assert found.because.startswith("no figure, training collapsed at step 12 (the loss is nan); ")
