"""Whatever a file contains, it is used without an error, or it is refused with file, line and key."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hafabench.config.claims import load_claims_config
from hafabench.config.experiment import Experiment, load_experiment
from hafabench.config.paper_values import COLUMNS, load_paper_values
from hafabench.config.recipes import TASKS, load_recipe
from hafabench.config.regression import load_limits
from hafabench.config.site import load_site
from hafabench.config.tables import load_table_layouts
from hafabench.config.throughput import Rates
from hafabench.config.yaml_file import YamlFile
from hafabench.runs.jobs import JobList
from hafabench.runs.learning_rates import learning_rate_warnings
from hafabench.runs.resources import ResourceRequests
from tests.support.experiments import EXAMPLE
from tests.support.hostile_values import VALUES, changed, read_or_refused, search
from tools.checkout import REPOSITORY

CONFIGS = REPOSITORY / "configs"


def shipped(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / name).read_text())


def elsewhere(content: dict[str, Any]) -> dict[str, Any]:
    """Name the shipped files by absolute paths."""
    names = {
        "recipes": "recipes",
        "tables": "tables.yaml",
        "paper_values": "paper_values.csv",
        "claims": "claims.yaml",
    }
    return content | {key: str(CONFIGS / name) for key, name in names.items()}


def requests_are_possible(requests: ResourceRequests, jobs: JobList) -> None:
    """Check that every job requests something that a cluster understands."""
    found = [requests.train(run) for run in jobs.runs.values()]
    found += [requests.evaluate(run) for run in jobs.runs.values()]
    found += [requests.measure_latency(group) for group in requests.experiment.config.latency]
    for request in found:
        assert math.isfinite(request.estimated_minutes)
        assert request.estimated_minutes > 0
        assert 1 <= request.runtime < 10**8
        assert 1 <= request.cpus < 10**6
        assert 1 <= request.mem_mb < 2**40


@pytest.fixture(scope="module")
def digits() -> Experiment:
    return load_experiment(EXAMPLE)


@pytest.fixture(scope="module")
def paper() -> tuple[Experiment, JobList]:
    experiment = load_experiment(CONFIGS / "paper.yaml")
    return experiment, JobList(experiment)


def small(content: dict[str, Any]) -> dict[str, Any]:
    """Keep two models of each task, so that each example is read quickly."""
    content["train"] = {task: ["resnet18", "pvt_tiny_hafa"] for task in TASKS}
    content["models"] = {
        "mine": {"base": "pvt_v2_b1", "mergers": ["grid", "laa", "laa", "sia"]},
        "pruned": {"base": "dynamicvit_lvs_0.5", "keep": {"schedule": "powers", "rate": 0.5}},
    }
    return content


EXPERIMENT = small(elsewhere(yaml.safe_load(EXAMPLE.read_text())))


@given(content=changed(EXPERIMENT))
@search(15)
def test_experiment(content, tmp_path):
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def read() -> JobList:
        experiment = load_experiment(file)
        jobs = JobList(experiment)
        list(learning_rate_warnings(experiment, jobs.runs.values()))
        requests_are_possible(ResourceRequests(experiment), jobs)
        return jobs

    read_or_refused(read, "")


@pytest.mark.parametrize("task", TASKS)
@given(data=st.data())
@search(15)
def test_recipe(data, task, tmp_path, paper):
    file = tmp_path / f"{task}.yaml"
    content = data.draw(changed(shipped(f"recipes/{task}.yaml")))
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    found = read_or_refused(lambda: load_recipe(file, task), str(file))
    if found is not None:
        for spec in paper[0].models.values():
            if task != "classification" or (spec.keep is None) == ("token_pruning.teacher" not in found.layers(spec)):
                assert found.resolved(spec).contradictions() == {}


@given(content=changed(shipped("tables.yaml")))
@search(15)
def test_tables(content, tmp_path):
    file = tmp_path / "tables.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    for layout in read_or_refused(lambda: load_table_layouts(file), str(file)) or ():
        assert layout.number
        for column in layout.columns:
            assert column.factor > 0
            assert column.metric_name
            assert all(column.latency_group(row.group) != "" for row in layout.rows)


@given(content=changed(shipped("claims.yaml")))
@search(15)
def test_claims(content, tmp_path):
    file = tmp_path / "claims.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    found = read_or_refused(lambda: load_claims_config(file), str(file))
    if found is not None:
        assert all(convention.per_unit > 0 for convention in found.conventions)
        assert all(min(convention.weights.values(), default=1) >= 0 for convention in found.conventions)
        assert all(stand_in.model.name for stand_in in found.stand_ins)


@given(content=changed(shipped("regression.yaml")))
@search(15)
def test_limits(content, tmp_path):
    file = tmp_path / "regression.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    found = read_or_refused(lambda: load_limits(file), str(file))
    if found is not None:
        for limits in found.metrics.values():
            assert all(math.isfinite(limits.tolerance(50.0, elsewhere=elsewhere)) for elsewhere in (True, False))


@given(
    content=changed(
        shipped("site.yaml") | {"gpu": {"max_hours": "1-12", "gpus": 4}, "cpu": {"cpus": 8, "extra": "-x"}}
    )
)
@search(15)
def test_site(content, tmp_path, paper):
    experiment, jobs = paper
    file = tmp_path / "site.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def read() -> None:
        site = load_site(file)
        # No number of GPUs of a site may divide the batch of a run, which is an error of both.
        site = site.model_copy(update={"gpu": site.gpu.model_copy(update={"gpus": 8})})
        requests_are_possible(ResourceRequests(experiment, site), jobs)

    read_or_refused(read, str(file))


@given(content=changed(shipped("throughput.yaml")))
@search(15)
def test_rates(content, tmp_path, paper):
    experiment, jobs = paper
    file = tmp_path / "throughput.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    rates = read_or_refused(lambda: YamlFile(file).validate(Rates), str(file))
    if rates is not None:
        requests = ResourceRequests(experiment)
        requests.throughput.rates = rates.model_copy(update={"gpus": requests.throughput.rates.gpus})
        requests_are_possible(requests, jobs)


OTHER_DIGITS = ("\u0661", "\u00b2", "9" * 50, "9" * 5000)
FIELDS = st.one_of(st.sampled_from(VALUES).map(str), st.text(max_size=6), st.sampled_from(OTHER_DIGITS))


@given(data=st.data())
@search(15)
def test_paper_values(data, tmp_path):
    lines = [[*COLUMNS], ["1", "pvt_tiny", "PVT-Tiny", "tiny", "", "top1", "75.1", ""]]
    for _ in range(data.draw(st.integers(1, 2))):
        line = data.draw(st.sampled_from(lines))
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(FIELDS)
    file = tmp_path / "paper_values.csv"
    file.write_text("".join(",".join(line) + "\n" for line in lines), errors="replace")
    for value in (read_or_refused(lambda: load_paper_values(file), str(file)) or {}).values():
        assert all(number is None or math.isfinite(number) for number in (value.value, value.delta))


def test_the_unchanged_contents_are_used(digits, tmp_path):
    file = Path(tmp_path / "experiment.yaml")
    file.write_text(yaml.safe_dump(EXPERIMENT, sort_keys=False))
    found = JobList(load_experiment(file))
    assert found.runs.keys() <= JobList(digits).runs.keys() | found.runs.keys()
    requests_are_possible(ResourceRequests(load_experiment(file)), found)
