"""The registry of metrics, and the files whose metric names it checks."""

from __future__ import annotations

import pytest

from hafabench.config.metrics import METRICS, main_metric, metric_of_paper
from hafabench.config.paper_values import load_paper_values
from hafabench.config.recipes import TASKS
from hafabench.config.regression import load_limits
from hafabench.config.tables import Column, load_table_layouts
from hafabench.errors import UserError
from hafabench.results.predictions import Areas, Detections, Hits
from tools.checkout import REPOSITORY


def test_no_metric_is_registered_twice():
    from hafabench.config import metrics

    assert len(metrics._REGISTERED) == len(METRICS)


def test_every_task_has_one_main_metric_that_is_measured():
    for task in TASKS:
        assert [m.name for m in METRICS.values() if m.is_main and task in m.tasks] == [main_metric(task).name]
        assert main_metric(task).verb == "evaluate"


def test_kept_predictions_give_registered_metrics():
    for task, kind in zip(TASKS, (Hits, Areas, Detections), strict=True):
        assert {METRICS[name].tasks for name in kind.metrics} == {(task,)}


def test_every_printed_metric_is_registered_or_a_change_of_one():
    names = {name for _, _, name in load_paper_values(REPOSITORY / "configs/paper_values.csv")}
    assert names
    assert {name for name in names if metric_of_paper(name.removesuffix("_change")) is None} == set()


def test_a_column_takes_unit_factor_and_direction_from_its_metric():
    parameters = Column(key="params_m", header="Params (M)", task="detection", metric="params_trainable")
    assert (parameters.metric_name, parameters.factor, parameters.decimals) == ("params_trainable", 1e-6, 1)
    assert (parameters.verb, parameters.better) == ("complexity", None)
    latency = Column(key="latency_ms", header="Latency (ms)", task="classification", latency="g", decimals=2)
    assert (latency.verb, latency.better, latency.factor, latency.decimals) == ("latency", "lower", 1.0, 2)
    assert Column(key="gflops", header="GFLOPs", task="segmentation").metric_name == "gmacs"


@pytest.mark.parametrize(
    ("column", "line", "words"),
    [
        ("      - header: h\n        task: detection\n        key: box_app", 7, ("box_app", "box_ap")),
        ("      - header: h\n        task: detection\n        key: params_m\n        metric: param", 8, ("params",)),
        ("      - header: h\n        task: detection\n        key: top1", 5, ("top1", "detection")),
        ("      - header: h\n        task: detection\n        key: box_ap\n        metric: [a]", 8, ("string",)),
    ],
)
def test_unknown_metrics_of_a_table_are_refused_with_their_line(tmp_path, column, line, words):
    path = tmp_path / "tables.yaml"
    rows = "    rows:\n      - {model: pvt_tiny, label: PVT, group: g}\n"
    path.write_text(f"tables:\n  - id: table1\n    title: t\n    columns:\n{column}\n{rows}")
    with pytest.raises(UserError) as caught:
        load_table_layouts(path)
    [problem] = caught.value.problems
    assert problem.line == line and problem.key.startswith("tables[0].columns[0]")
    assert all(word in problem.message for word in words)


@pytest.mark.parametrize(
    ("text", "key", "word"),
    [
        ("metrics:\n  top1: {absolute: 1}\n  topp1:\n    absolute: 1\n", "metrics.topp1", "top1"),
        ("metrics:\n  top1:\n    better: lower\n", "metrics.top1.better", "higher"),
    ],
)
def test_unknown_metrics_and_wrong_directions_of_the_gate_are_refused_with_their_line(tmp_path, text, key, word):
    path = tmp_path / "regression.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_limits(path)
    [problem] = caught.value.problems
    assert (problem.key, problem.line) == (key, 3)
    assert word in problem.message


def test_a_stated_direction_is_accepted_where_it_is_the_metrics(tmp_path):
    path = tmp_path / "regression.yaml"
    path.write_text("metrics:\n  top1: {better: higher, absolute: 1}\n  params: {better: lower}\n")
    assert list(load_limits(path).metrics) == ["top1", "params"]
