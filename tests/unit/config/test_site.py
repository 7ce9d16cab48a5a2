"""The site file: its checks, and the resources of jobs that follow from it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import yaml

from hafabench.config.site import SITE_VARIABLE, GpuPool, Pool, Site, load_site, site_file
from hafabench.errors import UserError
from hafabench.runs.snakemake import limit_submitted_jobs, site_resources
from tests.support.messages import missing_facts
from tools.checkout import REPOSITORY


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        path = tmp_path / "site.yaml"
        path.write_text(text)
        return path

    return write


def test_the_tracked_file_names_every_key_and_leaves_every_choice_to_the_cluster():
    path = REPOSITORY / "configs/site.yaml"
    site = load_site(path)
    assert site_resources(site) == site_resources(site, gpus=8) == {}
    written = yaml.safe_load(path.read_text())
    assert written.keys() == Site.model_fields.keys()
    assert written["gpu"].keys() == GpuPool.model_fields.keys()
    # A job without GPUs always runs on one node.
    assert written["cpu"].keys() == Pool.model_fields.keys() - {"max_nodes"}


def test_gpu_jobs_and_others_go_to_their_own_nodes(write):
    site = load_site(
        write(
            "account: vision\n"
            "gpu: {partition: 'a100,h100', gpu_type: a100, constraint: 'a&b', extra: --exclusive --licenses=x}\n"
            "cpu: {partition: serial, qos: short}\n"
        )
    )
    assert site_resources(site, gpus=8) == {
        "slurm_account": "vision",
        "slurm_partition": "a100,h100",
        "gpu_model": "a100",
        "constraint": "a&b",
        "slurm_extra": "--exclusive --licenses=x",
    }
    assert site_resources(site) == {"slurm_account": "vision", "slurm_partition": "serial", "qos": "short"}


def test_all_problems_are_reported_at_once(write):
    path = write(
        "account: a b\ngpu:\n  gpu_type: a100-sxm4\n  gpus: 0\n  hours: 3\ncpu: {gpu_type: a100, max_hours: long}\n"
    )
    with pytest.raises(UserError) as caught:
        load_site(path)
    facts = [
        (f"{path}:1: account: ", "found 'a b'"),
        (f"{path}:3: gpu.gpu_type: ", "`constraint`", "found 'a100-sxm4'"),
        (f"{path}:4: gpu.gpus: ", "greater than 0", "found 0"),
        (f"{path}:5: gpu.hours: unknown key",),
        (f"{path}:6: cpu.gpu_type: unknown key",),
        (f"{path}:6: cpu.max_hours: ", "valid number", "found 'long'"),
    ]
    found = sorted(str(problem) for problem in caught.value.problems)
    assert [missing_facts(problem, *expected) for problem, expected in zip(found, facts, strict=True)] == [[]] * 6


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ("--partition=a", "option '--partition=a' is not allowed here: use the key 'partition'"),
        ("--exclusive -A me", "option '-A' is not allowed here: use the key 'account'"),
        ("--time=3", "option '--time=3' is not allowed here: the workflow sets it for each job"),
        ("exclusive", "expected sbatch options such as '--exclusive --licenses=a', found 'exclusive'"),
        ("--licenses='a", "expected options of a command line: No closing quotation"),
    ],
)
def test_extra_accepts_only_options_that_nothing_else_sets(write, extra, sentence):
    with pytest.raises(UserError, match=r"gpu\.extra") as caught:
        load_site(write(yaml.safe_dump({"gpu": {"extra": extra}})))
    assert sentence in str(caught.value)


def test_a_limit_must_leave_time_to_work(write):
    with pytest.raises(UserError, match=r"cpu\.max_hours \(0\.05 h\) must be longer than stop_margin_minutes \(5\)"):
        load_site(write("cpu: {max_hours: 0.05}\n"))


def test_run_time_is_whole_minutes_within_the_limit():
    site = Site(gpu=GpuPool(max_hours=24), cpu=Pool(max_hours=2))
    assert site.runtime(0.2, gpus=1) == 1
    assert site.runtime(90.5, gpus=1) == 91
    assert site.runtime(1e6, gpus=1) == 24 * 60
    assert site.runtime(1e6) == 120


def test_a_training_stops_a_margin_before_its_limit():
    site = Site(stop_margin_minutes=5)
    assert site.stop_after_s(1440) == 1435 * 60
    assert site.stop_after_s(4) == 120, "at least half of a short run time is used"


def test_the_environment_may_name_another_file(monkeypatch, tmp_path):
    monkeypatch.delenv(SITE_VARIABLE, raising=False)
    assert site_file(REPOSITORY) == REPOSITORY / "configs/site.yaml"
    monkeypatch.setenv(SITE_VARIABLE, str(tmp_path / "mine.yaml"))
    assert site_file(REPOSITORY) == tmp_path / "mine.yaml"
    with pytest.raises(UserError, match=f"no such file, but the environment variable {SITE_VARIABLE} names it"):
        load_site(site_file())


@pytest.mark.parametrize(
    ("written", "hours"),
    [
        ("24:00:00", 24),
        ("1:30:00", 1.5),
        ("1-12", 36),
        ("2-00:30", 48.5),
        ("1-00:00:36", 24.01),
        ("064", 64),
        ("1e1", 10),
        (".5", 0.5),
    ],
)
def test_time_limits_as_slurm_writes_them(write, written, hours):
    assert load_site(write(f"gpu: {{max_hours: {written}}}")).gpu.max_hours == pytest.approx(hours)


@pytest.mark.parametrize(
    "written", ["12:30", "24:00:60", "1-24:00", "1-2-3", "0x1:00:00", "UNLIMITED", "true", ".inf", "-1"]
)
def test_time_limits_that_mean_nothing_or_two_things(write, written):
    with pytest.raises(UserError, match=r"^\S+:1: gpu\.max_hours: "):
        load_site(write(f"gpu: {{max_hours: {written}}}"))


class _Resources(dict):
    """Snakemake's resources, which take values and return objects with a value."""

    def __getitem__(self, name: str):
        return SimpleNamespace(value=super().__getitem__(name))


@pytest.mark.parametrize(
    ("jobs", "limit", "expected"), [(100, 30, 30), (10, 30, 10), (100, None, 100), (None, 30, None)]
)
def test_the_driver_has_no_more_jobs_in_slurm_than_the_site_allows(jobs, limit, expected):
    # Without a cluster, Snakemake has no such number.
    workflow = SimpleNamespace(global_resources=_Resources(_nodes=jobs))
    limit_submitted_jobs(workflow, Site(max_submitted_jobs=limit))
    assert workflow.global_resources["_nodes"].value == expected
