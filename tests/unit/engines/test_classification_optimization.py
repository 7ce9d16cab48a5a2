"""Parameter groups, learning rates, transforms and targets against their definitions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import nn

from hafabench.config.catalog import CATALOG
from hafabench.config.recipes import ClassificationRecipe, load_recipe, nested
from hafabench.engines.classification.augmentation import (
    build_criterion,
    build_mixup,
    eval_transform,
    train_transform,
)
from hafabench.engines.classification.optimization import build_optimizer, build_schedule, scaled_lr
from hafabench.errors import UserError
from tools.tiny_runs.classification import PLAIN


def recipe(**changes) -> ClassificationRecipe:
    return ClassificationRecipe.model_validate({**PLAIN, **changes})


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 9, 4))
        self.table = nn.Parameter(torch.zeros(3, 4))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)

    def no_weight_decay(self) -> set[str]:
        return {"table"}


def decays(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weight_decay_excludes_vectors_biases_class_tokens_and_listed_parameters(optimizer):
    model = nn.ModuleDict({"stage4": Toy()})
    toy = Toy()
    expected = {"linear.weight": 0.05, "pos_embed": 0.05, "table": 0.0, "cls_token": 0.0}
    expected |= dict.fromkeys(["linear.bias", "norm.weight", "norm.bias"], 0.0)
    assert decays(toy, build_optimizer(toy, recipe(optimizer=optimizer))) == expected
    nested = decays(model, build_optimizer(model, recipe(optimizer=optimizer)))
    assert nested["stage4.cls_token"] == 0.0
    assert nested["stage4.linear.weight"] == 0.05


def test_sgd_is_classical_momentum_and_adamw_is_decoupled():
    sgd = build_optimizer(Toy(), recipe(optimizer="sgd", momentum=0.8))
    assert type(sgd) is torch.optim.SGD
    assert sgd.defaults["momentum"] == 0.8 and not sgd.defaults["nesterov"]
    adamw = build_optimizer(Toy(), recipe())
    assert type(adamw) is torch.optim.AdamW
    assert adamw.defaults["betas"] == (0.9, 0.999) and adamw.defaults["eps"] == 1e-8


def rates(steps_per_epoch: int = 10, **changes) -> list[float]:
    chosen = recipe(**changes)
    optimizer = build_optimizer(Toy(), chosen)
    schedule = build_schedule(optimizer, chosen, steps_per_epoch)
    found = []
    for step in range(chosen.epochs * steps_per_epoch):
        schedule.step_update(step)
        assert len({group["lr"] for group in optimizer.param_groups}) == 1
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_schedule_warms_up_linearly_then_follows_the_cosine_of_the_whole_length():
    lr, low, start = 1e-3, 1e-5, 1e-6
    found = rates(epochs=300, warmup_epochs=5, lr=lr, min_lr=low, warmup_lr=start)
    assert len(found) == 3000
    assert found[0] == pytest.approx(start)
    assert found[25] == pytest.approx((start + lr) / 2)
    for step in (50, 1000, 1500, 2999):
        assert found[step] == pytest.approx(low + 0.5 * (lr - low) * (1 + math.cos(math.pi * step / 3000)))
    assert max(found) == found[50] > 0.999 * lr
    assert low < found[-1] < 1.001 * low


def test_all_rates_scale_linearly_with_the_batch():
    base = rates(epochs=4)
    doubled = rates(epochs=4, batch_size=16)
    assert doubled == pytest.approx([2 * lr for lr in base])
    assert scaled_lr(recipe(batch_size=256, lr_batch_size=1024, lr=1e-3)) == pytest.approx(2.5e-4)


def test_without_warm_up_the_first_step_has_the_peak():
    assert rates(warmup_epochs=0)[0] == pytest.approx(1e-3)


def test_warm_up_as_long_as_the_training_is_refused():
    with pytest.raises(UserError, match=r"warmup_epochs: expected fewer than the 3 epochs.*found 3"):
        rates(epochs=3, warmup_epochs=3)


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_evaluation_resizes_the_shorter_side_and_crops_the_centre():
    image = picture(400, 300)
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    resized = F.resize(image, 256, InterpolationMode.BICUBIC)
    expected = F.to_tensor(F.center_crop(resized, 224))
    expected = (expected - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    found = eval_transform(recipe(image_size=224, eval_crop=0.875, interpolation="bicubic"))(image)
    assert found.shape == (3, 224, 224)
    assert torch.allclose(found, expected, atol=1e-6)
    random = eval_transform(recipe(image_size=224, eval_crop=0.875, interpolation="random"))(image)
    assert torch.equal(random, found)


def test_training_transforms_follow_the_recipe():
    names = {
        type(step).__name__
        for step in train_transform(recipe(random_erasing=0.25, color_jitter=0.4, horizontal_flip=0.5)).transforms
    }
    assert {"RandomResizedCropAndInterpolation", "RandomHorizontalFlip", "ColorJitter", "RandomErasing"} <= names
    policy = train_transform(recipe(auto_augment="rand-m9-mstd0.5-inc1", color_jitter=0.4)).transforms
    assert "RandAugment" in {type(step).__name__ for step in policy}
    assert "ColorJitter" not in {type(step).__name__ for step in policy}
    plain = {type(step).__name__ for step in train_transform(recipe()).transforms}
    assert not plain & {"RandomHorizontalFlip", "ColorJitter", "RandomErasing", "RandAugment"}
    assert train_transform(recipe(image_size=48))(picture(60, 90)).shape == (3, 48, 48)


def test_erasing_fills_with_noise_and_not_a_constant():
    torch.manual_seed(0)
    grey = Image.fromarray(np.full((64, 64, 3), 128, dtype=np.uint8))
    erased = train_transform(recipe(random_erasing=1.0, image_size=64))(grey)
    changed = erased[:, (erased != erased[:, :1, :1]).any(0)]
    assert changed.shape[1] > 50
    assert changed.std() > 0.5


@pytest.mark.parametrize("policy", ["rand-q9", "nonsense", "rand-m9-zzz1"])
def test_an_unknown_policy_is_refused(policy):
    with pytest.raises(ValidationError, match=r"auto_augment\n.*expected a policy of timm such as"):
        recipe(auto_augment=policy)


def test_mixed_targets_are_smoothed_mixtures_with_the_reversed_batch():
    mixup = build_mixup(recipe(mixup=0.8, label_smoothing=0.1), num_classes=4, images_per_process=2)
    np.random.seed(0)  # noqa: NPY002 - the generator that timm's Mixup draws from
    images = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    mixed, targets = mixup(images, torch.tensor([1, 2]))
    share = mixed[1, 0, 0, 0]
    assert 0 < share < 1
    one_hot = torch.full((2, 4), 0.1 / 4)
    one_hot[0, 1] = one_hot[1, 2] = 0.9 + 0.1 / 4
    assert torch.allclose(targets, share * one_hot + (1 - share) * one_hot.flip(0), atol=1e-6)
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    expected = -(targets * logits.log_softmax(1)).sum(1).mean()
    assert build_criterion(recipe(mixup=0.8), mixup)(logits, targets) == pytest.approx(expected.item())


def test_without_mixing_the_loss_smooths_labels_itself():
    assert build_mixup(recipe(), 4, 3) is None
    logits, labels = torch.tensor([[2.0, 0.0, 0.0, 0.0]]), torch.tensor([0])
    soft = torch.full((1, 4), 0.05).index_fill(1, labels, 0.85)
    expected = -(soft * logits.log_softmax(1)).sum()
    assert build_criterion(recipe(label_smoothing=0.2), None)(logits, labels) == pytest.approx(expected.item())


def test_mixing_an_odd_batch_is_refused():
    with pytest.raises(UserError, match="batch_size: mixup and CutMix need an even number of images"):
        build_mixup(recipe(cutmix=1.0), 4, 7)


def test_recipe_file_holds_the_papers_values(repository: Path):
    file = load_recipe(repository / "configs/recipes/classification.yaml", "classification")
    assert set(file.defaults) == set(ClassificationRecipe.model_fields) - set(ClassificationRecipe.sections)

    def resolved(model: str) -> ClassificationRecipe:
        layers = file.layers(CATALOG[model])
        return ClassificationRecipe.model_validate(nested({key: item.value for key, item in layers.items()}))

    tiny, large = resolved("pvt_tiny_hafa"), resolved("pvt_large_hafa")
    assert (tiny.drop_path, tiny.clip_grad, large.drop_path, large.clip_grad) == (0.1, None, 0.3, 1.0)
    assert (tiny.lr, tiny.batch_size, tiny.lr_batch_size, tiny.weight_decay) == (1e-3, 1024, 1024, 0.05)
    assert (tiny.epochs, tiny.warmup_epochs, tiny.warmup_lr, tiny.min_lr) == (300, 5, 1e-6, 1e-5)
    assert resolved("resnet18") == tiny
    assert resolved("hrnet_w32") == tiny.model_copy(update={"drop_path": 0.0})
    assert resolved("lvvit_small") == tiny.model_copy(update={"lr": 1.6e-3})


def test_recipes_of_models_that_drop_tokens(repository: Path):
    """Rates, lengths and weights as published; what is not named is the paper's own recipe."""
    file = load_recipe(repository / "configs/recipes/classification.yaml", "classification")
    tiny, vit, swin = (
        ClassificationRecipe.model_validate(nested({key: item.value for key, item in file.layers(spec).items()}))
        for spec in (CATALOG["pvt_tiny"], CATALOG["dynamicvit_lvs_0.5"], CATALOG["dynamic_swin_tiny_0.25"])
    )
    for recipe, expected in ((vit, (1e-3, 1024, 30, 5, 0.0)), (swin, (4e-3, 4096, 120, 20, 0.2))):
        assert (
            scaled_lr(recipe),
            recipe.batch_size,
            recipe.epochs,
            recipe.warmup_epochs,
            recipe.drop_path,
        ) == expected
        assert (recipe.min_lr, recipe.repeated_augmentation, recipe.clip_grad) == (1e-6, 1, None)
        named = {"lr", "lr_batch_size", "batch_size", "epochs", "warmup_epochs", "min_lr", "drop_path"}
        named |= {"repeated_augmentation", "token_pruning"}
        rest = {key: value for key, value in recipe if key not in named}
        assert rest == {key: value for key, value in tiny if key not in named}
        pruning = recipe.token_pruning
        assert (pruning.distillation_weight, pruning.token_weight, pruning.frozen_epochs) == (0.5, 0.5, 5)
        assert pruning.ema_decay == 0.9999
    assert (vit.token_pruning.teacher, vit.token_pruning.ratio_weight) == ("lvvit_small", 2.0)
    assert (swin.token_pruning.teacher, swin.token_pruning.ratio_weight) == ("swin_tiny", 10.0)
    assert (vit.token_pruning.backbone_lr_share, swin.token_pruning.backbone_lr_share) == (0.01, 0.2)
