"""The regression gate on real measurements: planted regressions are caught, and clean reruns pass."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import Compose, Normalize

from hafabench.config.catalog import CATALOG
from hafabench.config.experiment import LatencyConfig
from hafabench.engines import classification
from hafabench.engines.classification import evaluation as classification_evaluation
from hafabench.files import sha256_of
from hafabench.measure import complexity, latency
from hafabench.measure.timing import time_against_baseline
from hafabench.models.hafa.laa import LocalAdaptiveAggregation
from hafabench.models.hafa.sia import SemanticInformationAggregation
from hafabench.results.record import Metric, write_record
from tests.support.gate_records import HERE, judged, verdicts
from tools.synthetic_records import evaluation
from tools.tiny_runs import classification as tiny_classification

pytestmark = pytest.mark.slow


def record(folder: Path, name: str, metrics: list[Metric], **fields) -> None:
    about = {"verb": name.split("/")[0], "id": name, "metrics": metrics, "machine": HERE} | fields
    write_record(folder / f"{name}.json", evaluation("classification", "any", None, {}, **about))


def twice(forward):
    """Compute the same result twice."""

    def slower(self, tokens):
        forward(self, tokens)
        return forward(self, tokens)

    return slower


@pytest.mark.timing
def test_a_merger_that_does_its_work_twice_is_caught(tmp_path, monkeypatch):
    # Other processes disturb CPU time less than wall-clock time.
    monkeypatch.setattr(latency, "time_against_baseline", partial(time_against_baseline, clock=time.process_time))
    group = LatencyConfig(
        name="small",
        baseline="pvt_tiny",
        models=["pvt_tiny_hafa"],
        image_size=112,
        warmup=3,
        repeats=400,
        interval=0.03,
        threads=1,
    )
    for folder in ("baseline", "clean", "slower"):
        if folder == "slower":
            for merger in (LocalAdaptiveAggregation, SemanticInformationAggregation):
                monkeypatch.setattr(merger, "forward", twice(merger.forward))
        record(tmp_path / folder, "latency/small", latency.measure(group, CATALOG, device="cpu").metrics)
    key = "latency/small/pvt_tiny_hafa/latency_ratio"
    assert verdicts(judged(tmp_path / "baseline", tmp_path / "slower")) == {key: "worse"}
    assert verdicts(judged(tmp_path / "baseline", tmp_path / "clean"))[key] in ("no change", "cannot tell")


@pytest.mark.timing
def test_twenty_clean_timings_raise_no_alarm(tmp_path):
    """Measured in wall-clock time."""
    group = LatencyConfig(
        name="small",
        baseline="tiny_resnet",
        models=["tiny_convnext"],
        image_size=64,
        warmup=3,
        repeats=240,
        interval=0.02,
        threads=1,
    )
    for rerun in range(21):
        folder = tmp_path / str(rerun)
        found = latency.measure(group, tiny_classification.MODELS, device="cpu")
        record(folder, "latency/small", found.metrics, machine=found.machine)
        if rerun:
            assert not {"worse", "better"} & set(verdicts(judged(tmp_path / "0", folder)).values())


def test_one_parameter_more_is_caught(tmp_path, monkeypatch):
    built = SemanticInformationAggregation.__init__

    def larger(self, *arguments, **options):
        built(self, *arguments, **options)
        self.forgotten = nn.Parameter(torch.zeros(1))

    specs = [CATALOG["pvt_tiny"], CATALOG["pvt_tiny_hafa"]]
    for folder in ("baseline", "clean", "larger"):
        if folder == "larger":
            monkeypatch.setattr(SemanticInformationAggregation, "__init__", larger)
        counted = complexity.metrics(specs, "classification", (224, 224), 1000)
        record(tmp_path / folder, "complexity/classification", counted)
    assert set(verdicts(judged(tmp_path / "baseline", tmp_path / "clean")).values()) == {"no change"}
    found = judged(tmp_path / "baseline", tmp_path / "larger").changes
    worse = {str(change.key): change.effect.change for change in found if change.verdict == "worse"}
    assert worse == {"complexity/classification/pvt_tiny_hafa/params": 1}


def test_a_wrong_normalisation_at_evaluation_is_caught_and_an_equal_one_is_not(tmp_path, monkeypatch):
    images = tmp_path / "images"
    tiny_classification.make_images(images)
    run = tiny_classification.tiny_run(tmp_path / "run", images=images, model="tiny_resnet", epochs=10, lr=5e-3)
    classification.train(run)

    def evaluate(folder: Path) -> None:
        place = folder / "classification/tiny_resnet/seed0"
        metrics = classification.evaluate(run, run.checkpoint, keep=place / "predictions.npz")
        made = {"checkpoint_sha256": sha256_of(run.checkpoint), "machine": HERE}
        made["predictions_sha256"] = sha256_of(place / "predictions.npz")
        made |= {"id": run.id, "metrics": metrics}
        write_record(place / "evaluate.json", evaluation("classification", "tiny_resnet", 0, {}, **made))

    evaluate(tmp_path / "baseline")
    evaluate(tmp_path / "clean")
    right = classification_evaluation.eval_transform

    def without_mean_and_deviation(recipe):
        steps = right(recipe).transforms
        assert sum(isinstance(step, Normalize) for step in steps) == 1
        # Pixels keep their values from 0 to 255.
        return Compose([Normalize(0, 1 / 255) if isinstance(step, Normalize) else step for step in steps])

    monkeypatch.setattr(classification_evaluation, "eval_transform", without_mean_and_deviation)
    evaluate(tmp_path / "wrong")
    [same] = judged(tmp_path / "baseline", tmp_path / "clean").changes
    assert (same.verdict, same.effect.method) == ("no change", "identical predictions")
    [worse] = judged(tmp_path / "baseline", tmp_path / "wrong").changes
    assert worse.verdict == "worse"
    assert worse.effect.change < -50
    assert np.isfinite(worse.effect.low)
