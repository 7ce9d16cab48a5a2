"""Trainings of token-dropping models: starting weights, frozen epochs, losses, evaluation and exact resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from hafabench.config.catalog import CATALOG
from hafabench.engines import classification
from hafabench.engines.classification.optimization import build_optimizer, build_schedule
from hafabench.engines.classification.pruning_objective import (
    PruningObjective,
    divergence,
    kept_divergence,
    ratio_loss,
)
from hafabench.engines.interrupt import STOP_AFTER
from hafabench.engines.trained import fill_averaged, load_trained
from hafabench.errors import UserError
from hafabench.models.checkpoints.storage import load_checkpoint
from hafabench.models.token_pruning import KeepPredictor, Masked, initialise, sample
from tests.support.tiny_pruning import tiny_pair
from tools.checkout import REPOSITORY
from tools.tiny_runs.classification import CLASSES, RANDOM, tiny_run

FAMILIES = ("dynamicvit", "dynamic_swin")
BATCH_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def train_step_by_step(run, monkeypatch, steps: int | None = None) -> int:
    """Train with a deadline that has passed already, with at most ``steps`` commands, and return their number."""
    monkeypatch.setenv(STOP_AFTER, "1e-9")
    for command in range(1, 100):
        try:
            classification.train(run)
        except SystemExit as leaving:
            assert leaving.code == 75
        else:
            break
        if command == steps:
            break
    monkeypatch.delenv(STOP_AFTER)
    return command


def objective(run) -> PruningObjective:
    teacher = load_trained(run.parent, run.parent.checkpoint)
    model = classification.create_model(run).train()
    return PruningObjective(run, model, nn.CrossEntropyLoss(), teacher)


def is_new(name: str) -> bool:
    return name.startswith(("predictors.", "fast_paths."))


@pytest.mark.parametrize("family", FAMILIES)
def test_training_stopped_after_every_step_is_the_same_training(tmp_path, images, monkeypatch, family):
    changes = {**RANDOM, "epochs": 2, "checkpoint_every": 1}
    stopped, through = (
        tiny_pair(tmp_path / name, family, images=images, **changes) for name in ("stopped", "through")
    )
    assert train_step_by_step(stopped, monkeypatch) == 6
    classification.train(through)
    mine, theirs = (load_checkpoint(run.checkpoint) for run in (stopped, through))
    for kind in ("state_dict", "average"):
        assert mine[kind].keys() == theirs[kind].keys()
        for name in mine[kind]:
            assert torch.equal(mine[kind][name], theirs[kind][name]), f"{kind} {name}"
    assert mine["meta"]["training"]["resumes"] == 5
    # The average starts at the teacher's weights and moves a tenth of the way to the weights of each step.
    start = load_checkpoint(through.parent.checkpoint)["state_dict"]
    name = "norm.weight"
    way, taken = mine["state_dict"][name] - start[name], mine["average"][name] - start[name]
    assert 0 < taken.norm() < 0.5 * way.norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_only_new_parts_learn_in_the_frozen_epochs(tmp_path, images, monkeypatch, family):
    """Weight decay, optimizer moments and batches change neither weights nor statistics of the teacher's part."""
    changes = {"epochs": 2, "checkpoint_every": 1, "lr": 1e-2}
    run = tiny_pair(tmp_path, family, images=images, **changes)
    before = load_checkpoint(run.parent.checkpoint)["state_dict"]
    assert any(name.endswith(BATCH_STATISTICS) for name in before) == (family == "dynamicvit")
    assert train_step_by_step(run, monkeypatch, steps=3) == 3
    frozen = load_checkpoint(run.work / "state.pth")["model"]
    for name, value in frozen.items():
        assert is_new(name) or torch.equal(value, before[name]), name
    classification.train(run)
    after = load_checkpoint(run.checkpoint)["state_dict"]
    assert [name for name in after if torch.equal(after[name], frozen[name])] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_the_teachers_part_learns_at_its_share_of_the_rate(tmp_path, images, family):
    run = tiny_pair(tmp_path, family, images=images, lr=1e-2, weight_decay=0.05)
    goal = objective(run)
    new = {id(p) for name, p in goal.model.named_parameters() if is_new(name)}
    assert {id(p) for p in goal.backbone} == {id(p) for p in goal.model.parameters()} - new
    optimizer = build_optimizer(goal.model, run.recipe, goal.backbone, goal.backbone_lr_share)
    build_schedule(optimizer, run.recipe, 3).step_update(4)
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    peak = optimizer.param_groups[0]["lr"]
    assert len(rates) == len(list(goal.model.parameters()))
    for name, parameter in goal.model.named_parameters():
        rate, decay = rates[id(parameter)]
        assert rate == pytest.approx(peak if is_new(name) else 0.1 * peak), name
        assert decay == (0.05 if parameter.ndim > 1 and not name.endswith(SPARED) else 0), name


