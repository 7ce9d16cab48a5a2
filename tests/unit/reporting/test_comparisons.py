"""Comparisons of rows with their baselines: selection, verdicts, page, CSV and figure."""

from __future__ import annotations

import csv
import re
from dataclasses import replace

import pytest
from scipy import stats

from hafabench.config.experiment import load_experiment
from hafabench.reporting.charts.comparison_charts import comparison_charts
from hafabench.reporting.csv import render_comparisons
from hafabench.reporting.frame import empty_frame
from hafabench.reporting.legend import NO_COMPARISON
from hafabench.reporting.markdown import comparisons_page
from hafabench.reporting.report import Report
from tests.support.markdown import table_rows
from tests.support.messages import missing_facts
from tools.synthetic_records import evaluation, frame_of

PLAIN, HAFA = [57.7, 60.3, 61.5, 57.0, 58.1], [61.2, 61.3, 63.0, 60.4, 62.9]


@pytest.fixture
def experiment(write_experiment, monkeypatch, tmp_path):
    path = write_experiment()
    monkeypatch.chdir(tmp_path)
    return load_experiment(path)


def records(task, model, metric, values, **changes):
    return [evaluation(task, model, seed, {metric: value}, **changes) for seed, value in enumerate(values)]


def compared(experiment, frame):
    return Report(experiment, frame, None).comparisons


@pytest.fixture
def frame(tmp_path):
    """Records that are better in top-1, worse in box AP and inconclusive in mIoU."""
    return frame_of(
        tmp_path / "results",
        *records("classification", "pvt_tiny", "top1", PLAIN),
        *records("classification", "pvt_tiny_hafa", "top1", HAFA),
        *records("segmentation", "pvt_tiny", "miou", [10.0, 12.0, 11.0]),
        *records("segmentation", "pvt_tiny_hafa", "miou", [12.0, 11.5, 11.0, 40.0]),
        *records("detection", "pvt_tiny", "box_ap", [5.0, 5.1, 5.3]),
        *records("detection", "pvt_tiny_hafa", "box_ap", [4.0, 4.1, 4.2]),
        # A column in which the paper compares nothing, and a pair with one seed.
        *records("detection", "pvt_small", "box_ap50", [1.0, 2.0]),
        *records("detection", "pvt_small_hafa", "box_ap50", [3.0, 4.0]),
        *records("classification", "pvt_small", "top1", [70.0]),
        *records("classification", "pvt_small_hafa", "top1", [71.0, 72.0]),
    )


def test_every_pair_with_common_seeds_is_compared_once_in_the_tables_order(experiment, frame):
    found = compared(experiment, frame)
    assert [(c.table, c.metric, c.model, c.baseline, c.paired.n, c.verdict) for c in found] == [
        ("1", "top1", "pvt_tiny_hafa", "pvt_tiny", 5, "better"),
        ("2", "miou", "pvt_tiny_hafa", "pvt_tiny", 3, "cannot tell"),
        ("3", "box_ap", "pvt_tiny_hafa", "pvt_tiny", 3, "worse"),
    ]
    assert Report(experiment, frame, None).uncompared == ["PVT-Small(HAFA) against PVT-Small (Top-1 (%))"]
    # A pair in two tables is one comparison of the family and belongs to the first table.
    again = [table_layout.model_copy(update={"id": "table9"}) for table_layout in experiment.table_layouts]
    assert compared(replace(experiment, table_layouts=[*experiment.table_layouts, *again]), frame) == found
    # A table without a row for the baseline uses its label in another table.
    first = experiment.table_layouts[0]
    lone = first.model_copy(update={"rows": [row for row in first.rows if row.model == "pvt_tiny_hafa"]})
    assert compared(replace(experiment, table_layouts=[lone, *experiment.table_layouts]), frame) == found
    top1, miou, _ = found
    assert top1.paired.p == pytest.approx(stats.ttest_rel(HAFA, PLAIN).pvalue)
    # The seed that only one model has takes no part in its mean either.
    assert (miou.candidate.mean, miou.candidate.n, miou.paired.difference) == (11.5, 3, 0.5)


def test_p_values_are_corrected_over_the_family(experiment, frame):
    found = compared(experiment, frame)
    raw = [c.paired.p for c in found]
    order = sorted(range(3), key=raw.__getitem__)
    assert [found[i].p_holm for i in order[:2]] == pytest.approx([3 * raw[order[0]], 2 * raw[order[1]]])
    assert {c.family for c in found} == {3}


def test_a_difference_that_passes_alone_may_fail_in_its_family(experiment, tmp_path):
    pair = [
        *records("segmentation", "pvt_tiny", "miou", [10.0, 12.0, 11.0]),
        *records("segmentation", "pvt_tiny_hafa", "miou", [12.0, 13.3, 12.6]),
    ]
    noise = [
        *records("classification", "pvt_tiny", "top1", [1.0, 2.0, 3.0]),
        *records("classification", "pvt_tiny_hafa", "top1", [3.0, 2.0, 1.5]),
        *records("detection", "pvt_tiny", "box_ap", [1.0, 2.0, 3.0]),
        *records("detection", "pvt_tiny_hafa", "box_ap", [3.0, 2.0, 1.0]),
        *records("detection", "pvt_small", "mask_ap", [1.0, 2.0, 3.0]),
        *records("detection", "pvt_small_hafa", "mask_ap", [3.0, 2.0, 1.0]),
        *records("detection", "pvt_large", "mask_ap", [1.0, 2.0, 3.0]),
        *records("detection", "pvt_large_hafa", "mask_ap", [3.0, 2.0, 1.0]),
    ]
    (alone,) = compared(experiment, frame_of(tmp_path / "alone", *pair))
    assert (alone.verdict, alone.p_holm) == ("better", alone.paired.p)
    (miou,) = (c for c in compared(experiment, frame_of(tmp_path / "family", *pair, *noise)) if c.metric == "miou")
    assert miou.paired == alone.paired
    assert (miou.verdict, miou.family) == ("cannot tell", 5)
    assert missing_facts(miou.sentence, "single comparison", "5 comparisons") == []


