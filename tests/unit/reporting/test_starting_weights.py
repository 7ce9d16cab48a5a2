"""Numbers that rest on published weights are marked as such in every output."""

from __future__ import annotations

import csv
import io
import json

import pytest

from hafabench.config.experiment import load_experiment
from hafabench.explain.explain import explain
from hafabench.explain.render import to_json, to_markdown, to_text
from hafabench.files import write_text
from hafabench.reporting import csv as csv_files
from hafabench.reporting import latex, markdown
from hafabench.reporting.html.page import build_page, render
from hafabench.reporting.report import Report
from hafabench.results.record import StartingFile, write_record
from hafabench.runs.run import expand
from tests.support.messages import missing_facts
from tools.synthetic_records import evaluation, frame_of

PVT = StartingFile(file="/files/pvt_tiny.pth", sha256="a" * 64, read="its model, names of the published PVT code")
HAFA = StartingFile(file="/files/hafa.pth", sha256="b" * 64, read="the whole file")
TEXT = f"pvt_tiny.pth (sha256 {'a' * 12})"
MARK = "measured from published weights"


def record(model: str, value: float, weights: StartingFile | None, seed: int = 0):
    about = {"experiment": "paper", "scale": "full", "starting_weights": weights}
    return evaluation("segmentation", model, seed, {"miou": value}, **about)


@pytest.fixture
def report(repository, tmp_path, monkeypatch):
    """Return the report of runs of PVT-Tiny with and without HAFA that start from the given weights."""
    monkeypatch.chdir(tmp_path)
    experiment = load_experiment(repository / "configs/paper.yaml")

    def report(baseline: StartingFile | None, hafa: StartingFile | None, seeds: int = 1) -> Report:
        records = [
            record(model, value + seed / 4, weights, seed)
            for model, value, weights in (("pvt_tiny", 35.0, baseline), ("pvt_tiny_hafa", 38.0, hafa))
            for seed in range(seeds)
        ]
        return Report(experiment, frame_of(tmp_path, *records), None)

    return report


def cells_of(report: Report):
    table = report.tables["table2"]
    at = next(index for index, column in enumerate(table.columns) if column.key == "miou")
    return {row.model: row.cells[at] for row in table.rows}


def test_every_row_of_the_frame_names_the_weights(report):
    frame = report(PVT, None).frame
    named = dict(zip(frame["model"], frame["starting_weights"].fillna(""), strict=True))
    assert named == {"pvt_tiny": TEXT, "pvt_tiny_hafa": ""}


def test_cells_are_marked_in_every_format(report):
    made = report(PVT, HAFA)
    cells = cells_of(made)
    assert {cells[name].mark for name in ("pvt_tiny", "pvt_tiny_hafa")} == {MARK}
    assert cells["pvt_tiny"].ours(1)[0] == "35.0‡"
    table = made.tables["table2"]
    note = f"PVT-Tiny: {TEXT}; PVT-Tiny(HAFA): hafa.pth (sha256 {'b' * 12})"
    assert missing_facts("\n".join(table.notes), "‡: ", "published ImageNet weights", note) == []
    assert missing_facts(markdown.render_table(table), "35.0‡", "38.0‡ (+3.0)", "- ‡: ", "pvt\\_tiny.pth") == []
    assert missing_facts(latex.render_table(table), r"35.0$^\ddagger$", r"$^\ddagger$~the training started") == []
    lines = list(csv.DictReader(io.StringIO(csv_files.render_table(table))))
    marked = {line["row"]: (line["mark"], line["starting_weights"]) for line in lines if line["column"] == "miou"}
    assert marked["pvt_tiny"] == (MARK, TEXT)
    assert missing_facts(render(build_page(made)), "35.0‡", MARK, TEXT, "‡: the training started") == []


def test_numbers_without_published_weights_are_not_marked(report):
    made = report(None, None)
    assert {cell.mark for cell in cells_of(made).values()} == {"measured", "not run"}
    assert not any("‡" in note for note in made.tables["table2"].notes)


@pytest.mark.parametrize(("baseline", "hafa"), [(PVT, None), (None, HAFA)])
def test_a_model_from_published_weights_is_not_compared_with_one_of_this_project(report, baseline, hafa):
    made = report(baseline, hafa, seeds=3)
    cell = cells_of(made)["pvt_tiny_hafa"]
    assert (cell.delta, cell.delta_low) == (None, None)
    assert made.comparisons == []
    verdict = made.ledger.by_locator["table2/pvt_tiny_hafa/miou_delta"]
    assert verdict.verdict == "not run"
    assert "starting weights" in verdict.because


def test_two_models_from_published_weights_are_compared_and_marked(report):
    made = report(PVT, HAFA, seeds=3)
    (comparison,) = made.comparisons
    assert "published weights‡" in comparison.sentence
    assert comparison.fields[1] == "PVT-Tiny(HAFA)‡"
    (line,) = csv.DictReader(io.StringIO(csv_files.render_comparisons(made)))
    assert missing_facts(line["starting_weights"], TEXT, "hafa.pth") == []
    assert cells_of(made)["pvt_tiny_hafa"].delta == pytest.approx(3.0)


def test_verdicts_name_the_weights(report):
    made = report(PVT, HAFA)
    verdicts = made.ledger.by_locator
    figure, gain = verdicts["table2/pvt_tiny/miou"], verdicts["table2/pvt_tiny_hafa/miou_delta"]
    assert (figure.origin, figure.value_text) == (MARK, "35.00‡")
    assert missing_facts(figure.because, "trained from published weights", TEXT) == []
    assert missing_facts(gain.because, TEXT, "hafa.pth") == []
    assert missing_facts(markdown.claims_page(made.ledger, made.ledger.verdicts), "35.00‡", "‡: trained from") == []
    text = csv_files.render_claims(made.ledger, made.ledger.verdicts)
    lines = {line["locator"]: line for line in csv.DictReader(io.StringIO(text))}
    assert lines["table2/pvt_tiny/miou"]["origin"] == MARK


def test_explain_names_the_weights_of_the_number_and_of_the_run(write_experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path / "pvt_tiny.pth", "weights")

    def change(content):
        content["train"] = {"classification": [], "segmentation": ["pvt_tiny"], "detection": []}
        content["models"] = {"pvt_tiny": {"weights": "pvt_tiny.pth"}}
        content["overrides"] = []

    experiment = load_experiment(write_experiment(change, base="paper"))
    run = expand(experiment)["segmentation/pvt_tiny/seed0"]
    starting = StartingFile(file="pvt_tiny.pth", sha256=run.weights.sha256, read="its model")
    made = record("pvt_tiny", 35.0, starting).model_copy(update={"fingerprint": run.fingerprint})
    write_record(run.record, made)
    explanation = explain(experiment, "table2/pvt_tiny/miou")
    digest = run.weights.sha256
    facts = ["35.0‡", MARK, "published weights, pvt_tiny.pth", digest[:12], "its model"]
    assert missing_facts(" ".join(to_text(explanation).split()), *facts, "at pvt_tiny.pth") == []
    assert missing_facts(to_markdown(explanation).replace("\\", ""), *facts) == []
    assert json.loads(to_json(explanation))["origins"][0]["starting_weights"]["sha256"] == digest
    assert not any("classification" in command for command in explanation.remake.by_hand)
    (tmp_path / "pvt_tiny.pth").unlink()
    write_text(run.folder / "config.json", json.dumps(run.resolved()))
    explanation = explain(experiment, "table2/pvt_tiny/miou")
    assert missing_facts(" ".join(to_text(explanation).split()), digest[:12], "no longer exists") == []