SPARED = ("pos_embed", "cls_token", "relative_position_bias_table")


def test_neither_teacher_nor_average_is_trained_shared_or_saved_with_the_model(tmp_path, images):
    goal = objective(tiny_pair(tmp_path, "dynamicvit", images=images))
    assert {name.removeprefix("model.") for name, _ in goal.named_parameters()} == {
        name for name, _ in goal.model.named_parameters()
    }
    goal(torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])).backward()
    assert [name for name, p in goal.named_parameters() if p.grad is None] == []


def test_another_architecture_is_no_teacher(tmp_path, images):
    run = tiny_pair(tmp_path, "dynamicvit", images=images)
    other = tiny_pair(tmp_path / "other", "dynamic_swin", images=images).parent
    with pytest.raises(
        UserError, match=r"token_pruning\.teacher: 'tiny_lvvit' is not a classifier that 'tiny_dynamicvit'"
    ):
        classification.train(replace(run, parent=other))


def test_an_untrained_teacher_is_refused(tmp_path, images):
    run = tiny_pair(tmp_path, "dynamicvit", images=images)
    run.parent.checkpoint.unlink()
    with pytest.raises(UserError, match="no such checkpoint"):
        classification.train(run)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_of_the_loss_reaches_it(tmp_path, images, family):
    x, labels = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])

    def loss(**pruning: float) -> float:
        run = tiny_pair(tmp_path, family, images=images, pruning=pruning)
        torch.manual_seed(0)
        goal = objective(run)
        torch.manual_seed(1)
        return goal(x, labels).item()

    nothing = {"ratio_weight": 0.0, "distillation_weight": 0.0, "token_weight": 0.0}
    plain = loss(**nothing)
    ratio, distillation, token = (loss(**{**nothing, weighed: 1.0}) - plain for weighed in nothing)
    assert min(ratio, distillation, token) > 0
    together = loss(ratio_weight=2.0, distillation_weight=0.5, token_weight=3.0)
    assert together == pytest.approx(plain + 2 * ratio + 0.5 * distillation + 3 * token, rel=1e-5)


def test_losses_by_hand():
    decisions = (torch.tensor([[1.0, 1, 1, 0], [0, 0, 1, 1]]), torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]))
    # (0.75 - 0.5)^2 and 0 on average; 0 and (0 - 0.25)^2 on average; the mean of both predictors.
    assert ratio_loss(decisions, (0.5, 0.25)).item() == pytest.approx((0.03125 + 0.03125) / 2)
    own, teacher = torch.tensor([0.2, -1.0, 0.5]), torch.tensor([1.0, 0.0, 0.3])
    p, q = teacher.softmax(0), own.softmax(0)
    assert divergence(own, teacher).item() == pytest.approx((p * (p.log() - q.log())).sum().item(), rel=1e-5)
    tokens, targets = torch.randn(1, 3, 5), torch.randn(1, 3, 5)
    per_token = divergence(tokens, targets)[0]
    masked = Masked(torch.zeros(1, 5), tokens, (torch.ones(1, 3), torch.tensor([[1.0, 0, 1]])))
    assert kept_divergence(masked, targets).item() == pytest.approx((per_token[0] + per_token[2]).item() / 2)
    none = Masked(torch.zeros(1, 5), tokens, (torch.zeros(1, 3),))
    assert kept_divergence(none, targets) == 0


