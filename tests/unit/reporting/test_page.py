"""The HTML page: it is complete, loads nothing from elsewhere and escapes all texts."""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.files import sha256_of
from hafabench.pictures.index import PictureIndex, Sheet, SheetRow, Tile, Weights, write_index
from hafabench.pictures.tiles import save_tile
from hafabench.reporting.charts.chart import PALETTE
from hafabench.reporting.charts.report_charts import figure_files
from hafabench.reporting.frame import collect_experiment
from hafabench.reporting.html.claims import claim_groups, marks_of_cell
from hafabench.reporting.html.page import build_page, page_file, render
from hafabench.reporting.report import build_report
from hafabench.results.record import Collapse, read_record, write_record
from hafabench.runs.paths import picture_index
from hafabench.runs.run import expand
from tests.support.synthetic_experiment import fill_results
from tools.checkout import REPOSITORY
from tools.synthetic_records import evaluation

STYLE = REPOSITORY / "src/hafabench/reporting/html/templates/style.css"
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


@dataclass
class Parsed(HTMLParser):
    """The elements of a page; `feed` fails if the tags are not balanced."""

    ids: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open[-1:]} at {self.getpos()}"
        self._open.pop()

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def parsed(html: str) -> Parsed:
    page = Parsed()
    page.feed(html)
    page.close()
    assert page._open == []
    return page


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """A folder with synthetic results of the embedded experiment and of the study."""
    folder = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("digits", "digits_study"):
            fill_results(load_experiment(REPOSITORY / f"configs/{name}.yaml"))
    return folder


@pytest.fixture
def load(filled, monkeypatch, tmp_path):
    def load(name: str):
        shutil.copytree(filled / "results" / name, tmp_path / "results" / name)
        monkeypatch.chdir(tmp_path)
        return load_experiment(REPOSITORY / f"configs/{name}.yaml")

    return load


@pytest.fixture
def digits(load):
    return load("digits")


@pytest.fixture
def fresh(write_experiment, monkeypatch, tmp_path):
    """A function that makes a changed copy of the embedded experiment without results."""

    def fresh(change=None):
        path = write_experiment(change)
        monkeypatch.chdir(tmp_path)
        return load_experiment(path)

    return fresh


def make_page(experiment):
    return build_page(build_report(experiment))


def store_pictures(experiment, **changes) -> Sheet:
    """Write one row of two tiles and the index that lists them; returns the sheet."""
    run = expand(experiment)["classification/pvt_tiny_hafa/seed0"]
    folder = picture_index(experiment).parent
    tiles = []
    for column, caption in enumerate(("a seven", "moved 0.5")):
        file = f"tiles/offsets/0_{column}.webp"
        save_tile(Image.new("RGB", (320, 320), (200, 30 * column, 30)), folder / file)
        tiles.append(Tile(file=file, sha256=sha256_of(folder / file), caption=caption))
    values = {
        "file": "offsets.webp",
        "dataset": "digits",
        "tile_size": 320,
        "columns": ["image", "LAA into stage 2"],
        "rows": [SheetRow(image="one.png", tiles=tiles)],
        "weights": [Weights(run=run.id, fingerprint=run.fingerprint, checkpoint_sha256="ab" * 32)],
        "notes": ["Rings are fixed."],
    }
    sheet = Sheet(**(values | changes))
    write_index(picture_index(experiment), PictureIndex(experiment=experiment.name, clusters=None, offsets=sheet))
    return sheet


def test_every_section_is_there_and_well_formed(digits):
    assert page_file(build_report(digits)) == digits.reports / "report.html"
    html = render(make_page(digits))
    page = parsed(html)
    for anchor in ("comparisons", "tables", "claims", "accuracy", "curves", "pictures", "records"):
        assert anchor in page.ids
    assert [f"table{n}" for n in range(1, 7)] == [i for i in page.ids if re.fullmatch(r"table\d", i)]
    assert len(page.ids) == len(set(page.ids))
    for _, name, value in page.attributes:
        if name == "popovertarget" or (name == "href" and value.startswith("#")):
            assert value.removeprefix("#") in page.ids
    assert "EMBEDDED DATA" in page.text
    assert "19 of 19 evaluated" in page.text
    assert len(html) < 600_000


def test_cells_show_what_the_tables_show_and_where_it_came_from(digits):
    page = make_page(digits)
    text = parsed(render(page)).text
    cells = [cell for view in page.tables for group in view.groups for row in group for cell in row.cells]
    assert {cell.cell.mark for cell in cells} == {"measured", "counted", "not run"}
    for cell in cells:
        assert cell.value in text
        assert (cell.id is None) == (cell.cell.mark == "not run")
    row = next(row for group in page.tables[0].groups for row in group if row.model == "pvt_tiny_hafa")
    card = dict(row.cells[-1].shared)
    record = json.loads(Path("results/digits/classification/pvt_tiny_hafa/seed0/evaluate.json").read_text())
    assert card["Commit"] == record["provenance"]["git_commit"][:10]
    assert record["provenance"]["checkpoint_sha256"][:16] in card["Checkpoint"]
    assert record["provenance"]["dataset_digest"][:16] in card["Data set"]
    assert card["Device"] == "cpu, 1 thread"
    assert card["Duration"] == "1.5 s"
    assert card["Training"].startswith("60 steps, ")
    assert card["Record"] == "results/digits/classification/pvt_tiny_hafa/seed0/evaluate.json"
    assert row.baseline == "PVT-Tiny"
    assert f"hafabench explain table1/pvt_tiny_hafa/top1 --experiment {digits.file}" in text


