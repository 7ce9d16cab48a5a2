"""Table cells: values, spreads, differences, marks and legends."""

from __future__ import annotations

import subprocess
import sys

import pytest
from scipy import stats

from hafabench.config.experiment import load_experiment
from hafabench.config.paper_values import load_paper_values
from hafabench.config.tables import load_table_layouts
from hafabench.errors import UserError
from hafabench.reporting.frame import empty_frame
from hafabench.reporting.legend import COLLAPSED, NOT_RUN
from hafabench.reporting.report import Report
from hafabench.reporting.table_metrics import TableMetrics
from hafabench.reporting.tables import TableCell, build_table
from tests.support.experiments import EXAMPLE
from tests.support.messages import missing_facts
from tools.checkout import REPOSITORY
from tools.synthetic_records import COMMIT, complexity, evaluation, frame_of, latency

TABLE_LAYOUTS = {table.id: table for table in load_table_layouts(REPOSITORY / "configs/tables.yaml")}
DIGITS = load_experiment(EXAMPLE)
PAPER = load_paper_values(REPOSITORY / "configs/paper_values.csv")
ABOUT = {"experiment": "digits", "title": "Embedded digits scenes", "scale": "embedded"}


def build(frame, table="table1", **changes):
    return build_table(TableMetrics(TABLE_LAYOUTS[table], frame), PAPER, **(ABOUT | changes))


def cell(table, row, column) -> TableCell:
    (found,) = [line for line in table.rows if line.key == row]
    return found.cells[[c.key for c in table.columns].index(column)]


def printed(table, row, column) -> str:
    return " ".join(filter(None, cell(table, row, column).ours(1)))


def test_figures_from_the_text_of_a_section(tmp_path):
    """Each pair has its own latency measurement; section 4.4 prints differences without the values."""
    records = [
        latency("pvt_tiny", {"pvt_tiny": (4.9, 5.0, 5.1), "pvt_tiny_hafa": (6.4, 6.5, 6.6)}),
        latency("table4", {"pvt_tiny": (80.0, 90.0, 95.0)}),
        *(
            evaluation("classification", model, 0, {"top1": top1})
            for model, top1 in (("pvt_v2_b1_hafa", 79.8), ("pvt_v2_b1_laa_laa_conv", 79.25))
        ),
    ]
    frame = frame_of(tmp_path, *records)
    latencies, ablations = build(frame, "section4_1"), build(frame, "section4_4")
    assert (latencies.place, ablations.place) == ("Section 4.1", "Section 4.4")
    assert [row.cells[0].value for row in latencies.rows] == [5.0, 6.5, None, None, None, None]
    assert printed(latencies, "pvt_tiny_hafa", "latency_ms").endswith("(+1.5)")
    assert latencies.rows[1].cells[0].cited(1) == ("7.0", "(+1.4)")
    assert printed(ablations, "pvt_v2_b1_laa_laa_conv", "top1") == "79.3 (-0.6)"
    assert ablations.rows[0].cells[0].cited(1) == ("", "(-0.5)")
    assert {row.cells[0].paper_mark for row in ablations.rows} == {"cited"}


def test_value_difference_and_paper_of_a_trained_pair(tmp_path):
    frame = frame_of(
        tmp_path,
        evaluation("classification", "pvt_tiny", 0, {"top1": 91.91}),
        evaluation("classification", "pvt_tiny_hafa", 0, {"top1": 93.14}),
    )
    table = build(frame)
    hafa = cell(table, "pvt_tiny_hafa", "top1")
    assert (hafa.value, hafa.n, hafa.mark, hafa.spread) == (93.14, 1, "measured", None)
    assert hafa.delta == pytest.approx(1.23)
    assert hafa.ours(1) == ("93.1", "(+1.2)")
    assert hafa.cited(1) == ("77.5", "(+2.4)")
    assert hafa.paper_mark == "cited"
    # The baseline itself has none.
    assert cell(table, "pvt_tiny", "top1").ours(1) == ("91.9", "")


@pytest.mark.parametrize(
    ("baseline", "value", "text"),
    [
        (35.74, 40.06, "40.1 (+4.3)"),  # of the printed numbers it would be +4.4
        (40.0, 38.75, "38.8 (-1.3)"),
        (40.0, 40.0, "40.0 (0.0)"),
        (40.0, 39.97, "40.0 (0.0)"),  # never "-0.0"
    ],
)
def test_differences_are_of_unrounded_values(tmp_path, baseline, value, text):
    frame = frame_of(
        tmp_path,
        evaluation("segmentation", "pvt_tiny", 0, {"miou": baseline}),
        evaluation("segmentation", "pvt_tiny_hafa", 0, {"miou": value}),
    )
    assert printed(build(frame, "table2"), "pvt_tiny_hafa", "miou") == text


