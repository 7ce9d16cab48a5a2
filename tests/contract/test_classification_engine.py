"""Classification trainings: the same weights however often they are interrupted, and honest evaluation."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path

import pytest
import torch
from timm.layers import DropPath
from torchvision.datasets import ImageFolder

from hafabench.engines import classification, training
from hafabench.engines.classification.augmentation import eval_transform
from hafabench.engines.interrupt import STOP_AFTER
from hafabench.errors import UserError
from hafabench.models.checkpoints.storage import load_checkpoint, save_checkpoint
from hafabench.results.history import read_history
from hafabench.results.predictions import read_predictions
from hafabench.runs.run import Run
from tools.tiny_runs.classification import CLASSES, IMAGES, MODELS, RANDOM, make_images, start, tiny_run

TOTAL = CLASSES * IMAGES


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    make_images(root)
    return root


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train_interrupted_at_every_step(run: Run, monkeypatch: pytest.MonkeyPatch, runs: list[Run] | None = None) -> int:
    """Train with a deadline that has always passed; returns the number of commands that this took."""
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
    """Equal weights bit for bit, and equal histories but for the clock."""
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
    """Wait until the history of a training in another process has ``steps`` lines and it has saved a state."""
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


def test_two_processes_take_the_steps_of_one(tmp_path, images):
    alone, shared = (tiny_run(tmp_path / name, images=images) for name in ("alone", "shared"))
    process = start(shared.folder, images, processes=2)
    classification.train(alone)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    meta = load_checkpoint(shared.checkpoint)["meta"]
    assert meta["training"]["processes"] == 2
    mine, theirs = weights(alone), weights(shared)
    for name in mine:
        torch.testing.assert_close(theirs[name], mine[name], rtol=1e-3, atol=2e-5, msg=name)
    losses = [[entry["loss"] for entry in read_history(run.history)] for run in (alone, shared)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert len(losses[1]) == 9


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


def test_a_full_disk_at_the_end_costs_no_more_than_a_kill(tmp_path, images, monkeypatch):
    run = tiny_run(tmp_path / "run", images=images)

    def fail(path: Path, content: dict) -> None:
        raise UserError(f"{path}: not written: no space left on the device")

    monkeypatch.setattr(training, "save_checkpoint", fail)
    with pytest.raises(UserError, match=r"checkpoint\.pth: not written: no space left"):
        classification.train(run)
    monkeypatch.undo()
    assert load_checkpoint(run.work / "state.pth")["step"] == 8
    classification.train(run)
    assert not run.work.exists()
    through = tiny_run(tmp_path / "through", images=images)
    classification.train(through)
    assert_same_training(run, through)


def test_a_trained_run_is_not_trained_again(tmp_path, images, capsys):
    run = tiny_run(tmp_path / "run", images=images)
    classification.train(run)
    written = run.checkpoint.stat().st_mtime_ns
    capsys.readouterr()
    classification.train(run)
    assert run.checkpoint.stat().st_mtime_ns == written
    assert "already trained; delete" in capsys.readouterr().err
    classification.train(tiny_run(tmp_path / "run", images=images, lr=2e-3))
    assert run.checkpoint.stat().st_mtime_ns != written


def test_divergence_stops_and_keeps_the_last_good_state(tmp_path, images):
    run = tiny_run(tmp_path / "run", images=images, lr=1e37, weight_decay=1e4, checkpoint_every=1)
    with pytest.raises(UserError, match=r"step 2: some weights are not finite at learning rate .*: lower lr"):
        classification.train(run)
    state = load_checkpoint(run.work / "state.pth")
    assert state["step"] == 1
    assert all(value.isfinite().all() for value in state["model"].values())
    rarely = tiny_run(tmp_path / "rarely", images=images, lr=1e37, weight_decay=1e4, checkpoint_every=100)
    with pytest.raises(UserError, match=r"step 3: the loss is (nan|inf) at learning rate"):
        classification.train(rarely)
    assert not rarely.checkpoint.exists()


def test_fewer_images_than_a_batch_are_refused(tmp_path, images):
    with pytest.raises(UserError, match=rf"batch_size: 26 .*{TOTAL}"):
        classification.train(tiny_run(tmp_path, images=images, batch_size=26))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_is_one_error(tmp_path, workers):
    make_images(tmp_path)
    broken = tmp_path / "train" / "class1" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(UserError) as caught:
        classification.train(tiny_run(tmp_path / "run", images=tmp_path, workers=workers))
    assert str(caught.value).startswith(f"{broken}: cannot be decoded")
    assert "\n" not in str(caught.value)


def test_final_checkpoint_names_its_run(tmp_path, images):
    run = tiny_run(tmp_path / "run", images=images)
    classification.train(run)
    content = load_checkpoint(run.checkpoint)
    meta, told = content["meta"], content["meta"]["training"]
    assert (meta["run"], meta["model"], meta["num_classes"]) == (run.id, "tiny_convnext", CLASSES)
    assert (meta["fingerprint"], meta["dataset"], meta["image_size"]) == (run.fingerprint, "tiny", 32)
    assert (told["steps"], told["epochs"], told["processes"]) == (9, 3, 1)
    assert (told["device"], told["threads"]) == ("cpu", 1)
    assert told["images_per_s"] == pytest.approx(9 * 8 / told["seconds"], rel=0.05)
    assert not run.work.exists()


def test_training_learns(tmp_path, images):
    run = tiny_run(tmp_path / "run", images=images, model="tiny_resnet", epochs=8, lr=3e-3)
    classification.train(run)
    losses = [entry["loss"] for entry in read_history(run.history)]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


def test_learning_rates_are_the_schedules(tmp_path, images):
    run = tiny_run(tmp_path / "run", images=images, epochs=2)
    classification.train(run)
    told = [entry["lr"] for entry in read_history(run.history)]
    warm_up = [1e-5 + step * (1e-3 - 1e-5) / 3 for step in range(3)]
    cosine = [1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + math.cos(math.pi * step / 6)) for step in range(3, 6)]
    assert told == pytest.approx(warm_up + cosine)


@pytest.mark.parametrize("model", ["swin_tiny", "swin_tiny_hafa", "pvt_tiny", "deit_tiny", "resnet18"])
@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_drop_path_is_the_recipes_and_no_librarys_default(tmp_path, images, model, rate):
    run = tiny_run(tmp_path, images=images, model=model, drop_path=rate, image_size=224)
    rates = [m.drop_prob for m in classification.create_model(run).modules() if isinstance(m, DropPath)]
    assert max(rates, default=0.0) == pytest.approx(rate)


def test_every_value_of_the_recipe_reaches_the_training(tmp_path, images):
    base = {"optimizer": "sgd", "lr": 0.1, "epochs": 2, "checkpoint_every": 100}
    changes = [
        {},
        {"optimizer": "adamw"},
        {"momentum": 0.5},
        {"weight_decay": 0.5},
        {"lr": 0.2},
        {"min_lr": 0.05},
        {"warmup_lr": 0.05},
        {"warmup_epochs": 0},
        {"lr_batch_size": 16},
        {"batch_size": 6},
        {"clip_grad": 0.01},
        {"drop_path": 0.5},
        {"image_size": 40},
        {"interpolation": "bicubic"},
        {"crop_scale": (0.5, 1.0)},
        {"horizontal_flip": 1.0},
        {"color_jitter": 0.4},
        {"auto_augment": "rand-m9-mstd0.5-inc1"},
        {"mixup": 0.8},
        {"cutmix": 1.0},
        {"mixup": 0.8, "cutmix": 1.0},
        {"mixup": 0.8, "cutmix": 1.0, "mixup_switch_prob": 1.0},
        {"label_smoothing": 0.2},
        {"mixup": 0.8, "label_smoothing": 0.2},
        {"random_erasing": 1.0},
        {"repeated_augmentation": 2},
    ]
    trained = []
    for index, change in enumerate(changes):
        run = tiny_run(tmp_path / str(index), images=images, **{**base, **change})
        classification.train(run)
        trained.append(weights(run)["stem.0.weight"])
    for index, (change, mine) in enumerate(zip(changes, trained, strict=True)):
        for other, theirs in zip(changes[:index], trained[:index], strict=True):
            assert not torch.equal(mine, theirs), f"{change} trains like {other}"


def test_accuracy_equals_a_simple_loop(tmp_path, images):
    run = tiny_run(tmp_path / "run", images=images, model="tiny_resnet", epochs=1, warmup_epochs=0)
    classification.train(run)
    model = classification.create_model(run)
    model.load_state_dict(weights(run))
    model.eval()
    dataset = ImageFolder(str(images / "val"), eval_transform(run.recipe))
    with torch.no_grad():
        predicted = [model(image[None]).argmax().item() for image, _ in dataset]
    expected = 100 * sum(p == label for p, (_, label) in zip(predicted, dataset, strict=True)) / TOTAL
    assert 0 < expected < 100
    top1, top5 = classification.evaluate(run, run.checkpoint, keep=tmp_path / "predictions.npz")
    kept = read_predictions(tmp_path / "predictions.npz")
    truth = [label for _, label in dataset]
    assert kept.top1.tolist() == [p == label for p, label in zip(predicted, truth, strict=True)]
    assert kept.images.tolist() == [
        f"class{label}/{index}.png" for label in range(CLASSES) for index in range(IMAGES)
    ]
    assert (top1.name, top1.unit, top1.model, top1.seed, top1.repeats) == ("top1", "%", "tiny_resnet", 0, TOTAL)
    assert top1.value == pytest.approx(expected)
    assert (top5.name, top5.value) == ("top5", 100.0)


def test_top5_counts_five_guesses(tmp_path):
    import numpy as np
    from PIL import Image

    for label in range(8):
        for split in ("train", "val"):
            folder = tmp_path / split / f"class{label}"
            folder.mkdir(parents=True)
            Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)).save(folder / "0.png")
    run = tiny_run(tmp_path / "run", images=tmp_path, num_classes=8, epochs=1, warmup_epochs=0)
    classification.train(run)
    # Logits that rank the classes 0, 1, 2, ... for every image.
    content = load_checkpoint(run.checkpoint)
    content["state_dict"]["head.fc.weight"].zero_()
    content["state_dict"]["head.fc.bias"] = -torch.arange(8.0)
    save_checkpoint(run.checkpoint, content)
    top1, top5 = classification.evaluate(run, run.checkpoint)
    assert (top1.value, top5.value) == (100 / 8, 100 * 5 / 8)


@pytest.mark.parametrize("change", [{"model": "tiny_resnet"}, {"lr": 2e-3}, {"seed": 1}])
def test_checkpoint_of_another_run_is_refused(tmp_path, images, change):
    run = tiny_run(tmp_path / "run", images=images, epochs=2)
    classification.train(run)
    other = tiny_run(tmp_path / "other", images=images, **{"epochs": 2, **change})
    with pytest.raises(UserError, match=r"meta\..*: checkpoint of another run"):
        classification.evaluate(other, run.checkpoint)


def test_checkpoint_that_does_not_fit_its_own_description_is_refused(tmp_path, images):
    run = tiny_run(tmp_path / "run", images=images)
    classification.train(run)
    content = load_checkpoint(run.checkpoint)
    content["state_dict"]["head.fc.weight"] = torch.zeros(4, 64)
    save_checkpoint(run.checkpoint, content)
    with pytest.raises(UserError, match=r"head\.fc\.weight: expected shape \(3, 64\), found \(4, 64\)"):
        classification.evaluate(run, run.checkpoint)
