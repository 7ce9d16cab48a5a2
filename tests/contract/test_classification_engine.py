"""Classification trainings: recipe, schedule, checkpoint and evaluation."""

from __future__ import annotations

import math

import pytest
import torch
from timm.layers import DropPath
from torchvision.datasets import ImageFolder

from hafabench.engines import classification
from hafabench.engines.classification.augmentation import eval_transform
from hafabench.errors import UserError
from hafabench.models.checkpoints.storage import load_checkpoint, save_checkpoint
from hafabench.results.history import read_history
from hafabench.results.predictions import read_predictions
from hafabench.runs.run import Run
from tools.tiny_runs.classification import CLASSES, IMAGES, make_images, start, tiny_run

TOTAL = CLASSES * IMAGES


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_checkpoint(run.checkpoint)["state_dict"]


@pytest.mark.slow
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
    assert [path.name for path in run.work.iterdir()] == ["checkpoint.pth"]


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


@pytest.mark.slow
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


def test_what_is_not_finite_never_becomes_an_accuracy(tmp_path, images):
    run = tiny_run(tmp_path / "run", images=images, epochs=1, warmup_epochs=0)
    classification.train(run)
    content = load_checkpoint(run.checkpoint)
    weight = content["state_dict"]["head.fc.weight"]
    for value, message in (
        (torch.nan, r"head\.fc\.weight: some values are not finite"),
        (3e38, r"class0/0\.png or one of the next 4 images: the outputs of the model are not finite"),
    ):
        weight.fill_(value)
        save_checkpoint(run.checkpoint, content)
        with pytest.raises(UserError, match=message):
            classification.evaluate(run, run.checkpoint, keep=tmp_path / "predictions.npz")
    assert not (tmp_path / "predictions.npz").exists()


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
