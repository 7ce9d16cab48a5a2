"""Markdown, LaTeX and CSV of the same table: exact texts, escapes, all files, the same bytes every time, pdflatex."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from hafabench.config.experiment import load_experiment
from hafabench.config.paper_values import PaperValue, load_paper_values
from hafabench.config.tables import Column, Row, TableLayout, load_table_layouts
from hafabench.errors import UserError
from hafabench.files import write_text
from hafabench.formatting.latex import escape_latex
from hafabench.reporting import csv as cells_csv
from hafabench.reporting import latex, markdown
from hafabench.reporting.frame import empty_frame
from hafabench.reporting.report import Report
from hafabench.reporting.table_metrics import TableMetrics
from hafabench.reporting.tables import build_table
from hafabench.reporting.write import write_report
from tests.support.experiments import EXAMPLE
from tests.support.markdown import table_rows
from tools.checkout import REPOSITORY
from tools.synthetic_records import complexity, evaluation, frame_of, latency

TABLE_LAYOUT = TableLayout(
    id="table9",
    title="Things_compared",
    columns=[
        Column(key="params_m", header="Params (M)", task="classification", metric="params", factor=1e-6),
        Column(key="top1", header="Top-1 (%)", task="classification", delta=True),
    ],
    rows=[
        Row(model="a", label="A", group="one"),
        Row(model="a_hafa", label="A(HAFA)", group="one", baseline="a"),
        Row(model="b", label="B_1 & co", group="two"),
    ],
)
PAPER = {
    ("table9", row, metric): PaperValue("table9", row, metric, row, "g", None, value, delta)
    for row, metric, value, delta in [
        ("a", "params_m", 13.2, None),
        ("a", "top1", 75.1, None),
        ("a_hafa", "params_m", 14.6, None),
        ("a_hafa", "top1", 77.5, 2.4),
        ("b", "params_m", None, None),
        ("b", "top1", 101.0, None),
    ]
}
ABOUT = {"experiment": "digits", "title": "Toy digits", "scale": "embedded"}


@pytest.fixture
def table(tmp_path):
    frame = frame_of(
        tmp_path / "results",
        complexity("classification", {"a": {"params": 13229288}, "a_hafa": {"params": 14633721}}),
        evaluation("classification", "a", 0, {"top1": 91.9}),
        evaluation("classification", "a", 1, {"top1": 92.1}),
        evaluation("classification", "a_hafa", 0, {"top1": 93.1}),
        evaluation("classification", "a_hafa", 1, {"top1": 88.3}),
    )
    return build_table(TableMetrics(TABLE_LAYOUT, frame), PAPER, **ABOUT)


EMPTY = "\u2013"
NOTES = """\
- counted: counted here on the full-size models, comparable with the paper (Params (M)).
- embedded: trained and evaluated here on the embedded data (Top-1 (%)).
- paper: cited from the paper; blank if it prints no number.
- \u2013: not run in this experiment.
- In round brackets: difference from the baseline (A), between unrounded means.
- In square brackets with signs: the difference's 95 % confidence interval, paired by seed.
- ±: standard deviation over 2 seeds.
- Experiment digits, embedded scale; 2 seeds (0, 1); device cpu; git commit 0123456789.
"""


def test_markdown(table):
    text = markdown.render_table(table)
    assert text.startswith(
        "## Table 9\n\n**EMBEDDED DATA (Toy digits), not comparable with the paper's columns.** Things\\_compared, "
        "laid out as Table 9 of the paper.\n\n| Model"
    )
    assert text.endswith(f"|\n\n{NOTES}")
    assert table_rows(text) == [
        ["Model", "Params (M), counted", "paper", "Top-1 (%), embedded", "paper"],
        ["A", "13.2", "13.2", "92.0 ± 0.1", "75.1"],
        ["A(HAFA)", "14.6", "14.6", "90.7 ± 3.4 (-1.3) [-33.1, +30.5]", "77.5 (+2.4)"],
        ["", "", "", "", ""],
        ["B\\_1 & co", EMPTY, "", EMPTY, "101.0"],
    ]


def test_markdown_overview_holds_all_tables(table):
    report = report_of(empty_frame(), [], title="Toy digits")
    report.tables.update(one=table, two=replace(table, number="8"))
    text = markdown.tables_page(report)
    assert text.startswith("# Tables of experiment digits\n\nToy digits, embedded scale.\n\n## Table 9\n")
    assert markdown.render_table(table) in text
    assert text.count("**EMBEDDED DATA") == 2


def test_markdown_keeps_its_columns_with_any_label(table):
    row = replace(table.rows[0], label="a|b*c_<d>`e`\\")
    line = markdown.render_table(replace(table, rows=(row,))).splitlines()[6]
    assert line.startswith(r"| a\|b\*c\_\<d>\`e\`\\ |")
    assert len(re.findall(r"(?<!\\)\|", line)) == 6


LATEX = r"""% EMBEDDED DATA (Toy digits), not comparable with the paper's columns. Made by hafabench; do not edit.
% Needs \usepackage{booktabs,graphicx}.
\begin{table}[htbp]
  \centering
  \setlength{\abovecaptionskip}{6pt}
  \setlength{\belowcaptionskip}{6pt}
  \caption{\textbf{EMBEDDED DATA (Toy digits), not comparable with the paper's columns.} Things\_compared, """
LATEX += r"""laid out as Table 9 of the paper.}
  \label{tab:digits-table9}
  \small\setlength{\tabcolsep}{6pt}
  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%
  \begin{tabular}{lrrr@{\,}lr@{\,}l}
  \toprule
  & \multicolumn{2}{c}{Params (M)} & \multicolumn{4}{c}{Top-1 (\%)} \\
  \cmidrule(lr){2-3} \cmidrule(lr){4-7}
  Model & \multicolumn{1}{r}{counted\textsuperscript{a}} & \multicolumn{1}{r}{paper\textsuperscript{c}} & """
LATEX += r"""\multicolumn{2}{l}{embedded\textsuperscript{b}} & \multicolumn{2}{l}{paper\textsuperscript{c}} \\
  \midrule
  A & 13.2 & 13.2 & \textbf{92.0}{\scriptsize\,$\pm$\,0.1} &  & 75.1 &  \\
  A(HAFA) & 14.6 & 14.6 & 90.7{\scriptsize\,$\pm$\,3.4} & ($-$1.3) & \textbf{77.5} & (+2.4) \\
  & & & \multicolumn{2}{r}{\scriptsize [$-$33.1, +30.5]} & &  \\
  \midrule
  B\_1 \& co & -- &  & -- &  & 101.0 &  \\
  \bottomrule
  \end{tabular}}
"""


def test_latex(table):
    text = latex.render_table(table)
    assert text.startswith(LATEX)
    assert r"($-$" not in text.split(r"\begin{minipage}")[1]
    notes = text.split(r"\begin{minipage}")[1]
    assert "\\textsuperscript{b}~trained and evaluated here on the embedded data (Top-1 (\\%)).\n" in notes
    assert "\n  --~not run in this experiment.\n" in notes
    assert "Bold: best of its group" in notes
    assert r"$\pm$: standard deviation over 2 seeds." in notes
    assert text.endswith("\\end{minipage}\n\\end{table}\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50 % of R&D_1 #2 $3", r"50 \% of R\&D\_1 \#2 \$3"),
        (r"a\b{c}~^", r"a\textbackslash{}b\{c\}\textasciitilde{}\textasciicircum{}"),
        ('<a|b> "q"', r"\textless{}a\textbar{}b\textgreater{} ''q''"),
        ("64\u00d764 \u2013 ±", r"64$\times$64 -- $\pm$"),
        ("Zürich", "Zürich"),
        ("手 \u20ac", r"\texttt{U+624B} \texttt{U+20AC}"),
    ],
)
def test_latex_escapes(text, expected):
    assert escape_latex(text) == expected


