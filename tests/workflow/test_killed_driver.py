"""A driver that is killed while it trains locally: nothing is trained twice, and nothing that finished is lost."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from hafabench.config.experiment import load_experiment
from hafabench.models.checkpoints.storage import load_checkpoint
from hafabench.results.history import read_history
from hafabench.runs.lease import WAITS, Holder, holder_of
from hafabench.runs.run import Run, expand
from hafabench.runs.snakemake import incomplete_outputs, is_locked
from tests.support.experiments import experiment_content, shrink
from tests.support.snakemake_marks import mark
from tools.checkout import BIN, REPOSITORY, job_counts, snakemake
from tools.waiting import wait_until

pytestmark = pytest.mark.slow
EPOCHS = 3


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    # Recovery uses the Snakefile of the folder.
    for name in ("Snakefile", "workflow"):
        (folder / name).symlink_to(REPOSITORY / name)
    return folder


@pytest.fixture
def experiment(workspace, monkeypatch) -> Path:
    """An experiment that trains one small model with two seeds."""
    content = experiment_content()
    shrink(content)
    content["train"] = {"classification": ["resnet18"]}
    content["seeds"] = [0, 1]
    # The overrides of dense runs match nothing in this experiment.
    content["overrides"] = [entry for entry in content["overrides"] if entry["runs"] == "classification/*"]
    steps = {"epochs": EPOCHS, "checkpoint_every": 100, "log_every": 1, "image_size": 32}
    content["overrides"].append({"runs": "classification/*", "why": "a test", "set": steps})
    path = workspace / "digits.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    monkeypatch.chdir(workspace)
    return path


def driver(run: Run, experiment: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a driver that trains a run; its output is written to ``log``."""
    command = [BIN / "snakemake", run.checkpoint, "--snakefile", REPOSITORY / "Snakefile", "--cores", "1"]
    with log.open("w") as output:
        return subprocess.Popen([*command, "--configfile", experiment], stdout=output, stderr=output)


class Orphan:
    """A training whose driver was killed. It is stopped, so that it does not end before a test lets it."""

    def __init__(self, run: Run, experiment: Path, log: Path):
        first = driver(run, experiment, log)
        try:
            wait_until(
                lambda: run.history.exists() and read_history(run.history),
                lambda: f"steps of {run.id}: {log.read_text()[-3000:]}",
                timeout=300,
                every=0.01,
                give_up=lambda: "the driver ended" if first.poll() is not None else None,
            )
            self.process = self._holder(run)
            os.kill(self.process.pid, signal.SIGSTOP)
        finally:
            first.kill()
            first.wait()
        assert self.process.runs and not run.checkpoint.exists()

    @staticmethod
    def _holder(run: Run) -> Holder:
        found = holder_of(run.folder)
        assert found is not None
        return found[0]

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)


@pytest.fixture
def orphan(workspace, experiment) -> Iterator[Callable[[int], tuple[Orphan, Run]]]:
    """A function that starts the training of a seed and kills its driver."""
    made: list[Orphan] = []

    def make(seed: int) -> tuple[Orphan, Run]:
        run = expand(load_experiment(experiment))[f"classification/resnet18/seed{seed}"]
        made.append(Orphan(run, experiment, workspace / f"driver{seed}.log"))
        return made[-1], run

    yield make
    for one in made:
        if one.process.runs:
            os.kill(one.process.pid, signal.SIGKILL)


def recover(experiment: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [BIN / "hafabench", "cluster", "recover", "--experiment", experiment, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def assert_trained_once(run: Run) -> None:
    training = load_checkpoint(run.checkpoint)["meta"]["training"]
    assert (training["steps"], training["resumes"]) == (2 * EPOCHS, 0)
    assert [entry["step"] for entry in read_history(run.history)] == list(range(1, 2 * EPOCHS + 1))


def test_recover_waits_for_the_training_and_keeps_its_checkpoint(workspace, experiment, orphan):
    training, run = orphan(0)
    told = recover(experiment)
    assert told.returncode == 1
    assert f"process {training.process.pid}  train {run.id}" in told.stdout
    assert "1 live jobs of this folder; nothing was changed" in told.stderr
    assert is_locked(workspace)
    training.go_on()
    told = recover(experiment, "--wait")
    assert told.returncode == 0, told.stderr
    assert f"finished and kept: {run.checkpoint}" in told.stdout
    assert not is_locked(workspace) and incomplete_outputs(workspace) == []
    assert_trained_once(run)
    written = run.checkpoint.stat()
    done = snakemake(workspace, experiment, str(run.checkpoint))
    assert done.returncode == 0, done.stdout
    assert job_counts(done.stdout) == {}
    assert run.checkpoint.stat() == written


def test_even_an_unlocked_folder_gets_no_second_training_and_loses_no_checkpoint(workspace, experiment, orphan):
    training, run = orphan(1)
    log = run.folder / "train.log"
    before = log.read_text()
    assert before.count("hafabench: begins") == 1
    assert snakemake(workspace, experiment, "--unlock").returncode == 0
    by_hand = subprocess.run(
        [BIN / "hafabench", "train", run.id, "--experiment", experiment], capture_output=True, text=True, check=False
    )
    assert by_hand.returncode == 1
    assert f"{run.id} is in use: a training runs since" in by_hand.stderr
    assert f"process {training.process.pid} on " in by_hand.stderr
    second = driver(run, experiment, workspace / "second.log")
    try:
        waits = f"{run.id}: {WAITS} {training.process}, until it has ended"
        wait_until(
            lambda: waits in (workspace / "second.log").read_text(),
            lambda: f"the second job waits: {(workspace / 'second.log').read_text()[-3000:]}",
            timeout=300,
            give_up=lambda: "the driver ended" if second.poll() is not None else None,
        )
        assert log.read_text() == before, "the second job does not touch the log of the first one"
        training.go_on()
        assert second.wait(300) == 0, (workspace / "second.log").read_text()
    finally:
        second.kill()
        second.wait()
    said = (workspace / "second.log").read_text()
    assert f"{run.id}: has the lease after" in said
    assert f"restored {run.checkpoint}" in said or f"{run.id}: already trained" in said
    assert_trained_once(run)
    # As if the last driver had been killed as well.
    mark(workspace, str(run.checkpoint))
    written = run.checkpoint.stat()
    after = snakemake(workspace, experiment, "--rerun-incomplete", str(run.checkpoint))
    assert after.returncode == 0, after.stdout
    assert f"finished after its driver was killed, and kept: {run.checkpoint}" in after.stdout
    assert job_counts(after.stdout) == {}
    assert run.checkpoint.stat() == written
    # As if it had decided to train before the training ended. Snakemake then deletes the checkpoint.
    run.checkpoint.unlink()
    third = snakemake(workspace, experiment, str(run.checkpoint))
    assert third.returncode == 0, third.stdout
    assert f"restored {run.checkpoint}" in third.stdout
    assert_trained_once(run)
    evaluated = snakemake(workspace, experiment, str(run.record))
    assert evaluated.returncode == 0, evaluated.stdout
    assert not run.work.exists()
