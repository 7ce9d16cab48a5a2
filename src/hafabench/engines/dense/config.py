"""A run as configuration of mmdet (Mask R-CNN) or mmseg (Semantic FPN): plain data, no mm package is imported here.

The models are the libraries' own base configurations (`mask-rcnn_r50_fpn.py`, `fpn_r50.py`) with this project's
backbone, neck, class count and recipe in them; what is not named here is as the libraries ship it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hafabench.config.catalog import ModelSpec
from hafabench.config.recipes import DenseRecipe, DetectionRecipe, SegmentationRecipe
from hafabench.errors import Problem, UserError
from hafabench.runs.run import Run

Config = dict[str, Any]

LEVELS = {"segmentation": 4, "detection": 5}
"""Levels of the pyramid; the fifth of detection, P6, is a stride-2 max-pool."""

PYRAMID_CHANNELS = 256


def uses_token_fpn(spec: ModelSpec, recipe: DenseRecipe | None) -> bool:
    """Whether the neck gathers cluster tokens: as the recipe says, ``auto`` where the last stage is clustered."""
    choice = recipe.neck if recipe else "auto"
    return spec.mergers[-1] == "sia" if choice == "auto" else choice == "token_fpn"


def fill_model(
    stock: Config,
    spec: ModelSpec,
    task: str,
    num_classes: int,
    channels: list[int],
    recipe: DenseRecipe | None = None,
    *,
    sync_norm: bool = False,
) -> Config:
    """The configuration of the whole model.

    Args:
        stock: the library's base configuration; changed and returned.
        spec: the backbone's model.
        task: ``segmentation`` or ``detection``.
        num_classes: classes of the head.
        channels: of the backbone's four stages.
        recipe: of a run; None takes the libraries' proposal counts and no drop path.
        sync_norm: batch statistics of the segmentation head over all processes (several GPUs).
    """
    token_fpn = uses_token_fpn(spec, recipe)
    # Detection freezes a ResNet's stem and first stage and its batch statistics, as mmdet does and as Table 3 counts
    # parameters. Segmentation trains all of it, as mmseg does.
    frozen = task == "detection" and spec.family == "resnet"
    drop_path = recipe.drop_path if recipe else 0.0
    stock["backbone"] = {
        "type": "TimmBackbone",
        "spec": asdict(spec),
        "drop_path": drop_path,
        "as_tokens": token_fpn,
        "frozen": frozen,
    }
    stock["neck"] = {
        "type": "TokenFPN" if token_fpn else "FPN",
        "in_channels": channels,
        "out_channels": PYRAMID_CHANNELS,
        "num_outs": LEVELS[task],
    }
    if task == "segmentation":
        return _fill_segmentor(stock, num_classes, recipe, sync_norm)
    return _fill_detector(stock, num_classes, recipe)


def _fill_segmentor(stock: Config, num_classes: int, recipe: SegmentationRecipe | None, sync_norm: bool) -> Config:
    stock["pretrained"] = None
    head = stock["decode_head"]
    head["num_classes"] = num_classes
    head["norm_cfg"] = {"type": "SyncBN" if sync_norm else "BN", "requires_grad": True}
    # Crops smaller than the crop size (small images) are padded; in evaluation images keep their size.
    crop = recipe.crop_size if recipe else 512
    stock["data_preprocessor"]["size"] = (crop, crop)
    return stock


def _fill_detector(stock: Config, num_classes: int, recipe: DetectionRecipe | None) -> Config:
    roi_head = stock["roi_head"]
    roi_head["bbox_head"]["num_classes"] = roi_head["mask_head"]["num_classes"] = num_classes
    if recipe:
        stock["rpn_head"]["anchor_generator"]["scales"] = [recipe.anchor_scale]
        stock["train_cfg"]["rpn_proposal"].update(
            nms_pre=max(stock["train_cfg"]["rpn_proposal"]["nms_pre"], recipe.train_proposals),
            max_per_img=recipe.train_proposals,
        )
        stock["train_cfg"]["rcnn"]["sampler"]["num"] = recipe.roi_samples
        stock["test_cfg"]["rcnn"]["max_per_img"] = recipe.max_detections
        stock["test_cfg"]["rpn"].update(
            nms_pre=max(stock["test_cfg"]["rpn"]["nms_pre"], recipe.test_proposals),
            max_per_img=recipe.test_proposals,
        )
    return stock


def train_pipeline(task: str, recipe: DenseRecipe, num_classes: int) -> list[Config]:
    """Transforms of a training image, in order (PVT's segmentation and mmdet's detection configurations)."""
    if task == "segmentation":
        crop = (recipe.crop_size, recipe.crop_size)
        distortion = [{"type": "PhotoMetricDistortion"}] if recipe.photometric_distortion else []
        return [
            {"type": "ReadImage"},
            {"type": "ReadClassMask", "num_classes": num_classes},
            {
                "type": "RandomResize",
                "scale": recipe.resize,
                "ratio_range": recipe.ratio_range,
                "keep_ratio": True,
            },
            {"type": "RandomCrop", "crop_size": crop, "cat_max_ratio": 0.75},
            {"type": "RandomFlip", "prob": recipe.flip},
            *distortion,
            {"type": "PackSegInputs"},
        ]
    return [
        {"type": "ReadImage"},
        {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True},
        {"type": "Resize", "scale": recipe.resize, "keep_ratio": True},
        {"type": "RandomFlip", "prob": recipe.flip},
        {"type": "PackDetInputs"},
    ]


def eval_pipeline(task: str, recipe: DenseRecipe, num_classes: int) -> list[Config]:
    """Transforms of an evaluation image: resized whole, one scale, no flip; the truth stays at its own size."""
    resize = {"type": "Resize", "scale": recipe.resize, "keep_ratio": True}
    if task == "segmentation":
        mask = {"type": "ReadClassMask", "num_classes": num_classes}
        return [{"type": "ReadImage"}, resize, mask, {"type": "PackSegInputs"}]
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    return [{"type": "ReadImage"}, resize, {"type": "PackDetInputs", "meta_keys": keys}]


def dataset_config(run: Run, split: str, classes: list[str]) -> Config:
    """mmdet's or mmseg's data set over the files of the run's ``train`` or ``val`` split."""
    pipeline = (train_pipeline if split == "train" else eval_pipeline)(run.task, run.recipe, run.dataset.num_classes)
    common = {
        "data_root": str(run.dataset.root),
        "metainfo": {"classes": tuple(classes)},
        "pipeline": pipeline,
        "test_mode": split == "val",
    }
    if run.task == "segmentation":
        folder = {"train": "training", "val": "validation"}[split]
        return {
            "type": "BaseSegDataset",
            "data_prefix": {"img_path": f"images/{folder}", "seg_map_path": f"annotations/{folder}"},
            "reduce_zero_label": True,
            **common,
        }
    return {
        "type": "CocoDataset",
        "ann_file": f"annotations/instances_{split}2017.json",
        "data_prefix": {"img": f"{split}2017/"},
        # mmdet's own choice: images without objects are left out of training, as are those below 32 pixels.
        "filter_cfg": {"filter_empty_gt": True, "min_size": 32} if split == "train" else None,
        **common,
    }