def test_csv_has_one_line_per_cell_with_unrounded_numbers(table):
    lines = list(csv.DictReader(cells_csv.render_table(table).splitlines()))
    assert len(lines) == 6
    assert lines[0] == {
        "table": "9",
        "row": "a",
        "label": "A",
        "group": "one",
        "column": "params_m",
        "ours": "13.229288",
        "spread": "",
        "seeds": "",
        "delta": "",
        "mark": "counted",
        "paper": "13.2",
        "paper_delta": "",
        "scale": "embedded",
        "experiment": "digits",
        "low": "",
        "high": "",
        "paper_mark": "cited",
        "delta_low": "",
        "delta_high": "",
        "starting_weights": "",
        "delta_seeds": "",
    }
    hafa = lines[3]
    assert (hafa["ours"], hafa["seeds"], hafa["delta"], hafa["mark"]) == ("90.7", "2", "-1.3", "measured")
    assert (hafa["paper"], hafa["paper_delta"]) == ("77.5", "2.4")
    assert float(hafa["spread"]) == pytest.approx(3.394112550)
    missing = lines[4]
    assert (missing["ours"], missing["mark"], missing["paper"], missing["paper_mark"]) == (
        "",
        "not run",
        "",
        "not printed",
    )
    assert lines[5]["paper_mark"] == "cited"


