"""The table layouts and printed values of the paper."""

from __future__ import annotations

import pytest

from hafabench.config.catalog import CATALOG
from hafabench.config.experiment import load_experiment
from hafabench.config.keep_rates import describe_rates
from hafabench.config.paper_values import load_paper_values
from hafabench.config.tables import TableLayout, load_table_layouts
from hafabench.errors import UserError
from tests.support.experiments import EXAMPLE
from tools.checkout import REPOSITORY

TABLE_LAYOUTS = {table.id: table for table in load_table_layouts(REPOSITORY / "configs/tables.yaml")}
DIGITS = load_experiment(EXAMPLE)
PAPER = load_paper_values(REPOSITORY / "configs/paper_values.csv")


def test_every_printed_cell_has_its_place_and_every_place_is_printed():
    places = {
        (table_layout.source, row.row or row.model, column.change or column.key)
        for table_layout in TABLE_LAYOUTS.values()
        for row in table_layout.rows
        for column in table_layout.columns
    }
    assert places == set(PAPER)
    # Tables 1-6, the latencies of section 4.1, the differences of section 4.4.
    assert len(places) == 45 + 27 + 90 + 8 + 8 + 24 + 6 + 4


@pytest.mark.parametrize("table_layout", TABLE_LAYOUTS.values(), ids=list(TABLE_LAYOUTS))
def test_rows_have_the_papers_order_and_labels(table_layout: TableLayout):
    aliases = {row.row: row.model for known in TABLE_LAYOUTS.values() for row in known.rows if row.row}
    in_paper = {}
    for value in PAPER.values():
        if value.table == table_layout.source:
            baseline = aliases.get(value.baseline, value.baseline)
            in_paper[value.row] = (value.row, value.label, value.group, baseline)
    assert [(r.row or r.model, r.label, r.group, r.baseline) for r in table_layout.rows] == list(in_paper.values())


@pytest.mark.parametrize("table_layout", TABLE_LAYOUTS.values(), ids=list(TABLE_LAYOUTS))
def test_columns_with_differences_are_those_where_the_paper_prints_some(table_layout: TableLayout):
    values = [value for value in PAPER.values() if value.table == table_layout.source]
    with_delta = {value.metric for value in values if value.delta is not None or value.metric.endswith("_change")}
    assert {column.change or column.key for column in table_layout.columns if column.delta} == with_delta


def test_table_6_names_the_schedules_of_models_that_drop_tokens():
    (note,) = [column.note for column in TABLE_LAYOUTS["table6"].columns if column.note]
    for row in TABLE_LAYOUTS["table6"].rows:
        keep = CATALOG[row.model].keep
        assert keep is None or f"{row.label} keeps {describe_rates(keep)}" in note


def test_every_row_is_a_known_model_and_only_one_goes_by_another_name():
    rows = [row for table_layout in TABLE_LAYOUTS.values() for row in table_layout.rows]
    assert {row.model for row in rows} <= set(CATALOG)
    (alias,) = [row for row in rows if row.row is not None]
    assert (alias.row, alias.model) == ("pvt_v2_b1_laa_laa_sia", "pvt_v2_b1_hafa")
    assert CATALOG[alias.row].mergers == CATALOG[alias.model].mergers


def test_the_papers_own_differences_follow_from_its_values():
    for value in PAPER.values():
        if value.delta is not None:
            baseline = PAPER[value.table, value.baseline, value.metric]
            assert value.delta == pytest.approx(value.value - baseline.value, abs=0.051), value


HEADER = "table,row,label,group,baseline,metric,value,printed_delta\n"


def test_paper_values_are_read_as_printed():
    value = PAPER["table2", "pvt_tiny_hafa", "miou"]
    assert (value.value, value.delta, value.baseline) == (40.1, 4.4, "pvt_tiny")
    assert PAPER["table3", "resnet18", "box_ap_s"].value is None
    assert PAPER["latency", "pvt_tiny", "latency_ms"].value == 5.6


def test_every_problem_of_the_paper_values_is_reported_with_its_line(tmp_path):
    file = tmp_path / "paper.csv"
    file.write_text(
        HEADER + "1,a,A,g,,top1,68.5,\n1,a,A,g,,top1,68.5,\n1,b,B,g,,top1,high,\n1,c,C,g,,top1\n1,d,D,g,,top1,1,2,3\n"
    )
    with pytest.raises(UserError) as caught:
        load_paper_values(file)
    assert str(caught.value).splitlines() == [
        f"{file}:3: table1/a/top1: cell given twice",
        f"{file}:4: value: expected a number, found 'high'",
        f"{file}:5: expected 8 fields",
        f"{file}:6: expected 8 fields",
    ]


@pytest.mark.parametrize("content", ["", "table,row\n", b"\xff\xfe"])
def test_other_files_than_paper_values_are_refused(tmp_path, content):
    file = tmp_path / "paper.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=str(file)):
        load_paper_values(file)


def test_missing_paper_values_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_paper_values(tmp_path / "paper.csv")