def test_the_card_of_a_difference_without_a_figure_and_the_row_of_a_collapse(fresh):
    models = ["pvt_v2_b1_hafa", "pvt_v2_b1_laa_laa_conv", "pvt_v2_b1_laa_laa_laa"]
    batch = {"runs": "classification/*", "why": "a test", "set": {"batch_size": 8}}
    changes = {"train": {"classification": models}, "latency": [], "overrides": [batch]}
    experiment = fresh(lambda content: content.update(changes))
    runs = expand(experiment)
    for model in models:
        run = runs[f"classification/{model}/seed0"]
        record = evaluation("classification", model, 0, {"top1": 50.0}, fingerprint=run.fingerprint)
        if model == models[-1]:
            collapse = Collapse(run=run.id, step=3, reason="the loss is nan")
            record = record.model_copy(update={"metrics": [], "collapse": collapse})
        write_record(run.record, record)
    collect_experiment(experiment)
    page = make_page(experiment)
    (card,) = re.findall(r'aria-label="LAA-LAA-CONV, .*?explain text4.4', render(page), re.DOTALL)
    assert re.search(r"<dt>Paper</dt><dd>\s*\(-0.5\)</dd>", card) and "prints no number" not in card
    (row,) = [row for view in page.tables for group in view.groups for row in group if row.model == models[-1]]
    assert row.ran and row.cells[0].value == "\u2014"


def test_nothing_is_loaded_from_elsewhere(digits):
    store_pictures(digits)
    html = render(make_page(digits))
    page = parsed(html)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    for _, name, value in page.attributes:
        if name in ("href", "src", "srcset", "action", "poster", "xlink:href"):
            assert value.startswith(("#", "data:image/webp;base64,")), value
        assert not name.startswith("on"), "no inline script"
    assert "url(" not in STYLE.read_text()
    assert "@import" not in STYLE.read_text()
    assert "default-src 'none'" in html


def test_a_users_text_is_never_markup(fresh):
    nasty = '<script>alert("x")</script> & "quotes"'
    experiment = fresh(lambda content: content.update(title=nasty))
    fill_results(experiment, share=0.1)
    run = expand(experiment)["classification/pvt_tiny/seed0"]
    record = read_record(run.record)
    provenance = record.provenance.model_copy(update={"device": "<b>cpu & co</b>"})
    write_record(run.record, record.model_copy(update={"provenance": provenance}))
    collect_experiment(experiment)
    html = render(make_page(experiment))
    assert "<script" not in html
    assert "<b>cpu" not in html
    page = parsed(html)
    assert nasty in page.text
    assert "<b>cpu & co</b>, 1 thread" in page.text


def test_an_experiment_of_which_nothing_has_run(fresh):
    experiment = fresh()
    collect_experiment(experiment)
    page = make_page(experiment)
    text = parsed(render(page)).text
    assert "0 of 19 evaluated" in text
    assert "Nothing has been measured yet" in text
    assert "No training has written a history" in text
    assert "No pictures have been drawn" in text
    assert "No evaluated model has a counted or timed cost" in text
    assert page.report.comparisons == []
    # The paper's numbers are there all the same.
    assert "77.5 (+2.4)" in text


def test_a_page_needs_the_collected_frame(fresh):
    with pytest.raises(UserError, match="hafabench collect"):
        make_page(fresh())


def test_several_seeds_have_spread_intervals_and_a_value_each(load):
    page = make_page(load("digits_study"))
    assert len(page.report.comparisons) == 4
    cell = page.tables[0].groups[0][3].cells[-1]
    assert cell.cell.n == 5
    assert "±" in cell.value
    assert [source.name for source in cell.sources] == [f"seed {seed}" for seed in range(5)]
    values = [float(source.value) for source in cell.sources]
    assert sum(values) / 5 == pytest.approx(cell.cell.value, abs=0.01)
    # What the seeds share is shown once, and the rest for each seed.
    assert "Commit" in dict(cell.shared)
    assert all({"Checkpoint", "Record"} <= set(dict(source.details)) for source in cell.sources)
    classification = page.report.charts.learning_curves[0].svg
    assert classification.count(", one seed</title>") == 10
    assert classification.count(", mean of 5 seeds</title>") == 2
    text = parsed(render(page)).text
    for comparison in page.report.comparisons:
        assert comparison.sentence in text