# All files of an experiment.

TABLE_LAYOUTS = load_table_layouts(REPOSITORY / "configs/tables.yaml")
PAPER_FILE = REPOSITORY / "configs/paper_values.csv"
DETECTION = [
    "box_ap",
    "box_ap50",
    "box_ap75",
    "box_ap_s",
    "box_ap_m",
    "box_ap_l",
    "mask_ap",
    "mask_ap50",
    "mask_ap75",
]


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    """Two seeds of a few models on all tasks, with long numbers, which make the tables as wide as possible."""
    records = [latency("table4", {"pvt_v2_b1_sia_sia_sia": (1119.0, 1120.0, 1122.0)})]
    for task in ("classification", "segmentation", "detection"):
        names = {row.model for table_layout in TABLE_LAYOUTS for row in table_layout.rows}
        values = {"params": 101.9e6, "params_trainable": 101.9e6, "gmacs": 103.9}
        records.append(complexity(task, dict.fromkeys(sorted(names), values), "50 % of R&D_1: at 224x224 {net}"))
    for seed in (0, 1):
        for bonus, model in enumerate(["resnet18", "pvt_tiny", "pvt_tiny_hafa_qkv", "pvt_tiny_hafa"]):
            value = 40.0 - 11.1 * bonus + seed
            records.append(evaluation("classification", model, seed, {"top1": value}))
            records.append(evaluation("segmentation", model, seed, {"miou": value}))
            records.append(evaluation("detection", model, seed, dict.fromkeys(DETECTION, value)))
    return frame_of(tmp_path_factory.mktemp("results"), *records)


def report_of(frame, table_layouts=TABLE_LAYOUTS, **changes):
    loaded = load_experiment(EXAMPLE)
    changes = {"title": '"Digits" & textures_64\u00d764 #1 (50 %)'} | changes
    config = loaded.config.model_copy(update=changes)
    return Report(replace(loaded, config=config, table_layouts=table_layouts), frame, None)


def write(frame, folder, table_layouts=TABLE_LAYOUTS, **changes):
    """Write the files of the tables below ``folder``; returns their paths."""
    report = report_of(frame, table_layouts, **changes)
    written = []
    for path, text in (markdown.files(report) | latex.files(report) | cells_csv.files(report)).items():
        target = folder / path.relative_to(report.experiment.reports)
        if target.stem not in ("claims", "comparisons"):
            write_text(target, text)
            written.append(target)
    return written


