"""The seam to OpenMMLab: the only module that imports mmengine, mmcv, mmdet or mmseg.

It takes 5-8 seconds to import and needs `hafabench.engines.dense.operators.install` to have run; `load_mm` of
`hafabench.engines.dense.engine` does both. It registers this project's backbone, neck and transforms with the root
registries of mmengine, where mmdet and mmseg both find them, and holds a runner that leaves no files behind.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import mmdet.datasets
import mmdet.models
import mmdet.registry
import mmseg.datasets
import mmseg.models
import mmseg.registry
import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmdet.evaluation.metrics import CocoMetric
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import LOOPS, MODELS, TRANSFORMS, DefaultScope
from mmengine.runner import BaseLoop, Runner
from mmengine.visualization import Visualizer
from mmseg.datasets.transforms import LoadAnnotations as LoadClassMask
from mmseg.evaluation.metrics import IoUMetric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hafabench.config.catalog import ModelSpec
from hafabench.data.images import UnreadableImage, read_image
from hafabench.engines.dense.coco_ap import average_precisions_and_matches
from hafabench.engines.dense.neck import TokenFPN
from hafabench.engines.distributed import World
from hafabench.errors import Problem, UserError
from hafabench.models import create
from hafabench.models.hafa.tokens import Tokens
from hafabench.results.predictions import Areas, Detections, Matches

# These libraries warn of each other's deprecated entry points and of loggers by name: nothing for a user here.
warnings.filterwarnings("ignore", category=UserWarning, module=r"mm(engine|cv|det|seg)\b")

_LIBRARIES = {
    "segmentation": (mmseg, "_base_/models/fpn_r50.py"),
    "detection": (mmdet, "_base_/models/mask-rcnn_r50_fpn.py"),
}

MODELS.register_module(name="TokenFPN", module=TokenFPN)


@contextlib.contextmanager
def scope(task: str) -> Iterator[None]:
    """Look names up in mmseg's or mmdet's registries, whatever was built in this process before."""
    library, _ = _LIBRARIES[task]
    # mmengine speaks through the logger made last; this one passes on errors only.
    MMLogger.get_instance("hafabench", log_level="ERROR")
    with DefaultScope.overwrite_default_scope(library.__name__):
        yield


def stock_model(task: str) -> dict[str, Any]:
    """The library's own base configuration of Semantic FPN or Mask R-CNN, as plain data."""
    library, file = _LIBRARIES[task]
    return Config.fromfile(Path(library.__file__).parent / ".mim/configs" / file).model.to_dict()


def build_model(task: str, config: dict[str, Any]) -> nn.Module:
    """The model of ``config``, its neck and heads initialised as the library does."""
    library, _ = _LIBRARIES[task]
    with scope(task):
        model = library.registry.MODELS.build(ConfigDict(config))
        if next(model.parameters()).device.type != "meta":
            model.init_weights()
    return model


def build_dataset(task: str, config: dict[str, Any]) -> BaseDataset:
    """The data set of ``config``, its annotations read."""
    library, _ = _LIBRARIES[task]
    # pycocotools reports its progress on standard output.
    with scope(task), contextlib.redirect_stdout(io.StringIO()):
        return library.registry.DATASETS.build(ConfigDict(config))


@MODELS.register_module()
class TimmBackbone(nn.Module):
    """A model of this project as backbone of mmseg and mmdet.

    Args:
        spec: fields of a `ModelSpec`.
        drop_path: stochastic depth rate of the last block.
        as_tokens: hand on `Tokens` of the four stages (for `TokenFPN`) instead of maps (B, C, h, w).
        frozen: never train stem and first stage, nor the statistics of any batch norm (ResNets in detection).
    """

    def __init__(self, spec: dict[str, Any], drop_path: float, as_tokens: bool, frozen: bool):
        super().__init__()
        self.body = create(ModelSpec(**spec), dense=True, drop_path_rate=drop_path)
        self.as_tokens, self.frozen = as_tokens, frozen
        if frozen:
            for name in ("conv1", "bn1", "layer1"):
                self.body.body.get_submodule(name).requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | list[Tokens]:
        """Features of the four stages of images (B, 3, H, W)."""
        stages = self.body.forward_tokens(x)
        return stages if self.as_tokens else tuple(tokens.to_map() for tokens in stages)

    def train(self, mode: bool = True) -> TimmBackbone:
        """Training mode, in which frozen batch norms stay in evaluation mode."""
        super().train(mode)
        if self.frozen:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


@TRANSFORMS.register_module()
class ReadImage(LoadImageFromFile):
    """mmcv's image reader over this project's decoder, which says what is wrong with a damaged file."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``img`` (H, W, 3), BGR, uint8, and its shape."""
        image = np.asarray(read_image(results["img_path"]))[..., ::-1]
        results["img"] = np.ascontiguousarray(image)
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results


