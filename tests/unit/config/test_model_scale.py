"""The key ``model_scale``: what it changes in runs, fingerprints, estimates and the comparison with the paper."""

from __future__ import annotations

import pytest

from hafabench.config.catalog import CATALOG
from hafabench.config.experiment import load_experiment
from hafabench.config.recipes import TASKS
from hafabench.errors import UserError
from hafabench.runs.estimates import Throughput
from hafabench.runs.fingerprints import complexity_fingerprint, latency_fingerprint
from hafabench.runs.protocol import load_protocol
from hafabench.runs.run import expand
from hafabench.runs.static_models import counts_fingerprint


@pytest.fixture
def with_scale(write_experiment):
    def load(scale=None):
        def change(content):
            content.pop("model_scale", None)
            content |= {"model_scale": scale} if scale is not None else {}

        return load_experiment(write_experiment(change))

    return load


def test_every_run_has_the_scaled_model_and_another_fingerprint(with_scale):
    full, small = expand(with_scale()), expand(with_scale({"width": 0.25, "depth": 0.5}))
    assert full.keys() == small.keys()
    for name, run in small.items():
        assert (run.model.width, run.model.depth) == (0.25, 0.5)
        assert run.fingerprint != full[name].fingerprint
        assert {"width": 0.25, "depth": 0.5}.items() <= run.resolved()["model"].items()
        assert not {"width", "depth"} & full[name].resolved()["model"].keys()
        if run.parent is not None:
            assert run.parent.model.width == 0.25


@pytest.mark.parametrize("scale", [{}, {"width": 1}, {"width": 1.0, "depth": 1.0}])
def test_the_default_changes_no_fingerprint(with_scale, scale):
    found = {name: run.fingerprint for name, run in expand(with_scale(scale)).items()}
    assert found == {name: run.fingerprint for name, run in expand(with_scale()).items()}


def test_counts_and_latency_are_those_of_full_size(with_scale):
    full, small = with_scale(), with_scale({"width": 0.25})
    assert small.models["pvt_tiny"] == CATALOG["pvt_tiny"]
    for task in TASKS:
        assert complexity_fingerprint(full, task) == complexity_fingerprint(small, task)
    for group in full.config.latency:
        assert latency_fingerprint(full, group) == latency_fingerprint(small, group)
    assert counts_fingerprint(full) == counts_fingerprint(small)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ({"width": 0.01}, "model_scale.width: .*greater than or equal to 0.0625, found 0.01"),
        ({"depth": 2}, "model_scale.depth: .*less than or equal to 1, found 2"),
        ({"widht": 0.5}, "model_scale.widht: "),
        ({"width": "half"}, "model_scale.width: .*number"),
    ],
)
def test_a_wrong_scale_is_one_error_with_key_and_expectation(with_scale, scale, message):
    with pytest.raises(UserError, match=message) as error:
        with_scale(scale)
    assert len(error.value.problems) == 1


def test_scaled_models_do_not_follow_the_papers_protocol(with_scale):
    experiment = with_scale({"width": 0.25})
    protocol = load_protocol(experiment.claims_config, experiment.claims_file)
    assert protocol is not None
    differences = protocol.differences(next(iter(expand(experiment).values())))
    assert "model_scale width 0.25, depth 1 (paper: full size)" in differences.setting


def test_estimates_follow_the_scale(with_scale):
    full, small = with_scale(), with_scale({"width": 0.25, "depth": 0.5})
    identifier, run = next(iter(expand(small).items()))
    before = Throughput(full).train(expand(full)[identifier], 0)
    now = Throughput(small).train(run, 0)
    assert now.hours == pytest.approx(before.hours / 8)
    assert "in proportion to width 0.25, depth 0.5" in now.sources[0]
