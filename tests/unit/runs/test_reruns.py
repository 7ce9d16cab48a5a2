"""What the workflow runs again: decided from the content of outputs, without Snakemake's metadata or times."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from hafabench.config.experiment import load_experiment
from hafabench.config.recipes import TASKS
from hafabench.files import sha256_of, write_text
from hafabench.results.record import read_record, write_record
from hafabench.runs.jobs import JobList
from hafabench.runs.snakemake import Reruns, decide_reruns
from hafabench.runs.state import output_states, run_state, store_configuration
from tests.support.experiments import evaluated, shrink
from tests.support.finished import files_of, finish, make_up

CLASSIFIER, SEGMENTER = "classification/pvt_tiny_hafa/seed0", "segmentation/pvt_tiny_hafa/seed0"
COMBINED = {"collect_records", "draw_pictures", "write_report"}


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("finished")


@pytest.fixture
def finished(original, tmp_path, write_experiment, monkeypatch) -> JobList:
    """The jobs of a small experiment of all tasks that has run completely."""
    file = write_experiment(shrink)
    monkeypatch.chdir(tmp_path)
    if not (original / "results").exists():
        finish(load_experiment(file))
        for folder in ("results", "reports", "data"):
            shutil.copytree(folder, original / folder)
    else:
        shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return JobList(load_experiment(file))


def decided(jobs: JobList, **settings) -> Reruns:
    nothing = {"targets": set(), "forcerun": set(), "forcetargets": False, "forceall": False}
    return decide_reruns(jobs, output_states(jobs), SimpleNamespace(**nothing | settings))


def again(jobs: JobList, **settings) -> set[str]:
    """The ids of the jobs that are not up to date, without the optional ones."""
    return set(jobs) - decided(jobs, **settings).current


def test_nothing_runs_again_after_a_complete_run(finished):
    assert again(finished) == set()
    assert decided(finished).forced == set()
    assert decided(finished).targets(finished) == list(map(str, finished.targets))


@pytest.mark.parametrize("reverse", [False, True])
def test_times_of_a_copy_do_not_count(finished, reverse):
    for seconds, path in enumerate(sorted(files_of(Path.cwd()), reverse=reverse)):
        os.utime(path, (1_700_000_000 + seconds,) * 2)
    assert again(finished) == set()
    job = finished[f"train_run {SEGMENTER}"]
    assert decided(finished).inputs(job, lambda path: f"ancient {path}") == [f"ancient {path}" for path in job.inputs]


def edited(write_experiment, edit) -> JobList:
    def both(content):
        shrink(content)
        edit(content)

    return JobList(load_experiment(write_experiment(both)))


EDITS = {
    "learning rate": (
        lambda c: c["overrides"].append({"runs": CLASSIFIER, "why": "an edit", "set": {"lr": 0.002}}),
        {f"{rule} {task}/pvt_tiny_hafa/seed0" for rule in ("train_run", "evaluate_run") for task in TASKS},
    ),
    "data": (
        lambda c: c["datasets"]["detection"]["generator"].update(seed=99),
        {"prepare_dataset detection"}
        | {f"{rule} detection/pvt_tiny_hafa/seed0" for rule in ("train_run", "evaluate_run")},
    ),
    "sizes": (
        lambda c: c["complexity"]["num_classes"].update(detection=7),
        {"count_complexity detection", "count_conventions"},
    ),
    "latency": (lambda c: c["latency"][0].update(repeats=4), {"measure_latency table4"}),
    "title": (lambda c: c.update(title="Another title"), set()),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_runs_again_what_it_changes(finished, write_experiment, edit):
    change, expected = EDITS[edit]
    jobs = edited(write_experiment, change)
    found = again(jobs)
    assert found - COMBINED == expected
    assert "write_report" in found
    assert ("collect_records" in found) == (edit != "title")
    # All outputs exist, so they have to be forced.
    forced = decided(jobs).forced
    assert all(not forced.isdisjoint(map(str, jobs[name].outputs)) for name in found)


def test_a_reverted_edit_runs_nothing_again(finished, write_experiment):
    assert again(edited(write_experiment, EDITS["learning rate"][0]))
    assert again(edited(write_experiment, lambda content: None)) == set()


@pytest.mark.parametrize("begun", ["trained", "trained and evaluated"])
def test_an_edit_that_was_reverted_while_jobs_ran_does_not_stay(finished, write_experiment, begun):
    """A job reads the experiment when it begins, which may be after an edit that the driver does not know about."""
    run = edited(write_experiment, EDITS["learning rate"][0]).runs[CLASSIFIER]
    store_configuration(run)
    write_text(run.checkpoint, "weights of the edited experiment")
    if begun == "trained and evaluated":
        evaluated(run, checkpoint_sha256=sha256_of(run.checkpoint))
    later = time.time() + 5
    os.utime(run.checkpoint, (later, later))
    jobs = edited(write_experiment, lambda content: None)
    assert {f"train_run {CLASSIFIER}", f"evaluate_run {CLASSIFIER}"} <= again(jobs)
    assert {str(run.checkpoint), str(run.record)} <= decided(jobs).forced
    assert "recipe.lr: 0.002 -> " in output_states(jobs)[f"train_run {CLASSIFIER}"].changes[0]


def test_every_lost_output_is_made_again(finished):
    for job in finished.values():
        for path in {*job.outputs[:1], *job.outputs[-1:]} if job.rule != "train_run" else ():
            kept, times = path.read_bytes(), path.stat()
            path.unlink()
            found = again(finished)
            assert job.id in found, path
            assert not any(name.startswith("train_run") for name in found), path
            assert str(path) in decided(finished).targets(finished)
            path.write_bytes(kept)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert again(finished) == set()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "hafabench.record/1"}'])
def test_a_record_that_cannot_be_read_is_made_again(finished, content):
    run = finished.runs[SEGMENTER]
    run.record.write_text(content)
    assert f"evaluate_run {SEGMENTER}" in again(finished)
    assert str(run.record) in decided(finished).forced


def test_the_checkpoint_of_an_evaluated_run_is_made_again_only_for_another_training(finished):
    parent, child = finished.runs[CLASSIFIER], finished.runs[SEGMENTER]
    parent.checkpoint.unlink()
    jobs = JobList(finished.experiment)  # no pictures are drawn without weights
    assert not any("_run " in name for name in again(jobs))
    reruns = decided(jobs)
    assert str(parent.checkpoint) not in reruns.targets(jobs)
    assert str(parent.checkpoint) not in reruns.inputs(jobs[f"evaluate_run {CLASSIFIER}"], str)
    child.record.unlink()
    child.checkpoint.unlink()
    found = again(jobs)
    assert {f"{rule} {run}" for rule in ("train_run", "evaluate_run") for run in (CLASSIFIER, SEGMENTER)} <= found
    assert "train_run detection/pvt_tiny_hafa/seed0" not in found
    assert str(parent.checkpoint) in decided(jobs).inputs(jobs[f"train_run {SEGMENTER}"], str)


def test_lost_data_is_prepared_again_only_for_jobs_that_need_it(finished):
    root = finished.experiment.config.datasets["segmentation"].root
    shutil.rmtree(root)
    assert again(finished) == set()
    finished.runs[SEGMENTER].record.unlink()
    found = output_states(finished)["prepare_dataset segmentation"]
    assert (found.outputs, found.changes) == ("stale", (f"{root} does not exist",))
    assert f"train_run {SEGMENTER}" not in again(finished)


def test_results_without_data_need_no_data(finished):
    shutil.rmtree("data")
    shutil.rmtree(finished["prepare_dataset detection"].outputs[0].parent)
    assert again(finished) == set()
    assert not any("/data/" in target for target in decided(finished).targets(finished))


def test_a_checkpoint_that_was_made_again_is_evaluated_again(finished):
    run = finished.runs[CLASSIFIER]
    later = run.record.stat().st_mtime + 10
    os.utime(run.checkpoint, (later, later))
    assert again(finished) == set()
    run.checkpoint.write_text("another one")
    os.utime(run.checkpoint, (later, later))
    assert run_state(run).state == "trained"
    assert {f"evaluate_run {CLASSIFIER}", "collect_records", "write_report"} <= again(finished)
    assert f"train_run {SEGMENTER}" not in again(finished)


def test_a_record_that_arrives_with_an_old_time_is_collected(finished):
    job = finished["measure_latency table4"]
    record = read_record(job.outputs[0])
    write_record(job.outputs[0], record.model_copy(update={"warnings": ["measured again"]}))
    os.utime(job.outputs[0], (1, 1))
    assert again(finished) == {"collect_records", "write_report"}
    make_up(finished, finished["collect_records"])
    assert again(finished) == {"write_report"}
    make_up(finished, finished["write_report"])
    assert again(finished) == set()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"forceall": True}, None),
        ({"forcerun": {"train_run"}}, {"train_run", "evaluate_run", *COMBINED}),
        ({"forcerun": {"results/digits/counts.json"}}, {"count_conventions", "write_report"}),
        ({"forcerun": {"./results/digits/counts.json"}}, {"count_conventions", "write_report"}),
        ({"targets": {"results/digits/counts.json"}, "forcetargets": True}, {"count_conventions", "write_report"}),
        ({"targets": {"results/digits/counts.json"}}, set()),
        ({"targets": {"all"}, "forcetargets": True}, set()),
    ],
)
def test_what_the_user_forces_runs_again_with_what_depends_on_it(finished, settings, expected):
    rules = {finished[name].rule for name in again(finished, **settings)}
    assert rules == ({job.rule for job in finished.values()} if expected is None else expected)


def test_what_depends_on_an_incomplete_output_runs_again_with_it(finished):
    settings = SimpleNamespace(targets=set(), forcerun=set(), forcetargets=False, forceall=False)
    marked = [finished.runs[SEGMENTER].checkpoint, Path("results/never_made.json")]
    found = decide_reruns(finished, output_states(finished), settings, marked)
    assert {finished[name].rule for name in set(finished) - found.current} == {
        *("train_run", "evaluate_run", "collect_records", "write_report"),
    }


def test_outputs_of_earlier_versions_are_compared_by_time(finished):
    """They contain no digests."""
    frame = finished["collect_records"].outputs[1]
    lines = [line.rsplit(",", 1)[0] for line in frame.read_text().splitlines()]
    assert lines[0].endswith(",record")
    frame.write_text("\n".join(lines) + "\n")
    page = next(path for path in finished["write_report"].outputs if path.suffix == ".html")
    page.write_text("<html>")
    for path in files_of(Path("results")):
        os.utime(path, (1, 1))
    assert again(finished) == set()
    os.utime(finished["count_complexity detection"].outputs[0], None)
    assert again(finished) == {"collect_records", "write_report"}
