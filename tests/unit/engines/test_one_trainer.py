"""One training at a time writes into the folder of a run, and no finished training is lost or repeated."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import nn

from hafabench.engines import finished, training
from hafabench.engines.evaluation import record_evaluation
from hafabench.engines.finished import discard_kept
from hafabench.engines.interrupt import STOP_AFTER
from hafabench.engines.training import Trainer, run_training
from hafabench.engines.training_state import TrainingState
from hafabench.errors import UserError
from hafabench.models.checkpoints import final, storage
from hafabench.models.checkpoints.storage import load_checkpoint, save_checkpoint
from hafabench.results.history import read_history
from hafabench.runs import lease as leases
from hafabench.runs.lease import Holder, Lease, LeaseLost, take, this_process
from hafabench.runs.run import Run
from tools.tiny_runs.classification import tiny_run

# Three epochs of three steps; a state is saved after every second step, and the history has a line for each.
STEPS = 9


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setattr(training, "compared_digest", lambda *_: "0" * 64)
    return tiny_run(tmp_path / "seed0", images=tmp_path)


def elsewhere() -> Holder:
    return replace(this_process("train"), host="n017", system="elsewhere", pid=7)


def take_over(run: Run) -> None:
    """Take the run away from its trainer, as another machine does after the lease has expired."""
    (run.folder / "lease-2.json").write_text(json.dumps(asdict(elsewhere())))


def train(run: Run, before_step: Callable[[int], object] = lambda _step: None, loss: float = 1.0) -> list[int]:
    """Train a model with one weight, and return the numbers of the steps.

    Args:
        run: The run.
        before_step: Called before every step with its number, counted from 1.
        loss: The loss of every step.
    """
    steps: list[int] = []

    class OneWeight(Trainer):
        def __init__(self, run: Run, world: Any, stop: Any, lease: Lease | None = None):
            super().__init__(run, world, stop, [None] * 24, lease)
            model = nn.Linear(1, 1, bias=False)
            scaler = torch.amp.GradScaler("cpu", enabled=False)
            self.session.begin(TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.1), scaler))

        def complete(self) -> None:
            state = self.session.state
            while state.step < self.session.total:
                steps.append(state.step + 1)
                before_step(state.step + 1)
                with torch.no_grad():
                    state.model.weight.fill_(state.step + 1)
                self.session.step_done(loss, 0.1)
            self.session.finish()

    run_training(run, OneWeight)
    return steps


def files(run: Run) -> dict[str, bytes]:
    """Everything in the folder of a run but leases."""
    paths = (path for path in run.folder.rglob("*") if path.is_file() and not path.name.startswith("lease-"))
    return {str(path.relative_to(run.folder)): path.read_bytes() for path in paths}


def test_a_second_training_is_refused_and_changes_nothing(run):
    lease = take(run.folder, run.id, this_process("train"))
    before = files(run)
    with pytest.raises(UserError, match=rf"{run.id} is in use: a training runs since .*, process {os.getpid()} on"):
        train(run)
    with pytest.raises(UserError, match="is in use"):
        record_evaluation(None, run)
    assert files(run) == before
    lease.release()
    assert train(run) == list(range(1, STEPS + 1))


@pytest.mark.parametrize("step", [1, 2, 3, STEPS], ids=["first", "state", "history", "last"])
def test_a_trainer_that_lost_its_lease_writes_nothing_more(run, step):
    before: dict[str, bytes] = {}

    def lose(number: int) -> None:
        if number == step:
            take_over(run)
            before.update(files(run))

    with pytest.raises(LeaseLost, match="process 7 on n017 has taken over this run; it stops without writing"):
        train(run, lose)
    assert files(run) == before
    assert not run.checkpoint.exists()
    assert (run.folder / "lease-2.json").exists()


@pytest.mark.parametrize("why", ["signal", "collapse"])
def test_a_trainer_that_lost_its_lease_saves_and_concludes_nothing(run, monkeypatch, why):
    if why == "signal":
        monkeypatch.setenv(STOP_AFTER, "1e-9")
    with pytest.raises(LeaseLost):
        train(run, lambda _step: take_over(run), loss=math.nan if why == "collapse" else 1.0)
    assert "checkpoint.pth" not in files(run)
    assert not any(name.startswith("work") for name in files(run))


@pytest.mark.parametrize("name", ["state.pth", "checkpoint.pth"])
def test_a_lease_that_is_lost_while_a_file_is_written_keeps_the_old_file(run, monkeypatch, name):
    write = torch.save

    def write_slowly(content: dict[str, Any], file: Any) -> None:
        write(content, file)
        if ("step" in content) == (name == "state.pth") and content.get("step") in (None, 4):
            take_over(run)

    monkeypatch.setattr(storage.torch, "save", write_slowly)
    with pytest.raises(LeaseLost):
        train(run)
    assert not run.checkpoint.exists() and not run.kept_checkpoint.exists()
    assert load_checkpoint(run.work / "state.pth")["step"] == (2 if name == "state.pth" else 8)


def test_the_time_for_which_a_training_waited_for_its_lease_counts(run, monkeypatch, capsys):
    """Otherwise Slurm would end the training at its time limit, before it has saved its state."""
    monkeypatch.setenv(STOP_AFTER, "300")
    taken = leases.take

    def take_late(*arguments: Any, **options: Any) -> Lease:
        lease = taken(*arguments, **options)
        lease.waited = 301.0
        return lease

    monkeypatch.setattr(leases, "take", take_late)
    with pytest.raises(SystemExit):
        train(run)
    assert load_checkpoint(run.work / "state.pth")["step"] == 1
    monkeypatch.undo()
    monkeypatch.setattr(training, "compared_digest", lambda *_: "0" * 64)
    assert train(run) == list(range(2, STEPS + 1))
    assert f"{run.id}: resumed after step 1, which attempt 1 saved" in capsys.readouterr().err


def test_the_state_names_the_attempt(run, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "8112")
    monkeypatch.setenv(STOP_AFTER, "1e-9")
    for attempt in (1, 2):
        with pytest.raises(SystemExit):
            train(run)
        found = load_checkpoint(run.work / "state.pth")["attempt"]
        assert (found["attempt"], found["pid"], found["slurm_job"]) == (attempt, os.getpid(), "8112")
        assert json.loads((run.work / "state.json").read_text())["attempt"] == attempt


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_a_finished_training_whose_checkpoint_was_deleted_is_not_repeated(run, monkeypatch, capsys, links):
    if not links:
        monkeypatch.setattr(finished.os, "link", lambda *_: (_ for _ in ()).throw(OSError(95, "no links")))
    train(run)
    written = run.checkpoint.read_bytes()
    assert (run.checkpoint.stat().st_nlink > 1) is links
    assert [path.name for path in run.work.iterdir()] == ["checkpoint.pth"]
    assert train(run) == []
    assert f"delete {run.checkpoint} and {run.kept_checkpoint} to train it again" in capsys.readouterr().err
    run.checkpoint.unlink()
    assert train(run) == []
    assert run.checkpoint.read_bytes() == written
    assert f"restored {run.checkpoint} from {run.kept_checkpoint}" in capsys.readouterr().err
    assert len(read_history(run.history)) == STEPS
    discard_kept(run)
    assert not run.work.exists()
    run.checkpoint.unlink()
    assert len(train(run)) == STEPS


def test_a_training_that_is_killed_before_its_checkpoint_is_in_place_is_not_repeated(run, monkeypatch):
    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(finished, "_put_in_place", die)
    with pytest.raises(KeyboardInterrupt):
        train(run)
    monkeypatch.undo()
    monkeypatch.setattr(training, "compared_digest", lambda *_: "0" * 64)
    assert not run.checkpoint.exists()
    assert train(run) == []
    assert load_checkpoint(run.checkpoint)["state_dict"]["weight"] == STEPS


@pytest.mark.parametrize("damage", ["another configuration", "truncated", "not finite", "other data", "a folder"])
def test_a_second_name_that_proves_nothing_is_not_restored(run, monkeypatch, damage):
    if damage == "a folder":
        run.work.mkdir(parents=True)
        run.kept_checkpoint.mkdir()
        (run.kept_checkpoint / "mine").touch()
        with pytest.raises(UserError, match=r"checkpoint\.pth"):
            train(run)
        return
    train(run)
    run.checkpoint.unlink()
    content = load_checkpoint(run.kept_checkpoint)
    if damage == "not finite":
        save_checkpoint(run.kept_checkpoint, {**content, "state_dict": {"weight": torch.tensor([[math.nan]])}})
    if damage == "other data":
        monkeypatch.setattr(final, "data_changes", lambda *_: ("its training data",))
    if damage == "another configuration":
        run = replace(run, fingerprint="0" * 12)
    if damage == "truncated":
        run.kept_checkpoint.write_bytes(run.kept_checkpoint.read_bytes()[:-100])
    assert len(train(run)) == STEPS
    assert run.kept_checkpoint.samefile(run.checkpoint)


def test_a_collapse_is_kept_like_weights(run):
    train(run, loss=math.nan)
    run.checkpoint.unlink()
    assert train(run) == []
    assert "collapse" in load_checkpoint(run.checkpoint)["meta"]


def test_a_checkpoint_of_another_configuration_is_gone_before_the_present_one_is_stored(run, monkeypatch):
    """Otherwise a training that is killed in between leaves a checkpoint that seems to be of this configuration."""
    train(run)
    other = replace(run, fingerprint="f" * 12)
    seen: list[bool] = []
    store = training.store_configuration
    monkeypatch.setattr(
        training, "store_configuration", lambda run: (seen.append(run.checkpoint.exists()), store(run))
    )
    train(other)
    assert seen == [False]
    assert load_checkpoint(run.checkpoint)["meta"]["fingerprint"] == "f" * 12