def test_seeds_give_mean_spread_and_difference_of_common_seeds(tmp_path):
    records = [
        evaluation("classification", "pvt_tiny", seed, {"top1": value}) for seed, value in enumerate([90.0, 92.0])
    ]
    records += [
        evaluation("classification", "pvt_tiny_hafa", seed, {"top1": value})
        for seed, value in enumerate([92.0, 93.0, 97.0])
    ]
    table = build(frame_of(tmp_path, *records))
    hafa = cell(table, "pvt_tiny_hafa", "top1")
    assert (hafa.value, hafa.n) == (94.0, 3)
    assert hafa.spread == pytest.approx(7**0.5)
    # The baseline lacks a seed: the difference and its interval are those of the common seeds.
    assert hafa.ours(1) == ("94.0 ± 2.6", "(+1.5¶)")
    assert cell(table, "pvt_tiny", "top1").ours(1) == ("91.0 ± 1.4¶", "")
    assert (hafa.delta_seeds, hafa.delta) == ((0, 1), 1.5)
    assert hafa.delta_low < 1.5 < hafa.delta_high
    assert "±: standard deviation over 3 seeds (PVT-Tiny, Top-1 (%): 2)." in table.notes
    assert any("3 seeds (0, 1, 2)" in note for note in table.notes)


def test_a_difference_on_the_same_seeds_has_its_interval(tmp_path):
    values = {"pvt_tiny": [57.7, 60.3, 61.5, 57.0, 58.1], "pvt_tiny_hafa": [61.2, 61.3, 63.0, 60.4, 62.9]}
    frame = frame_of(
        tmp_path,
        *(evaluation("classification", m, s, {"top1": v}) for m, vs in values.items() for s, v in enumerate(vs)),
    )
    table = build(frame)
    hafa = cell(table, "pvt_tiny_hafa", "top1")
    expected = stats.ttest_rel(values["pvt_tiny_hafa"], values["pvt_tiny"]).confidence_interval()
    assert (hafa.delta_low, hafa.delta_high) == pytest.approx((expected.low, expected.high))
    assert (hafa.ours(1), hafa.interval(1)) == (("61.8 ± 1.1", "(+2.8)"), "[+0.9, +4.8]")
    assert "In square brackets with signs: the difference's 95 % confidence interval, paired by seed." in table.notes
    assert "±: standard deviation over 5 seeds." in table.notes


def test_the_best_of_a_group_is_of_its_group_and_of_one_kind(tmp_path):
    frame = frame_of(
        tmp_path,
        complexity("classification", {m: {"params": 1e6, "gmacs": 1.0} for m in ("pvt_tiny", "resnet18")}),
        evaluation("classification", "resnet18", 0, {"top1": 61.04}),
        evaluation("classification", "pvt_tiny", 0, {"top1": 60.0}),
        evaluation("classification", "pvt_tiny_hafa", 0, {"top1": 60.96}),
        evaluation("classification", "pvt_small", 0, {"top1": 90.0}),
        evaluation("classification", "resnet50", None, {"top1": 80.0}, origin="imported", id="imported/resnet50"),
        evaluation("classification", "pvt_large", 0, {"top1": 99.0}),
        latency("table4", {"pvt_v2_b1_hafa": (1.0, 2.0, 3.0), "pvt_v2_b1_laa_sia_sia": (1.0, 2.5, 3.0)}),
    )
    table = build(frame)
    best = {(row.key, c.key) for row in table.rows for c, x in zip(table.columns, row.cells, strict=True) if x.best}
    # Equal as printed is equal; an imported rival or none at all makes no best; sizes never do.
    assert best == {("resnet18", "top1"), ("pvt_tiny_hafa", "top1")}
    printed_best = {row.key for row in table.rows for x in row.cells if x.paper_best}
    assert printed_best == {"pvt_tiny_hafa", "pvt_small_hafa", "pvt_large_hafa"}
    fast = build(frame, "table4")
    assert cell(fast, "pvt_v2_b1_laa_laa_sia", "latency_ms").best
    assert not cell(fast, "pvt_v2_b1_laa_sia_sia", "latency_ms").best


def test_unmeasured_cells_are_not_run_beside_the_papers_value():
    table = build(empty_frame())
    hafa = cell(table, "pvt_tiny_hafa", "top1")
    assert (hafa.value, hafa.delta, hafa.mark) == (None, None, "not run")
    assert hafa.ours(1) == (NOT_RUN, "")
    assert hafa.cited(1) == ("77.5", "(+2.4)")
    assert all(c.mark == "not run" for row in table.rows for c in row.cells)