def test_claims_are_shown_by_verdict_and_beside_their_cells(digits):
    report = build_report(digits)
    locators = ("table1/pvt_tiny_hafa/params_m", "table1/pvt_tiny_hafa/top1_delta")
    verdicts = tuple(
        replace(v, verdict="contradicted", value=14.25, because="made up") if v.claim.locator in locators else v
        for v in report.ledger.verdicts
    )
    ledger = replace(report.ledger, verdicts=verdicts)
    groups = {group.verdict: group for group in claim_groups(ledger)}
    assert {name: len(group.verdicts) for name, group in groups.items()} == ledger.totals()
    contradicted = groups["contradicted"].verdicts
    assert [(v.claim.locator, v.value_text) for v in contradicted] == [
        (locators[0], "14.25"),
        (locators[1], "+14.25"),
    ]
    assert contradicted[0].claim.text_with_unit == "14.6 M"
    top1 = digits.table_layouts[0].columns[-1]
    of_cell = marks_of_cell(ledger.by_locator, "table1/pvt_tiny_hafa/top1", top1)
    assert [(mark.what.split()[0], mark.tone) for mark in of_cell] == [("figure", "none"), ("difference", "bad")]
    # What the paper does not print is no claim.
    (mark,) = marks_of_cell(ledger.by_locator, "table4/pvt_v2_b1_laa_laa_laa/top1", top1)
    assert (mark.what, mark.verdict) == ("collapse", "not comparable")
    vars(report)["ledger"] = ledger
    text = parsed(render(build_page(report))).text
    assert "2 of 224 are settled" in text
    assert "Made up." in text
    for verdict in verdicts:
        assert verdict.claim.locator in text


def test_pictures_are_embedded_with_their_captions(digits):
    sheet = store_pictures(digits)
    page = parsed(render(make_page(digits)))
    images = [value for tag, name, value in page.attributes if tag == "img" and name == "src"]
    stored = [(digits.reports / "figures" / tile.file).read_bytes() for tile in sheet.rows[0].tiles]
    assert [base64.b64decode(image.partition(",")[2]) for image in images] == stored
    assert "LAA into stage 2" in page.text
    assert "moved 0.5" in page.text
    assert "sha256 abababababababab" in page.text
    assert "no pictures of SIA's clusters" in page.text


def test_pictures_of_another_configuration_are_not_shown(digits):
    other = Weights(run="classification/pvt_tiny_hafa/seed0", fingerprint="0" * 12, checkpoint_sha256="ab" * 32)
    store_pictures(digits, weights=[other])
    page = make_page(digits)
    assert page.gallery.offsets is None
    assert "show runs of another configuration" in parsed(render(page)).text


def test_a_tile_that_differs_from_the_listed_one_is_refused(digits):
    sheet = store_pictures(digits)
    tile = digits.reports / "figures" / sheet.rows[0].tiles[1].file
    tile.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"0_1.webp: not the tile that pictures.json lists"):
        make_page(digits)
    tile.unlink()
    (reason,) = (text for text in make_page(digits).gallery.missing if "0_1.webp" in text)
    assert "hafabench pictures --experiment" in reason


def test_costs_are_shown_where_there_is_accounting(digits):
    turn = {
        **dict.fromkeys(("cpu_s", "peak_memory_mb", "gpu_use", "submitted", "ended")),
        **{"job_id": "7", "state": "COMPLETED", "exit_code": 0, "elapsed_s": 7200.0, "gpus": 2, "cpus": 4},
        **{"nodes": "node7", "started": "2026-01-02T03:04:05"},
    }
    jobs = [{"rule": "train_run", "subject": "classification/pvt_tiny/seed0", "turns": [turn]}]
    about = {"experiment": "digits", "backend": "sacct", "updated": "2026-01-02T05:00:00"}
    content = {"schema": "hafabench.accounting/1", **about, "cells": jobs}
    (digits.results / "accounting.json").write_text(json.dumps(content))
    page = make_page(digits)
    assert ("costs", "Cost") in page.sections
    text = parsed(render(page)).text
    assert "4.0 GPU-hours over all attempts" in text
    assert "node7" in text


def test_the_same_results_give_the_same_bytes(digits):
    pages = [render(make_page(digits)) for _ in range(2)]
    assert pages[0] == pages[1]


def test_the_page_contains_every_chart_of_the_figure_files(digits):
    page = make_page(digits)
    charts = page.report.charts
    shown = [*charts.comparisons, *charts.learning_curves, *(c for row in charts.accuracy_cost.values() for c in row)]
    assert len(shown) >= 9
    html = render(page)
    described = [value for tag, name, value in parsed(html).attributes if (tag, name) == ("svg", "aria-label")]
    assert sorted(described) == sorted(chart.description for chart in shown)
    files = figure_files(digits, charts)
    for chart in shown:
        assert html.count(f'id="{chart.name}-') > 0
        assert sum(f'id="{chart.name}-' in text for text in files.values()) == 1


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_that_wcag_asks_for(theme):
    block = re.findall(r":root \{(.*?)\n\s*\}", STYLE.read_text(), re.DOTALL)[theme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for name in ("ink", "muted", "merger", "baseline", "good", "bad", "open"):
        for ground in ("bg", "panel"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    assert contrast(colours["warn-ink"], colours["warn-bg"]) >= 4.5
    for name in PALETTE:
        if name.startswith("series"):
            assert contrast(colours[name], colours["bg"]) >= 3, name
