"""Interrupted classification trainings resume exactly and end with the same weights."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hafabench.engines import classification, evaluation, finished, training
from hafabench.engines.classification import training as classification_training
from hafabench.engines.classification.objective import Objective
from hafabench.engines.interrupt import STOP_AFTER
from hafabench.engines.trained import collapse_of
from hafabench.errors import UserError
from hafabench.models.checkpoints.storage import load_checkpoint
from hafabench.results.history import read_history
from hafabench.results.record import Collapse, read_record
from hafabench.runs.run import Run
from tests.support.full_disk import OPERATIONS, fill_disk
from tools.tiny_runs.classification import MODELS, RANDOM, start, tiny_run


def train_interrupted_at_every_step(run: Run, monkeypatch: pytest.MonkeyPatch, runs: list[Run] | None = None) -> int:
    """Train with a deadline that has passed already, and return the number of commands that this took."""
    monkeypatch.setenv(STOP_AFTER, "1e-9")
    for command in range(1, 100):
        try:
            classification.train(runs[command % len(runs)] if runs else run)
        except SystemExit as leaving:
            assert leaving.code == 75
        else:
            monkeypatch.delenv(STOP_AFTER)
            return command
    raise AssertionError("never finished")


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_checkpoint(run.checkpoint)["state_dict"]


def assert_same_training(run: Run, other: Run) -> None:
    """Check that weights are equal bit for bit, and histories equal except for times."""
    mine, theirs = weights(run), weights(other)
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert torch.equal(mine[name], theirs[name]), name
    told = [
        [(entry["step"], entry["loss"], entry["lr"], entry["epoch"]) for entry in read_history(one.history)]
        for one in (run, other)
    ]
    assert told[0] == told[1]


def wait_for_steps(process, run: Run, steps: int) -> None:
    """Wait until the history of a training in another process has ``steps`` lines."""
    for _ in range(6000):
        assert process.poll() is None, process.stderr.read()
        if run.history.exists() and len(read_history(run.history)) >= steps:
            return
        time.sleep(0.01)
    raise AssertionError("the training got nowhere in a minute")


def test_killed_training_ends_with_the_same_weights(tmp_path, images):
    changes = {**RANDOM, "epochs": 10, "checkpoint_every": 2}
    run = tiny_run(tmp_path / "killed", images=images, **changes)
    process = start(run.folder, images, **changes)
    wait_for_steps(process, run, 5)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not run.checkpoint.exists()
    assert 4 <= load_checkpoint(run.work / "state.pth")["step"] < 30
    classification.train(run)
    assert load_checkpoint(run.checkpoint)["meta"]["training"]["resumes"] == 1
    through = tiny_run(tmp_path / "through", images=images, **changes)
    classification.train(through)
    assert_same_training(run, through)
    assert len(read_history(run.history)) == 30


@pytest.mark.parametrize("model", MODELS)
def test_training_stopped_after_every_step_is_the_same_training(tmp_path, images, monkeypatch, model):
    stopped = tiny_run(tmp_path / "stopped", images=images, model=model, **RANDOM)
    assert train_interrupted_at_every_step(stopped, monkeypatch) == 9
    through = tiny_run(tmp_path / "through", images=images, model=model, **RANDOM)
    classification.train(through)
    assert_same_training(stopped, through)
    told = load_checkpoint(stopped.checkpoint)["meta"]["training"]
    assert (told["resumes"], told["steps"]) == (8, 9)
    assert load_checkpoint(through.checkpoint)["meta"]["training"]["resumes"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("model", ["pvt_tiny_hafa", "pvt_v2_b1_sia_sia_sia", "swin_tiny_hafa", "resnet18"])
def test_models_of_the_tables_resume_exactly(tmp_path, images, monkeypatch, model):
    changes = {**RANDOM, "model": model, "epochs": 2, "image_size": 64, "batch_size": 6, "mixup": 0.8}
    stopped, through = (tiny_run(tmp_path / name, images=images, **changes) for name in ("stopped", "through"))
    assert train_interrupted_at_every_step(stopped, monkeypatch) == 8
    classification.train(through)
    assert_same_training(stopped, through)


def test_neither_workers_nor_where_it_was_stopped_change_the_training(tmp_path, images, monkeypatch):
    changes = {**RANDOM, "epochs": 2}
    variants = [tiny_run(tmp_path / "w", images=images, **changes, workers=workers) for workers in (0, 1, 2)]
    assert len({run.fingerprint for run in variants}) == 1
    train_interrupted_at_every_step(variants[0], monkeypatch, variants)
    through = tiny_run(tmp_path / "through", images=images, **changes, workers=2)
    classification.train(through)
    assert_same_training(variants[0], through)


def test_the_seed_decides(tmp_path, images):
    runs = [tiny_run(tmp_path / str(i), images=images, seed=seed, **RANDOM) for i, seed in enumerate((0, 0, 1))]
    for run in runs:
        classification.train(run)
    assert_same_training(runs[0], runs[1])
    first, other = weights(runs[0]), weights(runs[2])
    assert not torch.equal(first["head.fc.weight"], other["head.fc.weight"])
    losses = [[entry["loss"] for entry in read_history(run.history)] for run in runs]
    assert not set(losses[0]) & set(losses[2])


def test_sigterm_saves_the_state_and_is_reported(tmp_path, images):
    changes = {**RANDOM, "epochs": 200, "checkpoint_every": 10**6, "workers": 1}
    run = tiny_run(tmp_path / "run", images=images, **changes)
    process = start(run.folder, images, **changes)
    wait_for_steps(process, run, 4)
    process.terminate()
    _, said = process.communicate()
    assert process.returncode == 75, said
    assert "Traceback" not in said
    state = load_checkpoint(run.work / "state.pth")
    assert f"stopped after step {state['step']} of 600 on SIGTERM" in said
    assert str(run.work) in said
    assert len(read_history(run.history)) == state["step"] >= 4
    assert not run.checkpoint.exists()


@pytest.mark.slow
def test_a_lost_connection_saves_the_state_although_nobody_reads_the_output(tmp_path, images):
    changes = {**RANDOM, "epochs": 200, "checkpoint_every": 10**6, "workers": 1}
    run = tiny_run(tmp_path / "run", images=images, **changes)
    process = start(run.folder, images, **changes)
    wait_for_steps(process, run, 4)
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 75
    state = load_checkpoint(run.work / "state.pth")
    assert len(read_history(run.history)) == state["step"] >= 4
    assert not list(run.folder.rglob("*.tmp"))


@pytest.mark.slow
def test_two_processes_stop_and_resume_together(tmp_path, images):
    changes = {**RANDOM, "epochs": 2}
    stopped, through = (tiny_run(tmp_path / name, images=images, **changes) for name in ("stopped", "through"))
    process = start(stopped.folder, images, processes=2, env={STOP_AFTER: "1e-9"}, **changes)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0 and "stopped after step 1 of 6" in said
    for run in (stopped, through):
        process = start(run.folder, images, processes=2, **changes)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert_same_training(stopped, through)


def test_state_of_another_configuration_starts_over(tmp_path, images, monkeypatch, capsys):
    old = tiny_run(tmp_path / "run", images=images, lr=1e-4)
    monkeypatch.setenv(STOP_AFTER, "1e-9")
    with pytest.raises(SystemExit):
        classification.train(old)
    monkeypatch.delenv(STOP_AFTER)
    new = tiny_run(tmp_path / "run", images=images)
    classification.train(new)
    assert f"fingerprint {old.fingerprint}, now {new.fingerprint}): training starts over" in capsys.readouterr().err
    through = tiny_run(tmp_path / "through", images=images)
    classification.train(through)
    assert_same_training(new, through)


def test_unreadable_state_is_refused_with_advice(tmp_path, images):
    run = tiny_run(tmp_path / "run", images=images)
    run.work.mkdir(parents=True)
    (run.work / "state.pth").write_bytes(b"torn")
    with pytest.raises(
        UserError, match=r"not a readable checkpoint.*\n.*delete this file to start the training over"
    ):
        classification.train(run)


@pytest.mark.parametrize(
    ("file", "operation"),
    [*(("state.pth", operation) for operation in OPERATIONS), ("history.jsonl", "write"), ("history.jsonl", "close")],
)
def test_a_training_on_a_full_disk_keeps_its_last_state_and_resumes(tmp_path, images, monkeypatch, file, operation):
    """The disk is full from the second state on, or from the line of the history before it."""
    run = tiny_run(tmp_path / "run", images=images)

    def is_full(path: Path) -> bool:
        return file in path.name and (run.work / "state.pth").exists()

    if operation == "fsync":
        sync = os.fsync

        def fsync(handle: int) -> None:
            if is_full(Path(f"/proc/self/fd/{handle}").readlink()):
                raise OSError(errno.ENOSPC, "No space left on device")
            sync(handle)

        monkeypatch.setattr(os, "fsync", fsync)
    else:
        fill_disk(monkeypatch, operation, errno.ENOSPC, is_full)
    with pytest.raises(UserError, match=rf"{file}: not written: no space left on the device") as caught:
        classification.train(run)
    assert len(caught.value.problems) == 1
    monkeypatch.undo()
    assert load_checkpoint(run.work / "state.pth")["step"] == 2
    assert not list(run.folder.rglob("*.tmp"))
    classification.train(run)
    through = tiny_run(tmp_path / "through", images=images)
    classification.train(through)
    assert_same_training(run, through)


def test_a_full_disk_at_the_end_costs_no_more_than_a_kill(tmp_path, images, monkeypatch):
    run = tiny_run(tmp_path / "run", images=images)

    def fail(path: Path, content: dict, check: Callable[[], None]) -> None:
        raise UserError(f"{path}: not written: no space left on the device")

    monkeypatch.setattr(finished, "save_checkpoint", fail)
    with pytest.raises(UserError, match=r"checkpoint\.pth: not written: no space left"):
        classification.train(run)
    monkeypatch.undo()
    assert load_checkpoint(run.work / "state.pth")["step"] == 8
    classification.train(run)
    assert [path.name for path in run.work.iterdir()] == ["checkpoint.pth"]
    through = tiny_run(tmp_path / "through", images=images)
    classification.train(through)
    assert_same_training(run, through)


DIVERGING = {"lr": 1e37, "weight_decay": 1e4}


def outcome_of(run) -> Collapse:
    content = load_checkpoint(run.checkpoint)
    assert "state_dict" not in content
    assert content["meta"]["fingerprint"] == run.fingerprint
    return collapse_of(content)


def test_a_collapse_is_an_outcome_that_keeps_the_last_finite_state(tmp_path, images, capfd):
    run = tiny_run(tmp_path / "run", images=images, checkpoint_every=1, **DIVERGING)
    classification.train(run)
    found = outcome_of(run)
    assert (found.run, found.step, found.reason) == (run.id, 2, "some weights are not finite")
    assert found.loss is not None
    said = capfd.readouterr().err
    assert "training collapsed at step 2" in said
    assert f"the last finite state is kept in {run.work}" in said
    state = load_checkpoint(run.work / "state.pth")
    assert state["step"] == 1
    assert all(value.isfinite().all() for value in state["model"].values())
    rarely = tiny_run(tmp_path / "rarely", images=images, checkpoint_every=100, **DIVERGING)
    classification.train(rarely)
    found = outcome_of(rarely)
    assert (found.step, found.loss) == (3, None)
    assert found.reason in ("the loss is nan", "the loss is inf")
    assert "is kept in" not in capfd.readouterr().err


def test_a_collapsed_run_trains_again_only_under_another_configuration(tmp_path, images, capfd):
    run = tiny_run(tmp_path / "run", images=images, **DIVERGING)
    classification.train(run)
    written = run.checkpoint.stat().st_mtime_ns
    classification.train(run)
    assert run.checkpoint.stat().st_mtime_ns == written
    assert "already trained" in capfd.readouterr().err
    repaired = tiny_run(tmp_path / "run", images=images)
    classification.train(repaired)
    assert "state_dict" in load_checkpoint(repaired.checkpoint)


def test_a_collapsed_run_is_evaluated_to_its_outcome(tmp_path, images, monkeypatch):
    run = tiny_run(tmp_path / "run", images=images, **DIVERGING)
    classification.train(run)
    with pytest.raises(UserError, match=r"contains no weights: training collapsed at step \d"):
        classification.evaluate(run, run.checkpoint)
    monkeypatch.setattr(evaluation, "dataset_digest", lambda *_: None)
    experiment = SimpleNamespace(name="tiny", file=Path("tiny.yaml"), config=SimpleNamespace(scale="embedded"))
    run.predictions.write_bytes(b"of an earlier training")
    record = evaluation.record_evaluation(experiment, run)
    assert read_record(run.record) == record
    assert (record.metrics, record.collapse) == ([], outcome_of(run))
    assert record.training["steps"] == record.collapse.step
    assert not run.predictions.exists()


def test_a_run_that_starts_from_a_collapsed_one_is_not_run(tmp_path, images, capfd):
    parent = tiny_run(tmp_path / "parent", images=images, **DIVERGING)
    classification.train(parent)
    child = replace(tiny_run(tmp_path / "child", images=images, seed=1), parent=parent)
    classification.train(child)
    assert outcome_of(child) == outcome_of(parent)
    assert "not run: its starting weights" in capfd.readouterr().err
    assert outcome_of(child).clause(child.id).startswith(f"not run: its starting weights, {parent.id}, collapsed at ")
    grandchild = replace(tiny_run(tmp_path / "grandchild", images=images, seed=2), parent=child)
    classification.train(grandchild)
    assert outcome_of(grandchild) == outcome_of(parent)


def test_a_forward_pass_that_fails_on_infinite_weights_is_a_collapse(tmp_path, images, monkeypatch):
    def fail(self, images, labels):
        raise IndexError("index out of range")

    run = tiny_run(tmp_path / "run", images=images)
    monkeypatch.setattr(Objective, "forward", fail)
    with pytest.raises(IndexError):
        classification.train(run)
    assert not run.checkpoint.exists()
    monkeypatch.setattr(training.TrainingSession, "has_finite_weights", lambda self: False)
    classification.train(run)
    assert outcome_of(run).reason == "the forward pass failed: IndexError: index out of range"


def test_updates_that_are_always_skipped_are_a_collapse(tmp_path, images, monkeypatch):
    """Gradients overflow at every loss scale, as those of mixed precision may, although the loss is finite."""
    begin = classification_training.ClassificationTrainer.__init__

    def with_scaler(self, *arguments):
        begin(self, *arguments)
        self.amp, self.scaler = True, torch.amp.GradScaler("cpu", init_scale=2.0**-20)
        for parameter in self.session.state.model.parameters():
            parameter.register_hook(lambda gradient: gradient * torch.inf)

    monkeypatch.setattr(classification_training.ClassificationTrainer, "__init__", with_scaler)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    run = tiny_run(tmp_path / "run", images=images)
    classification.train(run)
    found = outcome_of(run)
    assert (found.step, found.reason) == (5, "the gradients are not finite at any loss scale")
    assert found.loss is not None


@pytest.mark.slow
def test_several_processes_collapse_together(tmp_path, images):
    started = start(tmp_path / "run", images, processes=2, checkpoint_every=1, **DIVERGING)
    _, said = started.communicate(timeout=120)
    assert started.returncode == 0, said
    assert said.count("training collapsed at step") == 1
    assert collapse_of(load_checkpoint(tmp_path / "run/checkpoint.pth")).step == 2
