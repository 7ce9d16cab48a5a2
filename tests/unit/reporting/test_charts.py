"""Charts: what they show, that they are the same every time, and that the page can embed them."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hafabench.config.catalog import CATALOG, derive
from hafabench.config.experiment import load_experiment
from hafabench.reporting.charts.accuracy_cost import Cost, baseline_of, draw_scatter, main_metric_points, spread_apart
from hafabench.reporting.charts.chart import PALETTE, Chart, compose_figure, make_chart, new_figure
from hafabench.reporting.charts.comparison_charts import comparison_charts
from hafabench.reporting.charts.learning_curves import (
    MOST_POINTS,
    learning_curve_charts,
    mean_curve,
    most_advanced,
    thin_out,
)
from hafabench.reporting.charts.report_charts import draw_charts, figure_files
from hafabench.reporting.comparisons import Comparison
from hafabench.reporting.frame import collect
from hafabench.reporting.legend import NO_COMPARISON
from hafabench.stats.paired import compare_paired, summarize
from tests.support.experiments import EXAMPLE
from tools.checkout import REPOSITORY
from tools.synthetic_records import complexity, evaluation, frame_of

STYLE = REPOSITORY / "src/hafabench/reporting/html/templates/style.css"
GMACS = Cost("gmacs", "multiply-accumulates", "GMACs", "gmacs")


def curve(losses: list[float]) -> dict[str, list[float]]:
    steps = [float(step) for step in range(1, len(losses) + 1)]
    return {"step": steps, "loss": losses, "lr": [1e-3] * len(losses)}


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]+)</text>", svg)


def titles(svg: str) -> list[str]:
    return re.findall(r"<title>([^<]+)</title>", svg)


@pytest.fixture
def curves():
    runs = ["classification/pvt_tiny/seed0", "classification/pvt_tiny_hafa/seed0", "detection/pvt_tiny/seed1"]
    return {run: curve([2.0, 1.0, 0.5 + index]) for index, run in enumerate(runs)}


def test_learning_curves_have_a_chart_per_task_that_names_every_model(curves):
    charts = learning_curve_charts(curves)
    assert [chart.name for chart in charts] == ["curves-classification", "curves-detection"]
    classification = texts(charts[0].svg)
    for text in ("Classification", "training loss", "learning rate", "pvt_tiny 0.50", "pvt_tiny_hafa 1.50"):
        assert classification.count(text) == 1, text
    assert "pvt_tiny_hafa" not in charts[1].svg
    assert "pvt_tiny_hafa 1.50" in charts[0].description


def test_a_model_keeps_its_colour_in_every_chart(curves):
    classification, detection = learning_curve_charts(curves)
    # Loss, rate and legend of each model.
    for svg, counts in ((classification.svg, (3, 3, 0)), (detection.svg, (3, 0, 0))):
        assert tuple(svg.count(f"stroke: {PALETTE[f'series{number}']}") for number in range(3)) == counts


def test_seeds_are_thin_lines_and_their_mean_a_thick_one():
    seeds = {f"detection/pvt_tiny/seed{seed}": curve([2.0 + seed] * 4) for seed in range(3)}
    (chart,) = learning_curve_charts(seeds)
    assert [text for text in texts(chart.svg) if "pvt" in text] == ["pvt_tiny 3.00"]
    widths = re.findall(rf"stroke: {PALETTE['series0']}[^\"]*stroke-width: ([\d.]+)", chart.svg)
    assert sorted(widths) == ["0.7"] * 3 + ["1.4", "2.2", "2.2"]
    assert titles(chart.svg).count("pvt_tiny, one seed") == 3
    assert "pvt_tiny, mean of 3 seeds" in titles(chart.svg)


def test_a_running_training_does_not_shorten_the_mean():
    complete = [curve([3.0, 2.0, 1.0]), curve([3.0, 2.0, 2.0])]
    running = curve([9.0])
    assert most_advanced([*complete, running]) == complete
    assert mean_curve(complete) == ([1, 2, 3], [3.0, 2.0, 1.5])
    runs = {f"classification/pvt_tiny/seed{seed}": one for seed, one in enumerate([*complete, running])}
    (chart,) = learning_curve_charts(runs)
    assert "pvt_tiny 1.50" in texts(chart.svg)
    assert "pvt_tiny, mean of 2 seeds" in titles(chart.svg)


def test_long_curves_are_thinned_out_without_a_shift():
    steps = [float(step) for step in range(1, 5001)]
    thin_steps, values = thin_out(steps, [5.0 - step / 1000 for step in steps])
    assert len(thin_steps) <= MOST_POINTS
    assert thin_steps[-1] == 5000
    # The means of neighbours on a straight line differ from it by at most half a part.
    for step, value in zip(thin_steps, values, strict=True):
        assert value == pytest.approx(5.0 - step / 1000, abs=0.013)
    assert thin_out([1.0, 2.0], [3.0, 4.0]) == ([1.0, 2.0], [3.0, 4.0])


@pytest.fixture
def frame(tmp_path):
    counted = {"pvt_tiny": {"gmacs": 1.9}, "pvt_tiny_hafa": {"gmacs": 2.0}, "resnet18": {"gmacs": 1.8}}
    return frame_of(
        tmp_path / "results",
        complexity("classification", counted),
        evaluation("classification", "pvt_tiny", 0, {"top1": 90.0, "top5": 99.0}),
        evaluation("classification", "pvt_tiny", 1, {"top1": 91.0}),
        evaluation("classification", "pvt_tiny_hafa", 0, {"top1": 92.0}),
        evaluation("classification", "resnet18", 0, {"top1": 93.0}),
        # This model was not counted, and the imported number is not measured: neither is in the chart.
        evaluation("segmentation", "pvt_tiny", 0, {"miou": 40.0}),
        evaluation("classification", "resnet18", None, {"top1": 70.0}, origin="imported", id="imported/resnet18"),
    )


def test_points_are_means_at_counted_cost(frame):
    points = {point.model: point for point in main_metric_points(frame, "classification", GMACS)}
    assert {model: (point.cost, point.mean, point.n) for model, point in points.items()} == {
        "pvt_tiny": (1.9, 90.5, 2),
        "pvt_tiny_hafa": (2.0, 92.0, 1),
        "resnet18": (1.8, 93.0, 1),
    }
    chart = draw_scatter("classification", GMACS, list(points.values()), CATALOG)
    assert {"pvt_tiny 90.5", "pvt_tiny_hafa 92.0", "resnet18 93.0", "GMACs"} <= set(texts(chart.svg))
    assert "pvt_tiny: 90.5 ± 0.7 over 2 seeds, GMACs: 1.9" in titles(chart.svg)
    assert "resnet18 with 93.0" in chart.description
    assert main_metric_points(frame, "segmentation", GMACS) == []


def test_an_arrow_leads_from_the_baseline_to_the_variant(frame):
    def strokes(points):
        return draw_scatter("classification", GMACS, points, CATALOG).svg.count(f"stroke: {PALETTE['merger']}")

    points = main_metric_points(frame, "classification", GMACS)
    # An arrow consists of a line and a head.
    assert strokes(points) == strokes([point for point in points if point.model != "pvt_tiny"]) + 2


def test_variants_have_the_plain_model_as_baseline():
    assert baseline_of("pvt_tiny_hafa", CATALOG) == "pvt_tiny"
    assert baseline_of("pvt_v2_b1_sia_sia_sia", CATALOG) == "pvt_v2_b1"
    assert baseline_of("swin_tiny_hafa", CATALOG) == "swin_tiny"
    assert baseline_of("pvt_tiny", CATALOG) is None
    assert baseline_of("unheard_of", CATALOG) is None
    own = {**CATALOG, "mine": derive(CATALOG["pvt_small"], "mine", mergers=("grid", "laa", "grid", "grid"))}
    assert baseline_of("mine", own) == "pvt_small"


@pytest.mark.parametrize("heights", [[0.5, 0.5, 0.5], [0.0, 0.01, 0.99, 1.0], [0.98, 0.99, 1.0], [0.2]])
def test_labels_are_moved_apart_and_stay_in_order(heights):
    placed = spread_apart(heights, 0.1)
    gaps = [high - low for low, high in pairwise(placed)]
    assert all(gap >= 0.1 - 1e-9 for gap in gaps)
    assert max(placed) <= 1
    assert min(placed) >= 0


def small_chart(name: str) -> Chart:
    with new_figure(60, legend_rows=0) as figure:
        axes = figure.subplots()
        axes.plot([0, 1, 2], [2, 1, 5], "o-", color=PALETTE["series0"], gid="line")
        axes.set_title("A <title> & more")
        return make_chart(name, figure, 'A line, "rising"', {"line": "from 2 to 5"})


def test_ids_of_two_charts_differ_and_every_reference_has_its_target():
    charts = [small_chart("one"), small_chart("two")]
    ids = [identifier for chart in charts for identifier in re.findall(r' id="([^"]+)"', chart.svg)]
    assert len(ids) == len(set(ids)) > 0
    for chart in charts:
        references = re.findall(r'(?:href="#|url\(#)([^")]+)', chart.svg)
        assert references
        assert set(references) <= set(ids)
        assert all(reference.startswith(f"{chart.name}-") for reference in references)


def test_charts_contain_text_descriptions_and_tooltips_but_no_style_sheet():
    chart = small_chart("one")
    root = ElementTree.fromstring(chart.svg)
    assert root.attrib["aria-label"] == 'A line, "rising"'
    assert titles(chart.svg) == ["from 2 to 5"]
    assert "A &lt;title&gt; &amp; more" in texts(chart.svg)
    assert not [element.tag for element in root.iter() if element.tag.rpartition("}")[2] in ("style", "metadata")]
    assert chart.svg == small_chart("one").svg


def test_every_colour_of_a_themed_chart_is_a_variable_of_the_style_sheet(curves, frame):
    points = main_metric_points(frame, "classification", GMACS)
    charts = [*learning_curve_charts(curves), draw_scatter("classification", GMACS, points, CATALOG)]
    light = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", STYLE.read_text().partition("@media")[0]))
    assert {name: light[name] for name in PALETTE} == PALETTE
    for chart in charts:
        svg = chart.themed_svg
        assert set(re.findall(r"var\(--([\w-]+)\)", svg)) <= set(PALETTE)
        assert re.findall(r"(?:fill|stroke): (#[0-9a-fA-F]+)", svg) == []
        assert not re.match(r"<svg [^>]*width=", svg)


def test_a_figure_file_contains_every_chart_once():
    charts = [small_chart(name) for name in ("one", "two", "three")]
    text = compose_figure([charts[:2], charts[2:]], heading="EMBEDDED DATA", empty="nothing")
    root = ElementTree.fromstring(text.encode())
    nested = [element for element in root if element.tag.endswith("}svg")]
    boxes = [tuple(float(element.attrib[key]) for key in ("x", "y", "width", "height")) for element in nested]
    assert len(boxes) == 3
    assert boxes[0][1] == boxes[1][1]
    assert boxes[0][0] + boxes[0][2] <= boxes[1][0]
    assert boxes[0][1] + boxes[0][3] <= boxes[2][1]
    assert "EMBEDDED DATA" in texts(text)
    assert "nothing" not in text


def test_figure_files_warn_of_embedded_data_and_are_the_same_every_time(curves, frame):
    for name, warns in (("digits", True), ("paper", False)):
        experiment = load_experiment(REPOSITORY / f"configs/{name}.yaml")
        one, two = (figure_files(experiment, draw_charts(experiment, frame, curves, [])) for _ in range(2))
        assert one == two
        assert {path.name for path in one} == {
            f"{name}.svg" for name in ("learning_curves", "accuracy_vs_complexity", "comparisons")
        }
        for path, text in one.items():
            expected = warns and path.name != "comparisons.svg"
            assert ("EMBEDDED DATA (digits), not comparable with the paper" in text) == expected


def test_figures_without_anything_to_show_contain_a_sentence():
    experiment = load_experiment(EXAMPLE)
    files = figure_files(experiment, draw_charts(experiment, collect([]), {}, []))
    shown = {Path(path).stem: " ".join(texts(text)) for path, text in files.items()}
    assert shown == {
        "learning_curves": "No training has written a history yet.",
        "accuracy_vs_complexity": "No evaluated model has a counted or timed cost yet.",
        "comparisons": NO_COMPARISON,
    }


def test_comparisons_show_the_verdict_and_the_interval_where_there_is_one():
    def compared(header, differences):
        pairs = compare_paired(dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0))
        summary = summarize(differences)
        return Comparison(
            table="1", task="detection", metric=header, header=header, decimals=1, model="a", label="A", baseline="b",
            baseline_label="B", candidate=summary, reference=summary, paired=pairs, p_holm=pairs.p, family=2,
        )  # fmt: skip

    (chart,) = comparison_charts([compared("box AP", [4.0, 5.0, 4.5]), compared("mask AP", [1.0, 1.0])])
    shown = texts(chart.svg)
    assert "Detection: difference from the baseline" in shown
    assert shown.count("A against B") == 2
    assert {"box AP: better", "mask AP: cannot tell"} <= set(shown)
    assert len(titles(chart.svg)) == 2
    assert all(title in chart.description for title in titles(chart.svg))