def test_every_file_is_written_and_marks_embedded_data(frame, tmp_path):
    written = write(frame, tmp_path)
    tables = [table_layout.id for table_layout in TABLE_LAYOUTS]
    names = {f"tables/{table}.{suffix}" for table in tables for suffix in ("md", "tex", "csv")}
    names |= {"paper.tex", "tables.md"}
    assert {str(path.relative_to(tmp_path)) for path in written} == names
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == names
    for path in written:
        text = path.read_text()
        assert "embedded" in text, path
        if path.name.startswith("table") and path.suffix != ".csv" and path.stem != "tables":
            assert "EMBEDDED DATA" in text, path


def test_the_same_frame_gives_the_same_bytes(frame, tmp_path):
    shuffled = frame.sample(frac=1, random_state=1)
    first, second = write(frame, tmp_path / "one"), write(shuffled, tmp_path / "two")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_tables_can_be_made_before_anything_ran(tmp_path):
    for path in write(empty_frame(), tmp_path):
        assert path.stat().st_size > 0
    lines = list(csv.DictReader((tmp_path / "tables/table3.csv").read_text().splitlines()))
    assert {line["mark"] for line in lines} == {"not run"}
    assert len(lines) == 90


def test_full_scale_tables_carry_no_warning(tmp_path):
    for path in write(empty_frame(), tmp_path, scale="full", experiment="paper", title="ImageNet-1k"):
        assert "EMBEDDED" not in path.read_text().upper()


def test_nothing_is_written_if_one_table_cannot_be_built(frame, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [TABLE_LAYOUTS[-1].rows[0].model_copy(update={"row": "unknown"})]
    with pytest.raises(UserError, match="no row 'unknown'"):
        write_report(report_of(frame, [*TABLE_LAYOUTS[:-1], TABLE_LAYOUTS[-1].model_copy(update={"rows": rows})]))
    assert list(tmp_path.iterdir()) == []


def test_csv_carries_the_papers_values_as_they_are(frame, tmp_path):
    write(frame, tmp_path)
    paper = load_paper_values(PAPER_FILE)
    for table_layout in TABLE_LAYOUTS:
        for line in csv.DictReader((tmp_path / f"tables/{table_layout.id}.csv").read_text().splitlines()):
            (column,) = [column for column in table_layout.columns if column.key == line["column"]]
            value = paper[table_layout.source, line["row"], column.change or column.key]
            assert (line["label"], line["group"]) == (value.label, value.group)
            printed = (None, value.value) if column.change else (value.value, value.delta)
            assert tuple(float(line[key]) if line[key] else None for key in ("paper", "paper_delta")) == printed


PDFLATEX = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex is not installed (texlive-latex-recommended)"
)


def compile_twice(folder, name):
    """Compile twice, so that references are resolved, and expect no error, overfull box or warning."""
    for _ in range(2):
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", name],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
        )
        assert done.returncode == 0, done.stdout[-3000:]
    for complaint in ("Overfull", "Underfull", "Warning"):
        assert complaint not in done.stdout, done.stdout[-3000:]


@PDFLATEX
@pytest.mark.parametrize("empty", [False, True])
def test_the_document_compiles(frame, tmp_path, empty):
    table_layouts = TABLE_LAYOUTS[2:5:2] if empty else TABLE_LAYOUTS
    write(empty_frame() if empty else frame, tmp_path, table_layouts)
    compile_twice(tmp_path, "paper.tex")
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
    assert "Missing character" not in (tmp_path / "paper.log").read_text(errors="replace")
    # Each table has the number of the paper's table or section, even if tables are missing.
    labels = dict(re.findall(r"newlabel\{tab:digits-(\w+)\}\{\{([\d.]+)\}", (tmp_path / "paper.aux").read_text()))
    assert labels == {table_layout.id: table_layout.number for table_layout in table_layouts}


@PDFLATEX
def test_a_fragment_compiles_in_a_paper_of_its_own(frame, tmp_path):
    write(frame, tmp_path)
    (tmp_path / "own.tex").write_text(
        "\\documentclass[twocolumn]{article}\n\\usepackage{booktabs,graphicx}\n"
        "\\begin{document}\\input{tables/table3}\\input{tables/table1}\\end{document}\n"
    )
    compile_twice(tmp_path, "own.tex")