def test_variant_without_its_baseline_has_no_difference(tmp_path):
    table = build(frame_of(tmp_path, evaluation("classification", "pvt_tiny_hafa", 0, {"top1": 93.0})))
    assert printed(table, "pvt_tiny_hafa", "top1") == "93.0"


def test_cells_that_the_paper_leaves_empty_differ_from_not_run(tmp_path):
    empty = cell(build(empty_frame(), "table4"), "pvt_v2_b1_laa_laa_laa", "top1")
    assert (empty.ours(1), empty.cited(1), empty.paper_mark) == ((NOT_RUN, ""), (COLLAPSED, ""), "collapsed")
    frame = frame_of(tmp_path, evaluation("detection", "resnet18", 0, {"box_ap_s": 3.0}))
    small = cell(build(frame, "table3"), "resnet18", "box_ap_s")
    assert (small.ours(1), small.cited(1), small.mark) == (("3.0", ""), ("", ""), "measured")


def test_counted_columns_are_scaled_and_have_no_seeds(tmp_path):
    frame = frame_of(tmp_path, complexity("classification", {"pvt_tiny": {"params": 13229288, "gmacs": 1.9329}}))
    params, gflops = (cell(build(frame), "pvt_tiny", key) for key in ("params_m", "gflops"))
    assert (params.ours(1), params.mark, params.n) == (("13.2", ""), "counted", None)
    assert params.value == pytest.approx(13.229288)
    assert gflops.ours(1) == ("1.9", "")


def test_each_task_counts_its_own_parameters(tmp_path):
    frame = frame_of(
        tmp_path,
        complexity("classification", {"resnet18": {"params": 11.7e6, "params_trainable": 11.7e6}}),
        complexity("segmentation", {"resnet18": {"params": 15.5e6, "params_trainable": 15.3e6}}),
        complexity("detection", {"resnet18": {"params": 31.4e6, "params_trainable": 31.2e6}}),
    )
    values = [printed(build(frame, f"table{n}"), "resnet18", "params_m") for n in (1, 2, 3)]
    assert values == ["11.7", "15.5", "31.2"]


def test_row_under_another_name_is_filled_by_its_model(tmp_path):
    frame = frame_of(
        tmp_path,
        evaluation("classification", "pvt_v2_b1_hafa", 0, {"top1": 90.0}),
        latency("table4", {"pvt_v2_b1_hafa": (59.0, 60.0, 62.5)}),
        latency("other", {"pvt_v2_b1_hafa": (1.0, 2.0, 3.0)}),
    )
    table = build(frame, "table4")
    assert printed(table, "pvt_v2_b1_laa_laa_sia", "top1") == "90.0"
    time = cell(table, "pvt_v2_b1_laa_laa_sia", "latency_ms")
    assert (time.ours(1), time.cited(1)) == (("60.0 [59.0, 62.5]", ""), ("16.3", ""))
    assert table.kinds == ("embedded", "measured")


def test_table_5_is_filled_from_three_tasks(tmp_path):
    records = []
    for model, bonus in (("pvt_tiny_hafa_qkv", 0.0), ("pvt_tiny_hafa", 0.5)):
        records.append(evaluation("classification", model, 0, {"top1": 77.0 + bonus}))
        records.append(evaluation("detection", model, 0, {"box_ap": 39.0 + bonus, "mask_ap": 36.0 + bonus}))
        records.append(evaluation("segmentation", model, 0, {"miou": 40.0 + bonus}))
    table = build(frame_of(tmp_path, *records), "table5")
    shown = [printed(table, "pvt_tiny_hafa", c.key) for c in table.columns]
    assert shown == ["77.5 (+0.5)", "39.5 (+0.5)", "36.5 (+0.5)", "40.5 (+0.5)"]


def test_imported_numbers_are_marked_and_yield_to_measured_ones(tmp_path):
    def imported(model, value):
        identifier = f"classification/{model}/seed9"
        return evaluation("classification", model, None, {"top1": value}, origin="imported", id=identifier)

    frame = frame_of(
        tmp_path,
        evaluation("classification", "pvt_tiny", 0, {"top1": 90.0}),
        imported("pvt_tiny", 50.0),
        imported("pvt_tiny_hafa", 95.0),
        imported("pvt_small", 80.0),
        imported("pvt_small_hafa", 81.5),
    )
    table = build(frame)
    assert cell(table, "pvt_tiny", "top1").value == 90.0
    # No difference between an imported number and a measured one, but between two imported ones.
    assert cell(table, "pvt_tiny_hafa", "top1").ours(1) == ("95.0†", "")
    assert cell(table, "pvt_small_hafa", "top1").ours(1) == ("81.5†", "(+1.5)")
    assert cell(table, "pvt_small_hafa", "top1").mark == "imported"
    assert any(note.startswith("†: imported") for note in table.notes)


