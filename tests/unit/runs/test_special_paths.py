"""Experiment files, checkouts and data whose paths contain characters with a meaning for shells and for Snakemake."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from hafabench.cluster.probe import _script
from hafabench.config.experiment import Experiment, load_experiment
from hafabench.explain.explain import explain
from hafabench.explain.render import to_markdown, to_text
from hafabench.runs.jobs import JobList, hafabench_command
from hafabench.runs.run import expand
from hafabench.runs.snakemake import (
    can_be_input,
    experiment_of,
    submission_problems,
    unlock_command,
    workflow_command,
)
from tests.support.experiments import evaluated

NAMES = ["two  spaces, it's", 'a "word" $HOME;b&c|d', "{task} {0} { 50% %s été 数据", "`id` \\n *?[a]"]


@pytest.fixture(params=NAMES)
def experiment(request, tmp_path, monkeypatch, write_experiment) -> Experiment:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / request.param
    folder.mkdir()
    file = write_experiment().rename(folder / f"{request.param}.yaml")
    return load_experiment(file)


def test_a_path_that_begins_with_a_dash_is_no_option(tmp_path, monkeypatch, write_experiment):
    monkeypatch.chdir(tmp_path)
    write_experiment().rename("--help.yaml")
    experiment = load_experiment(Path("--help.yaml"))
    commands = [workflow_command(experiment), hafabench_command(experiment, "check")]
    commands += [shlex.join(unlock_command(experiment.file, Path("-S")))]
    assert not [word for command in commands for word in shlex.split(command) if word in ("--help.yaml", "-S")]
    assert all("./--help.yaml" in shlex.split(command) for command in commands)


def test_commands_of_jobs_are_read_by_a_shell_as_written(experiment):
    jobs = JobList(experiment)
    for job in [*jobs.values(), *jobs.optional.values()]:
        words = shlex.split(job.command)
        if job.rule != "regression":
            assert words[-2:] == ["--experiment", str(experiment.file)], job.id
        assert not [word for word in words[:-1] if "{" in word and word != str(experiment.file)], job.id
        said = subprocess.run(f"printf '%s\\0' {job.command}", shell=True, capture_output=True, text=True, check=True)
        assert said.stdout.split("\0")[:-1] == words, job.id
    assert jobs["train_run classification/pvt_tiny/seed0"].command.startswith(
        "hafabench train classification/pvt_tiny/seed0 --experiment "
    )


def test_the_limits_of_the_gate_may_be_anywhere(tmp_path, monkeypatch, repository):
    monkeypatch.chdir(tmp_path)
    configs = tmp_path / "a {task} 'b'"
    shutil.copytree(repository / "configs", configs)
    jobs = JobList(load_experiment(configs / "digits.yaml"))
    words = shlex.split(jobs.optional["regression"].command)
    assert words[words.index("--limits") + 1] == str(configs / "regression.yaml")


def test_commands_that_are_shown_can_be_copied(experiment):
    run = expand(experiment)["segmentation/pvt_tiny_hafa/seed0"]
    made_by = shlex.join(["hafabench", "evaluate", run.id, "--experiment", str(experiment.file)])
    evaluated(run, command=made_by)
    found = explain(experiment, "table2/pvt_tiny_hafa/miou")
    commands = [found.remake.command, *found.remake.by_hand]
    assert all(str(experiment.file) in shlex.split(command) for command in commands[:1] + commands[2:])
    for text in (to_text(found), to_markdown(found)):
        lines = [line.strip() for line in text.splitlines()]
        assert set(commands) <= set(lines)
    assert any(line.split("  ")[-1] and line.endswith(made_by) for line in to_text(found).splitlines())
    assert shlex.split(workflow_command(experiment))[-1] == str(experiment.file)
    assert shlex.split(hafabench_command(experiment, "check"))[-1] == str(experiment.file)


def test_the_experiment_of_a_submission_is_found(experiment):
    # As the executor writes it, and as Slurm stores it.
    line = f"sbatch --wrap=python -m snakemake --configfiles {shlex.quote(str(experiment.file))} --mode remote"
    if "\\" not in line:
        assert experiment_of(line) == str(experiment.file)


@pytest.mark.parametrize("name", NAMES)
def test_a_compute_node_is_asked_about_the_right_paths(name, tmp_path):
    here, missing = tmp_path / name, tmp_path / f"{name}.missing"
    here.write_text("")
    tool = ["printf", "%s", str(here)]
    done = subprocess.run(["sh", "-c", _script([here, missing], tool, cuda=False)], capture_output=True, text=True)
    assert "hafabench-probe:path0=seen" in done.stdout
    assert "path1" not in done.stdout
    assert "hafabench-probe:hafabench=ok" in done.stdout


def test_snakemake_cannot_name_a_file_with_what_it_takes_for_a_wildcard():
    assert can_be_input(Path("a {/b } {} {a b}"))
    assert not can_be_input(Path("a {task}/tables.yaml"))
    assert not can_be_input(Path("a { x,y }"))


@pytest.mark.parametrize(
    ("experiment_file", "python", "expected"),
    [
        ("it's {a} 5% é.yaml", "/venv/bin/python", None),
        ("$a.yaml", "/venv/bin/python", "the path of the experiment file"),
        ("`a`.yaml", "/venv/bin/python", "the path of the experiment file"),
        ("a\nb.yaml", "/venv/bin/python", "the path of the experiment file"),
        ("a.yaml", "/a b/bin/python", "the path of Python"),
    ],
)
def test_paths_that_the_slurm_executor_cannot_pass_on_are_refused(experiment_file, python, expected, monkeypatch):
    monkeypatch.setattr("sys.executable", python)
    found = submission_problems(Path(experiment_file), Path("/check out/it's/Snakefile"))
    assert [expected in sentence for sentence in found] == ([True] if expected else [])


@pytest.mark.parametrize(
    ("snakefile", "expected"),
    [("/a\u00a0b/Snakefile", ["not printable"]), ("/a'b\"c/Snakefile", ["both kinds"]), ("/a b/Snakefile", [])],
    ids=["no-break space", "quotes", "space"],
)
def test_a_snakefile_that_the_slurm_executor_cannot_pass_on_is_refused(snakefile, expected, monkeypatch):
    monkeypatch.setattr("sys.executable", "/venv/bin/python")
    found = submission_problems(Path("a.yaml"), Path(snakefile))
    assert [part in sentence for part, sentence in zip(expected, found, strict=True)] == [True] * len(expected)


@pytest.mark.parametrize(("name", "is_fit"), [("100%", True), ("100% é", True), ("%j", False), ("a\\b", False)])
def test_a_working_folder_that_sbatch_would_change_is_refused(name, is_fit, tmp_path, monkeypatch):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    monkeypatch.setattr("sys.executable", "/venv/bin/python")
    found = submission_problems(tmp_path / "a.yaml", tmp_path / "Snakefile")
    assert ["the path of the working folder" in sentence for sentence in found] == ([] if is_fit else [True])


def test_paths_that_the_slurm_executor_can_pass_on_arrive(tmp_path):
    """The executor quotes with `shlex` and puts the line into double quotes, which this test repeats."""
    file = tmp_path / 'it\'s {a} "5" % é.yaml'
    line = f"printf %s {shlex.quote(str(file))}".replace('"', '\\"')
    arrived = subprocess.run(f'sh -c "{line}"', shell=True, capture_output=True, text=True, env=os.environ)
    assert arrived.stdout == str(file)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_make_passes_the_experiment_on_as_written(name, repository):
    command = ["make", "--dry-run", "demo", f"EXPERIMENT={name}.yaml"]
    said = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in said.splitlines() if "--configfile" in line]
    assert shlex.split(line)[-1] == f"{name}.yaml"
