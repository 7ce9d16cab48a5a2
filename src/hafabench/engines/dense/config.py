"""The configuration of a run for mmdet (Mask R-CNN) or mmseg (Semantic FPN), as plain data without the mm packages.

The models are the base configurations of the libraries (`mask-rcnn_r50_fpn.py`, `fpn_r50.py`), in which this
project's backbone, neck, class count and recipe are filled. Everything else is as the libraries ship it.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import reduce
from operator import getitem
from typing import Any

from hafabench.config.catalog import ModelSpec
from hafabench.config.recipes import DenseRecipe, DetectionRecipe, SegmentationRecipe
from hafabench.data.verify.coco import SMALLEST_TRAINED
from hafabench.models import family_of
from hafabench.models.scaling import scaled_channels
from hafabench.runs.run import Run

Config = dict[str, Any]

LEVELS = {"segmentation": 4, "detection": 5}
"""Levels of the pyramid. The fifth level of detection, P6, is a stride-2 max-pool."""

PYRAMID_CHANNELS = 256

_CHANNEL_MULTIPLE = 8
_SCALED_CHANNELS: dict[str, dict[str, tuple[str, ...]]] = {
    "segmentation": {"decode_head": ("in_channels", "channels")},
    "detection": {
        "rpn_head": ("in_channels", "feat_channels"),
        "roi_head.bbox_roi_extractor": ("out_channels",),
        "roi_head.bbox_head": ("in_channels", "fc_out_channels"),
        "roi_head.mask_roi_extractor": ("out_channels",),
        "roi_head.mask_head": ("in_channels", "conv_out_channels"),
    },
}
"""The channels of the libraries' heads that follow the width of the model, by section of the configuration."""


def dense_recipe(run: Run) -> DenseRecipe:
    """Return the recipe of a dense run."""
    if not isinstance(run.recipe, DenseRecipe):
        raise TypeError(f"{run.id}: expected a dense recipe, found a {type(run.recipe).__name__}")
    return run.recipe


def uses_token_fpn(spec: ModelSpec, recipe: DenseRecipe | None) -> bool:
    """Return whether the neck gathers cluster tokens. With ``auto`` it does if the last stage is clustered."""
    choice = recipe.neck if recipe else "auto"
    return spec.mergers[-1] == "sia" if choice == "auto" else choice == "token_fpn"


def head_channels(channels: int, spec: ModelSpec) -> int:
    """Return channels of a neck or head at the width of a model, rounded to a multiple of 8 below width 1."""
    return scaled_channels(channels, spec.width, _CHANNEL_MULTIPLE)


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
    """Fill the configuration of the whole model.

    Args:
        stock: The base configuration of the library, which is changed and returned.
        spec: The model of the backbone.
        task: ``segmentation`` or ``detection``.
        num_classes: Number of classes of the head.
        channels: Channels of the backbone's four stages.
        recipe: The recipe of a run. None keeps the proposal counts of the libraries and uses no drop path.
        sync_norm: Whether the batch statistics of the segmentation head are shared by all processes (several GPUs).
    """
    token_fpn = uses_token_fpn(spec, recipe)
    timm_models = family_of(spec).timm
    stock["backbone"] = {
        "type": "TimmBackbone",
        "spec": asdict(spec),
        "drop_path": recipe.drop_path if recipe else 0.0,
        "as_tokens": token_fpn,
        "frozen": list(timm_models.frozen_in_detection) if timm_models and task == "detection" else [],
    }
    stock["neck"] = {
        "type": "TokenFPN" if token_fpn else "FPN",
        "in_channels": channels,
        "out_channels": head_channels(PYRAMID_CHANNELS, spec),
        "num_outs": LEVELS[task],
    }
    for section, keys in _SCALED_CHANNELS[task].items():
        head = reduce(getitem, section.split("."), stock)
        for key in keys:
            value = head[key]
            many = isinstance(value, list | tuple)
            head[key] = [head_channels(each, spec) for each in value] if many else head_channels(value, spec)
    if task == "segmentation":
        crop_size = recipe.crop_size if isinstance(recipe, SegmentationRecipe) else 512
        return _fill_segmentor(stock, num_classes, crop_size, sync_norm)
    _fill_detector_classes(stock, num_classes)
    if isinstance(recipe, DetectionRecipe):
        _fill_detector_recipe(stock, recipe)
    return stock