def test_sentences_contain_verdict_interval_and_detectable_difference(experiment, frame):
    top1, miou, _ = compared(experiment, frame)
    facts = (
        "PVT-Tiny(HAFA)",
        "PVT-Tiny,",
        "Top-1 (%)",
        "better",
        "+2.84",
        "95 %",
        "+0.90 to +4.78",
        "5 seeds",
        "0.031",
    )
    assert missing_facts(top1.sentence, *facts) == []
    facts = ("mIoU (%)", "cannot tell", "+0.50", "95 %", f"{miou.paired.detectable:.2f}")
    assert missing_facts(miou.sentence, *facts) == []


def test_differences_without_spread_claim_nothing(experiment, tmp_path):
    frame = frame_of(
        tmp_path / "results",
        *records("classification", "pvt_tiny", "top1", [50.0, 60.0, 70.0]),
        *records("classification", "pvt_tiny_hafa", "top1", [51.0, 61.0, 71.0]),
    )
    found = compared(experiment, frame)
    assert (found[0].verdict, found[0].p_holm) == ("cannot tell", None)
    assert "difference +1.00 on each of 3 seeds" in found[0].sentence
    assert " +1.00 |" in comparisons_page(Report(experiment, frame, None))
    assert "cannot tell" in comparison_charts(found)[0].svg


def test_imported_numbers_take_no_part(experiment, tmp_path):
    frame = frame_of(
        tmp_path / "results",
        *records("classification", "pvt_tiny", "top1", PLAIN),
        *(
            evaluation(
                "classification", "pvt_tiny_hafa", s, {"top1": v}, origin="imported", id=f"imported/{s}/pvt_tiny_hafa"
            )
            for s, v in enumerate(HAFA)
        ),
    )
    report = Report(experiment, frame, None)
    assert report.comparisons == report.uncompared == []


@pytest.mark.parametrize("measured", [False, True])
def test_one_seed_makes_no_claim(experiment, tmp_path, measured):
    one = [evaluation("classification", m, 0, {"top1": 90.0}) for m in ("pvt_tiny", "pvt_tiny_hafa")]
    frame = frame_of(tmp_path / "results", *one) if measured else empty_frame()
    report = Report(experiment, frame, None)
    assert report.comparisons == []
    assert comparisons_page(report).endswith(f" embedded scale.\n\n{NO_COMPARISON}\n")
    assert len(render_comparisons(report).splitlines()) == 1
    assert report.charts.comparisons == []


def test_page_marks_embedded_numbers_lists_omissions_and_aligns_columns(experiment, frame):
    text = comparisons_page(Report(experiment, frame, None))
    assert "**EMBEDDED DATA: these verdicts hold for these data and budgets" in text
    assert "fewer than two common seeds: PVT-Small(HAFA) against PVT-Small (Top-1 (%))." in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 5 and len({len(line) for line in table}) == 1
    assert table_rows(text)[1][3:7] == ["5", "58.92 ± 1.90", "61.76 ± 1.14", "+2.84 [+0.90, +4.78]"]
    full = replace(experiment, config=experiment.config.model_copy(update={"scale": "full"}))
    pairs = frame[~frame["model"].str.startswith("pvt_small")].assign(scale="full")
    text = comparisons_page(Report(full, pairs, None))
    assert "EMBEDDED" not in text and "Not compared" not in text


def test_csv_is_unrounded_and_holds_every_seed(experiment, frame):
    lines = list(csv.DictReader(render_comparisons(Report(experiment, frame, None)).splitlines()))
    assert [line["verdict"] for line in lines] == ["better", "cannot tell", "worse"]
    top1 = lines[0]
    assert (top1["seeds"], top1["n"], top1["family"]) == ("0 1 2 3 4", "5", "3")
    assert [float(d) for d in top1["differences"].split()] == pytest.approx([3.5, 1.0, 1.5, 3.4, 4.8])
    assert float(top1["p"]) == pytest.approx(stats.ttest_rel(HAFA, PLAIN).pvalue, rel=1e-9)
    assert float(top1["p_holm"]) > float(top1["p"])


def test_charts_show_the_verdict_of_every_comparison(experiment, frame):
    report = Report(experiment, frame, None)
    charts = report.charts.comparisons
    assert [chart.name.partition("-")[2] for chart in charts] == ["classification", "segmentation", "detection"]
    for chart, verdict in zip(charts, ("better", "cannot tell", "worse"), strict=True):
        texts = re.findall(r"<text[^>]*>([^<]+)</text>", chart.svg)
        assert sum(text.endswith(f": {verdict}") for text in texts) == 1
    assert " ".join(chart.description for chart in charts) == " ".join(c.sentence for c in report.comparisons)
