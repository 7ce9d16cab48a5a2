"""Titles, labels, notes and records that would act on a format are shown by every writer as they are."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import yaml

from hafabench.config.experiment import load_experiment
from hafabench.explain.explain import explain
from hafabench.explain.render import to_markdown, to_text
from hafabench.formatting.latex import escape_latex, escape_latex_row
from hafabench.formatting.text import one_line
from hafabench.plan.plan import make_plan
from hafabench.plan.render import to_markdown as plan_markdown
from hafabench.regression import report as gate
from hafabench.regression.changes import Change, Changes
from hafabench.regression.effects import Effect
from hafabench.regression.records import MetricKey
from hafabench.reporting import csv as csv_files
from hafabench.reporting import latex, markdown
from hafabench.reporting.charts.report_charts import figure_files
from hafabench.reporting.claims.output import to_text as claims_text
from hafabench.reporting.frame import collect_experiment
from hafabench.reporting.html import page
from hafabench.reporting.report import build_report
from hafabench.results.record import read_record, write_record
from hafabench.runs.paths import complexity_record
from hafabench.runs.run import expand
from tests.support.hostile import TEXTS, shown_by_markdown
from tests.support.synthetic_experiment import fill_results
from tools.checkout import REPOSITORY

OWN_TAGS = {"h1", "h2", "h3", "p", "ul", "li", "strong", "em", "code", "pre", "img"}
OWN_TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\uffff]")
IN_YAML = [text for text in TEXTS.values() if not re.search("[\x00-\x08\x0b\x0e-\x1f\x9b\ud800\uffff]", text)]


@pytest.fixture(params=range(4), ids=str)
def report(request, tmp_path, monkeypatch, write_experiment):
    """A report of two models whose texts are all hostile; each turn gives every place another text."""
    texts = [IN_YAML[(request.param * 7 + place) % len(IN_YAML)] for place in range(8)]
    monkeypatch.chdir(tmp_path)
    columns = [
        {"key": "params_m", "header": texts[0], "task": "classification", "note": texts[1]},
        {"key": "top1", "header": texts[2], "task": "classification", "delta": True},
    ]
    rows = [
        {"model": "pvt_tiny", "label": texts[3], "group": texts[4]},
        {"model": "pvt_tiny_hafa", "label": texts[5], "group": texts[4], "baseline": "pvt_tiny"},
    ]
    table = {"id": "table1", "title": texts[6], "columns": columns, "rows": rows}
    tables = [table]
    # Every task has counts.
    for number, task in enumerate(("segmentation", "detection"), start=2):
        counted = [{"key": "params_m", "header": "Params", "task": task}]
        tables.append({"id": f"table{number}", "title": texts[7], "columns": counted, "rows": rows[:1]})
    (tmp_path / "tables.yaml").write_text(yaml.safe_dump({"tables": tables}))
    claims = yaml.safe_load((REPOSITORY / "configs/claims.yaml").read_text())
    del claims["protocol"]
    claims["notes"] = [{"rows": ["table1/pvt_tiny/*"], "says": f"note {texts[7]}"}]
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump(claims))

    def change(content):
        content.update(title=texts[7], tables=str(tmp_path / "tables.yaml"), claims=str(tmp_path / "claims.yaml"))
        content.update(train={"classification": ["pvt_tiny", "pvt_tiny_hafa"]}, seeds=[0, 1], latency=[])
        content["overrides"] = [
            {**entry, "why": f"why {texts[0]}"}
            for entry in content["overrides"]
            if entry["runs"] == "classification/*"
        ]

    experiment = load_experiment(write_experiment(change))
    fill_results(experiment)
    for path in [run.record for run in expand(experiment).values()] + [
        complexity_record(experiment, "classification")
    ]:
        record = read_record(path)
        metrics = [metric.model_copy(update={"convention": TEXTS["escape"]}) for metric in record.metrics]
        changed = {"device": TEXTS["html"], "host": TEXTS["direction"], "command": f"hafabench {TEXTS['escape']}"}
        provenance = record.provenance.model_copy(update=changed)
        write_record(path, record.model_copy(update={"metrics": metrics, "provenance": provenance}))
    collect_experiment(experiment)
    made = build_report(experiment)
    return made, texts


def shown(texts, *places):
    return [one_line(texts[place]) for place in places]


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.tags, self.attributes = "", set(), set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        self.tags.add("comment")


@pytest.mark.slow
def test_every_writer_of_a_report(report):
    made, texts = report
    for path, source in markdown.files(made).items():
        tags, text = shown_by_markdown(source)
        assert tags <= OWN_TAGS, path
        assert not CONTROL.search(source), path
        if path.name == "table1.md":
            assert all(expected in text for expected in shown(texts, 0, 1, 2, 3, 5, 6))
            assert source.count("\n## ") == 0
        if path.name == "claims.md":
            assert shown(texts, 7)[0] in text
    for path, source in latex.files(made).items():
        assert not re.search(r"\\(input|write|par(?!\b\\smallskip|box)\b(?!\\smallskip))", source), path
        assert not CONTROL.search(source), path
    for path, source in csv_files.files(made).items():
        for cells in csv.reader(io.StringIO(source, newline="")):
            formulas = [cell for cell in cells if re.match(r"\s*[-=+@\uff1d]", cell)]
            assert all(re.fullmatch(r"[-+\d.e ]+", cell) for cell in formulas), (path, formulas)
    html = Page()
    html.feed(page.files(made)[page.page_file(made)])
    assert not html.tags & {"script", "comment", "z", "http:"}
    assert not [name for name in html.attributes if name.startswith("on")]
    assert not CONTROL.search(html.text)
    spaceless = re.sub(r"\s", "", html.text)
    assert all(re.sub(r"\s", "", text) in spaceless for text in (*shown(texts, 0, 2, 3, 5), one_line(TEXTS["html"])))
    for source in figure_files(made.experiment, made.charts, made.shown_scale).values():
        root = ElementTree.fromstring(source)
        assert not root.findall(".//{*}script")
        assert not CONTROL.search(source)


@pytest.mark.slow
def test_every_text_for_a_terminal(report):
    made, texts = report
    found = explain(made.experiment, "table1/pvt_tiny/top1")
    tags, _ = shown_by_markdown(to_markdown(found))
    assert tags <= OWN_TAGS
    plan = plan_markdown(make_plan(made.experiment), listing=True)
    assert shown_by_markdown(plan)[0] <= OWN_TAGS
    assert one_line(texts[7]) in shown_by_markdown(plan)[1]
    for text in (to_text(found), claims_text(made.ledger, made.ledger.verdicts), plan):
        # Long texts are wrapped and indented.
        assert not [line for line in text.splitlines() if line.startswith("\\input")]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed (texlive-latex-recommended)")
def test_latex_compiles_every_text(tmp_path):
    rows = "\n".join(f"{escape_latex_row(text)} & {escape_latex(text)} \\\\" for text in TEXTS.values())
    body = f"\\section*{{{escape_latex(TEXTS['input'])}}}\n\\begin{{tabular}}{{ll}}\n{rows}\n\\end{{tabular}}"
    source = f"\\documentclass{{article}}\n\\begin{{document}}\n\\small\n{body}\n\\end{{document}}\n"
    (tmp_path / "a.tex").write_text(source)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passwd" not in done.stdout
    assert "Missing character" not in (tmp_path / "a.log").read_text(errors="replace")


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_every_report_of_the_gate(text):
    key = MetricKey("evaluate", "classification", text, "top1")
    changes = Changes(
        (
            Change(key, "worse", "%", 1.0, 2.0, Effect(1.0, 0.5, 1.5, 0.1, text), 0.1, (text,)),
            Change(key, "no change", "%", 1.0, 1.0, Effect(0.0, 0.0, 0.0, 0.1, text), 0.1),
        ),
        0.01,
        (text,),
    )
    source = gate.markdown(changes, "Regression gate")
    tags, said = shown_by_markdown(source)
    assert tags - {"details", "summary"} <= OWN_TAGS
    assert said.count(one_line(text)) == 6
    assert len(gate.text(changes).splitlines()) == 3
    root = ElementTree.fromstring(gate.junit(changes, "regression"))
    assert [case.get("classname") for case in root.iter("testcase")].count(None) == 0
    assert one_line(text) in root.find(".//failure").get("message")