def _fill_segmentor(stock: Config, num_classes: int, crop_size: int, sync_norm: bool) -> Config:
    stock["pretrained"] = None
    head = stock["decode_head"]
    head["num_classes"] = num_classes
    head["norm_cfg"] = {"type": "SyncBN" if sync_norm else "BN", "requires_grad": True}
    # Crops of small images are padded to the crop size. Images of the evaluation are not padded.
    stock["data_preprocessor"]["size"] = (crop_size, crop_size)
    return stock


def _fill_detector_classes(stock: Config, num_classes: int) -> None:
    roi_head = stock["roi_head"]
    roi_head["bbox_head"]["num_classes"] = roi_head["mask_head"]["num_classes"] = num_classes


def _fill_detector_recipe(stock: Config, recipe: DetectionRecipe) -> None:
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


def train_pipeline(recipe: DenseRecipe, num_classes: int) -> list[Config]:
    """List the transforms of a training image (PVT's segmentation and mmdet's detection configurations)."""
    if isinstance(recipe, SegmentationRecipe):
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


def eval_pipeline(recipe: DenseRecipe, num_classes: int) -> list[Config]:
    """List the transforms of an evaluation image, which is resized as a whole; the truth keeps its size.

    With a ``size_divisor``, segmentation resizes in two steps, as the test pipeline of PVT's repository does
    (`AlignResize`, segmentation/configs/_base_/datasets/ade20k.py). Detection needs no such step: mmdet's data
    preprocessor pads each batch to multiples of 32.
    """
    resize = {"type": "Resize", "scale": recipe.resize, "keep_ratio": True}
    if isinstance(recipe, SegmentationRecipe):
        align = [] if recipe.size_divisor is None else [{"type": "AlignSize", "divisor": recipe.size_divisor}]
        mask = {"type": "ReadClassMask", "num_classes": num_classes}
        return [{"type": "ReadImage"}, resize, *align, mask, {"type": "PackSegInputs"}]
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    return [{"type": "ReadImage"}, resize, {"type": "PackDetInputs", "meta_keys": keys}]


def dataset_config(run: Run, split: str, classes: list[str]) -> Config:
    """Configure mmdet's or mmseg's data set for the run's ``train`` or ``val`` split.

    The images and masks of a segmentation data set (``pairs``) are added by `hafabench.engines.dense.datasets`.
    """
    pipeline = train_pipeline if split == "train" else eval_pipeline
    common = {
        "data_root": str(run.dataset.root),
        "metainfo": {"classes": tuple(classes)},
        "pipeline": pipeline(dense_recipe(run), run.dataset.num_classes),
        "test_mode": split == "val",
    }
    if run.task == "segmentation":
        return {"type": "ImagesWithMasks", "reduce_zero_label": True, **common}
    return {
        "type": "CocoDataset",
        "ann_file": f"annotations/instances_{split}2017.json",
        "data_prefix": {"img": f"{split}2017/"},
        # mmdet's default: training leaves out images without objects and small images.
        "filter_cfg": {"filter_empty_gt": True, "min_size": SMALLEST_TRAINED} if split == "train" else None,
        **common,
    }


def optimizer_config(recipe: DenseRecipe, *, on_gpu: bool) -> Config:
    """Configure mmengine's optimiser wrapper: as published, all parameters share the recipe's settings."""
    optimizer: Config = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "adamw":
        # Fused kernels are three times as fast on CPU. On GPU torch chooses.
        optimizer |= {"type": "AdamW", "fused": None if on_gpu else True}
    else:
        optimizer |= {"type": "SGD", "momentum": recipe.momentum}
    mixed_precision = recipe.amp and on_gpu
    wrapper: Config = {"type": "AmpOptimWrapper" if mixed_precision else "OptimWrapper", "optimizer": optimizer}
    if recipe.clip_grad is not None:
        wrapper["clip_grad"] = {"max_norm": recipe.clip_grad}
    return wrapper


def schedule_config(recipe: DenseRecipe, total: int, steps_per_epoch: int) -> list[Config]:
    """Configure mmengine's learning rate schedulers, all of them by optimiser step k, counted from 0.

    The warm-up is ``lr * (f + (1 - f) * k / warmup)``. Segmentation follows ``(lr - min) * (1 - k / total) ** power +
    min``, which begins after the warm-up if there is one. Detection multiplies by ``lr_gamma`` at every milestone.
    """
    warmup = recipe.warmup_iterations
    schedulers: list[Config] = []
    # mmengine reaches the last value of a schedule one step before its end. The published code (mmcv 1) reaches it at
    # the end.
    # Without the + 1, the last step of a training would have learning rate 0.
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