def test_the_ratio_loss_moves_the_share_of_tokens_kept():
    """The target is one eighth, because new predictors start at about one half."""
    torch.manual_seed(0)
    predictor, x = KeepPredictor(16), torch.randn(8, 64, 16)
    initialise(predictor)
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=1e-2)
    shares = []
    for _ in range(60):
        kept = sample(predictor(x))
        shares.append(kept.mean().item())
        optimizer.zero_grad()
        ratio_loss([kept], [0.125]).backward()
        optimizer.step()
    assert shares[0] == pytest.approx(0.5, abs=0.1)
    assert sum(shares[-5:]) / 5 == pytest.approx(0.125, abs=0.06)


def test_weights_and_their_average_are_evaluated(tmp_path, images):
    run = tiny_pair(tmp_path, "dynamicvit", images=images, epochs=2, lr=3e-3, pruning={"ema_decay": 0.999})
    classification.train(run)
    found = {metric.name: metric for metric in classification.evaluate(run, run.checkpoint)}
    assert set(found) == {"top1", "top5", "top1_ema", "top5_ema"}
    assert "moving average of the weights, decay 0.999" in found["top1_ema"].convention
    averaged = classification.evaluate(run, run.checkpoint, fill_averaged)
    assert found["top1_ema"].value == averaged[0].value
    without = tiny_pair(tmp_path / "w", "dynamicvit", images=images, epochs=2, pruning={"ema_decay": None})
    classification.train(without)
    assert "average" not in load_checkpoint(without.checkpoint)
    assert [metric.name for metric in classification.evaluate(without, without.checkpoint)] == ["top1", "top5"]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes_train_together(tmp_path, images, family):
    """Gradients of both processes are averaged, also in frozen epochs and if a process keeps no token."""
    changes = {"epochs": 2}
    run = tiny_pair(tmp_path, family, images=images, **changes)
    launcher = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "tests.support.tiny_pruning",
    ]
    done = subprocess.run(
        [sys.executable, *launcher, str(tmp_path), str(images), family, json.dumps(changes)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    content = load_checkpoint(run.checkpoint)
    assert content["meta"]["training"]["processes"] == 2
    assert all(value.isfinite().all() for value in content["state_dict"].values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dynamicvit_lvs_0.5", "dynamic_swin_tiny_0.25"])
def test_rows_of_table_6_train_from_their_teachers(tmp_path, images, name):
    """Teacher, training and evaluation of the full-size models at 64 pixels."""
    teacher = {"dynamicvit_lvs_0.5": "lvvit_small", "dynamic_swin_tiny_0.25": "swin_tiny"}[name]
    changes = {"image_size": 64, "epochs": 1, "warmup_epochs": 0, "checkpoint_every": 100}
    parent = tiny_run(tmp_path / "parent", images=images, model=teacher, **changes)
    classification.train(parent)
    part = {"teacher": teacher, "ratio_weight": 2.0, "distillation_weight": 0.5, "token_weight": 0.5}
    part |= {"backbone_lr_share": 0.1, "frozen_epochs": 0, "ema_decay": 0.9999}
    run = replace(tiny_run(tmp_path / "run", images=images, model=name, token_pruning=part, **changes), parent=parent)
    classification.train(run)
    top1, *_ = classification.evaluate(run, run.checkpoint)
    assert (top1.model, top1.repeats) == (name, CLASSES * 8)
    assert CATALOG[name].keep is not None