def test_numbers_of_another_scale_are_refused(tmp_path):
    frame = frame_of(tmp_path, evaluation("classification", "pvt_tiny", 0, {"top1": 75.0}, scale="full"))
    with pytest.raises(UserError, match="of embedded scale, but its frame contains full numbers"):
        Report(DIGITS, frame, None)


def test_two_scales_in_one_frame_are_refused(tmp_path):
    frame = frame_of(tmp_path, *(evaluation("classification", "pvt_tiny", s, {"top1": 75.0}) for s in (0, 1)))
    frame.loc[1, "scale"] = "full"
    with pytest.raises(UserError, match="contains embedded and full numbers"):
        Report(DIGITS, frame, None)


def test_numbers_of_another_experiment_are_refused(tmp_path):
    frame = frame_of(tmp_path, evaluation("classification", "pvt_tiny", 0, {"top1": 75.0}, experiment="mine"))
    with pytest.raises(UserError, match="expected numbers of experiment digits only, found also mine"):
        Report(DIGITS, frame, None)


def test_a_row_marked_as_the_papers_must_match_it(tmp_path):
    table_layout = TABLE_LAYOUTS["table4"].model_copy(
        update={"rows": [TABLE_LAYOUTS["table4"].rows[0].model_copy(update={"row": "pvt_v2_b1_sia"})]}
    )
    with pytest.raises(UserError, match="table4: the paper's values have no row 'pvt_v2_b1_sia'"):
        build_table(TableMetrics(table_layout, empty_frame()), PAPER, **ABOUT)


def test_a_new_row_needs_no_values_of_the_paper(tmp_path):
    own = TABLE_LAYOUTS["table1"].rows[3].model_copy(update={"model": "mine", "label": "Mine"})
    table_layout = TABLE_LAYOUTS["table1"].model_copy(update={"rows": [*TABLE_LAYOUTS["table1"].rows, own]})
    frame = frame_of(
        tmp_path,
        evaluation("classification", "pvt_tiny", 0, {"top1": 90.0}),
        evaluation("classification", "mine", 0, {"top1": 91.0}),
    )
    mine = cell(build_table(TableMetrics(table_layout, frame), PAPER, **ABOUT), "mine", "top1")
    assert (mine.ours(1), mine.cited(1)) == (("91.0", "(+1.0)"), ("", ""))


def test_legend_explains_the_marks_and_sources_of_the_table(tmp_path):
    frame = frame_of(
        tmp_path,
        complexity("classification", {"pvt_tiny": {"params": 13e6}}, "at 224x224, 1000 classes"),
        evaluation("classification", "pvt_tiny", 0, {"top1": 90.0}, git_dirty=True),
        evaluation("classification", "pvt_tiny_hafa", 0, {"top1": 91.0}, experiment_tracked=False),
        # Not in this table, so not in its legend.
        evaluation("segmentation", "pvt_tiny", 1, {"miou": 91.0}, git_commit="f" * 40),
    )
    notes = build(frame).notes
    facts = [
        ("counted: ", "Params (M), GFLOPs"),
        ("embedded: ", "Top-1 (%)"),
        ("paper: ",),
        (f"{NOT_RUN}: ",),
        ("round brackets", "PVT-Tiny, PVT-Small, PVT-Large"),
        ("Params (M): at 224x224, 1000 classes",),
        (
            "digits",
            "embedded",
            "1 seed (0)",
            "cpu",
            f"{COMMIT[:10]} (the experiment file is not tracked), {COMMIT[:10]} with local changes",
        ),
    ]
    assert [missing_facts(note, *expected) for note, expected in zip(notes, facts, strict=True)] == [[]] * len(facts)


def test_embedded_tables_warn_and_full_ones_do_not(tmp_path):
    table = build(empty_frame())
    assert missing_facts(table.warning, "EMBEDDED DATA", "(Embedded digits scenes)") == []
    assert table.kinds == ("counted", "counted", "embedded")
    table = build(empty_frame(), scale="full", title="ImageNet-1k")
    assert table.warning == ""
    assert table.kinds == ("counted", "counted", "measured")


def test_tables_need_no_torch():
    code = "import sys, hafabench.reporting.write, hafabench.reporting.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