def optimizer_config(recipe: DenseRecipe, *, on_gpu: bool) -> Config:
    """mmengine's optimiser wrapper: the recipe's optimiser on all parameters alike, as published."""
    optimizer: Config = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "adamw":
        # Three times as fast on CPU; GPUs have torch's own choice.
        optimizer |= {"type": "AdamW", "fused": None if on_gpu else True}
    else:
        optimizer |= {"type": "SGD", "momentum": recipe.momentum}
    mixed_precision = recipe.amp and on_gpu
    wrapper: Config = {"type": "AmpOptimWrapper" if mixed_precision else "OptimWrapper", "optimizer": optimizer}
    if recipe.clip_grad is not None:
        wrapper["clip_grad"] = {"max_norm": recipe.clip_grad}
    return wrapper


def total_steps(run: Run, images: int) -> int:
    """Optimiser steps of the whole training.

    Raises:
        UserError: where a step takes more images than there are, or the warm-up outlasts the training.
    """
    problems = run.recipe.problems(images)
    if problems:
        raise UserError([Problem(run.id, key, message) for key, message in problems.items()])
    return run.recipe.steps(images)


def schedule_config(recipe: DenseRecipe, total: int, steps_per_epoch: int) -> list[Config]:
    """mmengine's learning rate schedulers, all by optimiser step k (0-based).

    Warm-up: ``lr * (f + (1 - f) * k / warmup)``. Segmentation: ``(lr - min) * (1 - k / total) ** power + min``, which
    begins after the warm-up if there is one. Detection: ``lr_gamma`` at every milestone.
    """
    warmup = recipe.warmup_iterations
    schedulers: list[Config] = []
    # mmengine comes to a schedule's last value at the step before its end. The published codes (mmcv 1) did at the
    # end: hence the + 1, without which the last step of a training would have learning rate 0.
    if warmup:
        linear = {"type": "LinearLR", "start_factor": recipe.warmup_factor, "by_epoch": False}
        schedulers.append({**linear, "begin": 0, "end": warmup + 1})
    if isinstance(recipe, SegmentationRecipe):
        poly = {"type": "PolyLR", "power": recipe.poly_power, "eta_min": recipe.min_lr, "by_epoch": False}
        schedulers.append({**poly, "begin": warmup, "end": total + 1})
    elif isinstance(recipe, DetectionRecipe):
        milestones = [epoch * steps_per_epoch for epoch in recipe.milestones]
        schedulers.append(
            {"type": "MultiStepLR", "milestones": milestones, "gamma": recipe.lr_gamma, "by_epoch": False}
        )
    return schedulers
