"""Figures: what they show, that they are the same every time, and what is refused."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import pytest

from hafabench.config.catalog import CATALOG, derive
from hafabench.errors import UserError
from hafabench.reporting import figures
from hafabench.reporting.curves import read_curve
from hafabench.reporting.figures import accuracy_vs_complexity, learning_curves
from hafabench.reporting.frame import empty_frame
from tools.synthetic_records import complexity, evaluation, frame_of


@pytest.fixture(autouse=True)
def texts_as_text():
    """SVG texts as text instead of outlines, so that tests can read them."""
    with mpl.rc_context({"svg.fonttype": "none"}):
        yield


def history(path: Path, steps: int = 5) -> Path:
    lines = [{"step": s, "loss": 2.0 / s, "lr": 1e-3, "images_per_s": 9.0} for s in range(1, steps + 1)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def texts(svg: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]+)</text>", svg.read_text())


@pytest.fixture
def histories(tmp_path):
    runs = ["classification/pvt_tiny/seed0", "classification/pvt_tiny_hafa/seed0", "detection/pvt_tiny/seed1"]
    return {run: read_curve(history(tmp_path / f"{i}.jsonl")) for i, run in enumerate(runs)}


def test_learning_curves_name_every_task_and_run(histories, tmp_path):
    learning_curves(histories, tmp_path / "curves.svg")
    shown = texts(tmp_path / "curves.svg")
    for text in ("classification", "detection", "pvt_tiny/seed0", "pvt_tiny_hafa/seed0", "pvt_tiny/seed1"):
        assert shown.count(text) == 1, text
    assert shown.count("training loss") == shown.count("learning rate") == 2
    assert "segmentation" not in shown


def test_a_model_keeps_its_colour_in_every_panel(histories, tmp_path):
    learning_curves(histories, tmp_path / "curves.svg")
    svg = tmp_path.joinpath("curves.svg").read_text().lower()
    # pvt_tiny: loss, rate and legend of two panels; pvt_tiny_hafa: of one; no third colour.
    assert svg.count(f"stroke: {figures.COLOURS[0].lower()}") == 6
    assert svg.count(f"stroke: {figures.COLOURS[1].lower()}") == 3
    assert svg.count(f"stroke: {figures.COLOURS[2].lower()}") == 0


def test_seeds_are_thin_lines_and_their_mean_a_thick_one(tmp_path):
    def of_seed(seed, last):
        path = tmp_path / f"{seed}.jsonl"
        lines = [{"step": s, "loss": 2.0 + seed, "lr": 1e-3} for s in range(1, last + 1)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    runs = {f"detection/pvt_tiny/seed{seed}": of_seed(seed, last) for seed, last in enumerate((5, 3, 4))}
    learning_curves({run: read_curve(path) for run, path in runs.items()}, tmp_path / "curves.svg")
    svg = (tmp_path / "curves.svg").read_text()
    # One name for the model, and none for its seeds; the schedule once.
    assert [text for text in texts(tmp_path / "curves.svg") if "pvt" in text] == ["pvt_tiny, mean of 3 seeds"]
    widths = re.findall(rf"stroke: {figures.COLOURS[0].lower()}[^\"]*stroke-width: ([\d.]+)", svg.lower())
    assert sorted(widths) == ["0.7"] * 3 + ["1.4", "2.2", "2.2"]
    # The mean stands where all seeds are.
    assert figures.mean_curve([read_curve(path) for path in runs.values()]) == ([1, 2, 3], [3.0] * 3)


def test_torn_last_line_of_a_running_training_is_left_out(tmp_path):
    whole, torn = history(tmp_path / "whole.jsonl"), history(tmp_path / "torn.jsonl")
    with torn.open("a") as handle:
        handle.write('{"step": 6, "lo')
    assert read_curve(torn) == read_curve(whole)


@pytest.mark.parametrize("content", ['{"step": 1, "loss": 2.0}\n', "[1]\n", None])
def test_an_invalid_history_is_refused(tmp_path, content):
    path = tmp_path / "history.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=str(path)):
        read_curve(path)


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_figures_are_the_same_every_time(histories, frame, tmp_path, suffix):
    for name in ("one", "two"):
        learning_curves(histories, tmp_path / f"{name}.{suffix}")
        accuracy_vs_complexity(frame, tmp_path / f"{name}_c.{suffix}")
    assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()
    assert (tmp_path / f"one_c.{suffix}").read_bytes() == (tmp_path / f"two_c.{suffix}").read_bytes()


def test_unknown_kind_of_figure_is_refused(histories, tmp_path):
    with pytest.raises(UserError, match="unknown kind of figure 'bmpx'"):
        learning_curves(histories, tmp_path / "curves.bmpx")


def test_empty_figures_contain_an_explanation(tmp_path):
    learning_curves({}, tmp_path / "curves.svg")
    assert texts(tmp_path / "curves.svg") == ["no training has a history yet"]
    accuracy_vs_complexity(empty_frame(), tmp_path / "complexity.svg")
    assert texts(tmp_path / "complexity.svg") == ["no evaluated model has its complexity counted yet"]


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
        # Not counted, so it has no place in the figure; nor has an imported number.
        evaluation("segmentation", "pvt_tiny", 0, {"miou": 40.0}),
        evaluation("classification", "resnet18", None, {"top1": 70.0}, origin="imported", id="imported/resnet18"),
    )


def test_points_are_means_at_counted_cost(frame, tmp_path):
    accuracy_vs_complexity(frame, tmp_path / "c.svg")
    shown = texts(tmp_path / "c.svg")
    assert {"pvt_tiny 90.5", "pvt_tiny_hafa 92.0", "resnet18 93.0"} <= set(shown)
    assert "EMBEDDED DATA (digits), not comparable with the paper" in shown
    assert "segmentation" not in shown


def test_an_arrow_leads_from_backbone_to_variant(frame, tmp_path):
    def strokes(name, shown):
        accuracy_vs_complexity(shown, tmp_path / name)
        return (tmp_path / name).read_text().lower().count(f"stroke: {figures.PLUGIN.lower()}")

    alone = frame[~((frame["model"] == "pvt_tiny") & (frame["verb"] == "evaluate"))]
    # An arrow is a line and a head.
    assert strokes("pair.svg", frame) == strokes("alone.svg", alone) + 2


def test_full_scale_figure_carries_no_warning(frame, tmp_path):
    accuracy_vs_complexity(frame.assign(scale="full"), tmp_path / "c.svg")
    assert not any("EMBEDDED" in text for text in texts(tmp_path / "c.svg"))


def test_variants_find_their_backbone():
    assert figures.base_of("pvt_tiny_hafa", CATALOG) == "pvt_tiny"
    assert figures.base_of("pvt_v2_b1_sia_sia_sia", CATALOG) == "pvt_v2_b1"
    assert figures.base_of("swin_tiny_hafa", CATALOG) == "swin_tiny"
    assert figures.base_of("pvt_tiny", CATALOG) is None
    assert figures.base_of("unheard_of", CATALOG) is None
    own = {**CATALOG, "mine": derive(CATALOG["pvt_small"], "mine", mergers=("grid", "laa", "grid", "grid"))}
    assert figures.base_of("mine", own) == "pvt_small"


@pytest.mark.parametrize("heights", [[0.5, 0.5, 0.5], [0.0, 0.01, 0.99, 1.0], [0.98, 0.99, 1.0], [0.2]])
def test_labels_are_moved_apart_and_stay_in_order(heights):
    placed = figures.spread_apart(heights, 0.1)
    gaps = [high - low for low, high in pairwise(placed)]
    assert all(gap >= 0.1 - 1e-9 for gap in gaps)
    assert max(placed) <= 1
    assert min(placed) >= 0