@TRANSFORMS.register_module()
class ReadClassMask(LoadClassMask):
    """mmseg's mask reader, refusing values beyond the classes.

    Args:
        num_classes: masks hold 0 (unlabelled), then 1 to ``num_classes``; 255 is ignored.
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_classes = num_classes

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``gt_seg_map`` (H, W), classes from 0, 255 where ignored."""
        path = results["seg_map_path"]
        # Decoded twice, once for the sentence that a damaged mask deserves: masks are small.
        read_image(path, mode=None)
        results = super().transform(results)
        labels = results["gt_seg_map"]
        wrong = labels[(labels >= self.num_classes) & (labels != 255)]
        if wrong.size:
            message = f"mask value {int(wrong.max()) + 1} out of range: expected 0 to {self.num_classes} or 255"
            raise UnreadableImage(Problem(str(path), "", message))
        return results


class CocoAp(CocoMetric):
    """mmdet's collection of boxes and masks; values ``box_ap`` ... ``mask_ap_l`` in percent, see `coco_ap`."""

    default_prefix = None

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._matches: dict[str, Matches] = {}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """COCO's average precisions for boxes and for masks."""
        self.cat_ids = self._coco_api.get_cat_ids(cat_names=self.dataset_meta["classes"])
        found = {}
        with tempfile.TemporaryDirectory() as folder:
            files = self.results2json([detection for _, detection in results], str(Path(folder) / "detections"))
            for prefix, kind in (("box", "bbox"), ("mask", "segm")):
                detections = json.loads(Path(files[kind]).read_text())
                values, self._matches[prefix] = average_precisions_and_matches(self._coco_api, detections, kind)
                found |= {f"{prefix}_{name}": value for name, value in values.items()}
        return found

    def predictions(self, _names: list[str]) -> Detections:
        """What each image came to, after `compute_metrics`."""
        truth = self._coco_api
        names = [truth.imgs[image]["file_name"] for image in sorted(truth.get_img_ids())]
        return Detections(np.array(names), **self._matches)


class MeanIoU(IoUMetric):
    """mmseg's per-image areas; ``miou``, ``pixel_acc`` and ``mean_acc`` in percent, summed exactly and unrounded."""

    default_prefix = None

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Means over the classes that occur (in the truth or, for IoU, in the predictions)."""
        # mmseg adds single-precision counts, which lose pixels beyond 2^24.
        self._areas = [torch.stack(column).double() for column in zip(*results, strict=True)]
        found = self.total_area_to_metrics(*(area.sum(0) for area in self._areas), metrics=self.metrics)
        return {
            "miou": 100 * float(np.nanmean(found["IoU"])),
            "pixel_acc": 100 * float(found["aAcc"]),
            "mean_acc": 100 * float(np.nanmean(found["Acc"])),
        }

    def predictions(self, names: list[str]) -> Areas:
        """What each image came to, after `compute_metrics`, under the images' names in the data set's order."""
        intersection, union, _, truth = (area.numpy().astype(np.int64) for area in self._areas)
        return Areas(np.array(names), intersection, union, truth)


class Training(Protocol):
    """What mmengine asks for and tells, step by step."""

    def __len__(self) -> int:
        """Optimiser steps of the whole training."""

    def batches(self, start: int) -> Iterator[dict[str, Any]]:
        """The batches from step ``start`` to the last one."""

    def begin(self, runner: Runner) -> int:
        """Before the first step: resume; returns the number of steps already done."""

    def before_step(self, runner: Runner) -> None:
        """Before each step."""

    def after_step(self, losses: dict[str, Any]) -> None:
        """After each step and its schedules, with what the model logs."""


@LOOPS.register_module()
class StepLoop(BaseLoop):
    """Optimiser steps over batches that begin where the training resumes: no data is skipped."""

    def __init__(self, runner: Runner, dataloader: Training):
        super().__init__(runner, dataloader)
        self.iter, self.max_iters = 0, len(dataloader)
        # mmengine asks for epochs too; here schedules and batches count steps.
        self.epoch, self.max_epochs = 0, 1

    def run(self) -> nn.Module:
        """Train; every hook is told before and after each step."""
        runner = self.runner
        runner.call_hook("before_train")
        runner.model.train()
        # Closed, so that an error's traceback keeps no loading process alive.
        with contextlib.closing(self.dataloader.batches(self.iter)) as batches:
            for batch in batches:
                runner.call_hook("before_train_iter", batch_idx=self.iter, data_batch=batch)
                outputs = runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
                runner.call_hook("after_train_iter", batch_idx=self.iter, data_batch=batch, outputs=outputs)
                self.iter += 1
        runner.call_hook("after_train")
        return runner.model


class StepCalls(Hook):
    """Calls a `Training` at every step."""

    # After mmengine's scheduler hook (LOW): what is saved then includes the schedules' step.
    priority = "VERY_LOW"

    def __init__(self, training: Training):
        self._training = training

    def before_train(self, runner: Runner) -> None:
        """Resume."""
        runner.train_loop.iter = self._training.begin(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """A step begins."""
        self._training.before_step(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """A step is done."""
        self._training.after_step(outputs)


class Schedules:
    """The state of several learning rate schedulers as one."""

    def __init__(self, schedulers: list):
        self._schedulers = schedulers

    def state_dict(self) -> dict[str, Any]:
        """Numbers and containers of them."""
        return {"schedulers": [scheduler.state_dict() for scheduler in self._schedulers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        for scheduler, saved in zip(self._schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(saved)


class QuietRunner(Runner):
    """mmengine's runner without its files and its chatter; model and data loading come ready-made.

    Args:
        task: gives the scope in which names are looked up.
        training: gives the batches, and is called at every step.
        world: the processes of this training.
        folder: an empty folder for what mmengine insists on writing; to be removed afterwards.
        options: those of `Runner`.
    """

    _count = 0

    def __init__(self, task: str, training: Training, world: World, folder: str, **options: Any):
        self._world = world
        # mmengine keeps scopes, loggers and hubs by this name for as long as the process lives.
        QuietRunner._count += 1
        name = f"hafabench-{QuietRunner._count}"
        super().__init__(
            work_dir=folder,
            train_dataloader=training,
            train_cfg={"type": "StepLoop"},
            custom_hooks=[StepCalls(training)],
            experiment_name=name,
            default_scope=_LIBRARIES[task][0].__name__,
            launcher="none" if world.size == 1 else "pytorch",
            visualizer=Visualizer.get_instance(f"{name}-visualizer"),
            default_hooks=dict.fromkeys(("runtime_info", "timer", "sampler_seed", "logger", "checkpoint")),
            **options,
        )

    def build_logger(self, log_level: str = "ERROR", **_options: Any) -> MMLogger:
        """A logger to standard error, for errors only."""
        return MMLogger.get_instance(self._experiment_name, log_level="ERROR")

    def wrap_model(self, _config: dict | None, model: nn.Module) -> nn.Module:
        """The model on its device, its gradients averaged over the processes."""
        device = self._world.device
        model = model.to(device)
        if self._world.size == 1:
            return model
        # Without device_ids on CPU, where mmengine would name one; batch statistics stay each process's own.
        devices = [device.index] if device.type == "cuda" else None
        return MMDistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)

    def set_randomness(self, *_arguments: Any, **_options: Any) -> None:
        """Nothing: randomness is seeded per step."""
        self._seed, self._deterministic = None, False

    def _init_model_weights(self) -> None:
        # The model comes initialised, its backbone from the classification checkpoint.
        pass

    def _log_env(self, env_cfg: dict) -> None:
        pass

    def dump_config(self) -> None:
        """Nothing: the run's configuration is kept by this project."""


def same_size_collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of evaluation samples, which have to be of one size.

    Raises:
        UserError: where they are not.
    """
    sizes = {tuple(sample["inputs"].shape[-2:]) for sample in samples}
    if len(sizes) > 1:
        found = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
        raise UserError(f"images of several sizes in one batch ({found}): set eval_batch_size to 1")
    return pseudo_collate(samples)


def metric(task: str, annotations: Path | None = None) -> BaseMetric:
    """What a task is measured by: mean IoU, or COCO's average precisions against an annotation file."""
    if task == "segmentation":
        return MeanIoU(iou_metrics=["mIoU"])
    with contextlib.redirect_stdout(io.StringIO()):
        return CocoAp(ann_file=str(annotations), metric=["bbox", "segm"])


@torch.inference_mode()
def evaluate(model: nn.Module, dataset: BaseDataset, batches: Iterator[dict], metric: BaseMetric) -> dict[str, float]:
    """The metric's values over all ``batches`` of ``dataset``; what is not defined is left out."""
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = dataset.metainfo
    with contextlib.closing(batches):
        for batch in batches:
            evaluator.process(data_samples=model.test_step(batch), data_batch=batch)
    found = evaluator.evaluate(len(dataset))
    return {name: value for name, value in found.items() if math.isfinite(value)}


def unwrapped(model: nn.Module) -> nn.Module:
    """The model without its distributed wrapper."""
    return model.module if isinstance(model, MMDistributedDataParallel) else model
