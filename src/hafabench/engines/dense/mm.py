"""The connection to OpenMMLab: the only module that imports mmengine, mmcv, mmdet or mmseg.

Its import takes 5-8 seconds and requires a call of `hafabench.engines.dense.operators.install`; `load_mm` of
`hafabench.engines.dense.model` does both. The module registers this project's backbone, neck and transforms with the
root registries of mmengine, where mmdet and mmseg find them. Its runner leaves no files behind.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import tempfile
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

import cv2
import mmdet.datasets
import mmdet.models
import mmdet.registry
import mmseg.datasets
import mmseg.models
import mmseg.registry
import numpy as np
import torch
from mmcv.image import imresize
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.evaluation.metrics import CocoMetric
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset, Compose, pseudo_collate
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DATASETS, LOOPS, MODELS, TRANSFORMS, DefaultScope
from mmengine.runner import BaseLoop, Runner
from mmengine.visualization import Visualizer
from mmseg.datasets.transforms import LoadAnnotations as LoadClassMask
from mmseg.evaluation.metrics import IoUMetric
from torch import nn

from hafabench.data import masks
from hafabench.data.images import UnreadableImage, annotated_size_problem, read_image
from hafabench.engines.dense.backbone import TimmBackbone
from hafabench.engines.dense.coco_ap import average_precisions_and_matches, result_entries
from hafabench.engines.dense.neck import TokenFPN
from hafabench.engines.distributed import World
from hafabench.engines.finite import DENSE_PARTS, finite_outputs
from hafabench.errors import Problem, UserError
from hafabench.files import write_text
from hafabench.results.predictions import Areas, Detections, Matches

# These libraries warn about deprecated functions of each other and about logger names, which users cannot change.
warnings.filterwarnings("ignore", category=UserWarning, module=r"mm(engine|cv|det|seg)\b")

_LIBRARIES = {
    "segmentation": (mmseg, "_base_/models/fpn_r50.py"),
    "detection": (mmdet, "_base_/models/mask-rcnn_r50_fpn.py"),
}

MODELS.register_module(name="TimmBackbone", module=TimmBackbone)
MODELS.register_module(name="TokenFPN", module=TokenFPN)


@contextlib.contextmanager
def scope(task: str) -> Iterator[None]:
    """Look up names in mmseg's or mmdet's registries, regardless of what this process built before."""
    library, _ = _LIBRARIES[task]
    # mmengine writes to the logger that was made last. This logger shows errors only.
    MMLogger.get_instance("hafabench", log_level="ERROR")
    with DefaultScope.overwrite_default_scope(library.__name__):
        yield


def stock_model(task: str) -> dict[str, Any]:
    """Return the library's base configuration of Semantic FPN or Mask R-CNN as plain data."""
    library, file = _LIBRARIES[task]
    return Config.fromfile(Path(library.__file__).parent / ".mim/configs" / file).model.to_dict()


def build_model(task: str, config: dict[str, Any]) -> nn.Module:
    """Build the model of ``config``, whose neck and heads are initialised by the library."""
    library, _ = _LIBRARIES[task]
    with scope(task):
        model = library.registry.MODELS.build(ConfigDict(config))
        if next(model.parameters()).device.type != "meta":
            model.init_weights()
    return model


def build_dataset(task: str, config: dict[str, Any]) -> BaseDataset:
    """Build the data set of ``config`` and read its annotations."""
    library, _ = _LIBRARIES[task]
    # pycocotools writes progress to standard output.
    with scope(task), contextlib.redirect_stdout(io.StringIO()):
        dataset = library.registry.DATASETS.build(ConfigDict(config))
    dataset.pipeline = Transforms(dataset.pipeline.transforms)
    return dataset


class Transforms(Compose):
    """mmengine's sequence of transforms, with an error that names the image that OpenCV cannot transform."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any] | None:
        """Transform the image that ``data`` describes."""
        path = data["img_path"]
        try:
            return super().__call__(data)
        except cv2.error as error:
            height, width = data.get("ori_shape", ("?", "?"))
            message = f"an image of {width} x {height} pixels cannot be resized or cropped as the recipe says"
            raise UnreadableImage(Problem(path, "", f"{message} ({error.err})")) from None


@TRANSFORMS.register_module()
class ReadImage(LoadImageFromFile):
    """mmcv's image reader with the rule of `hafabench.data.images`, which also checks the annotated size."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``img`` (H, W, 3), BGR, uint8, and its shape.

        Raises:
            UnreadableImage: If the file cannot be decoded, or if its annotations give it another size.
        """
        path = results["img_path"]
        decoded = read_image(path)
        if "width" in results:
            problem = annotated_size_problem(path, decoded.size, (results["width"], results["height"]))
            if problem:
                raise UnreadableImage(Problem(str(path), "", problem))
        image = np.asarray(decoded)[..., ::-1]
        results["img"] = np.ascontiguousarray(image)
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results


@TRANSFORMS.register_module()
class AlignSize(BaseTransform):
    """Enlarge each side of a resized image to the next multiple of a number, by bilinear interpolation.

    After mmcv's ``Resize`` with a fixed aspect ratio, the image equals that of ``AlignResize`` in PVT's repository
    (segmentation/align_resize.py): it is interpolated twice, and its aspect ratio may change slightly.

    Args:
        divisor: The number that divides both sides of the result.
    """

    def __init__(self, divisor: int):
        self.divisor = divisor

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize ``img`` (H, W, 3), and update ``img_shape`` and ``scale_factor`` (width, height)."""
        height, width = (math.ceil(side / self.divisor) * self.divisor for side in results["img"].shape[:2])
        results["img"] = imresize(results["img"], (width, height))
        results["img_shape"] = (height, width)
        original_height, original_width = results["ori_shape"]
        results["scale_factor"] = (width / original_width, height / original_height)
        return results


@TRANSFORMS.register_module()
class ReadClassMask(LoadClassMask):
    """mmseg's mask reader with this project's rule for masks (`hafabench.data.masks`).

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_classes = num_classes

    def _load_seg_map(self, results: dict[str, Any]) -> None:
        """Add ``gt_seg_map`` (H, W), classes from 0, and 255 for unlabelled and ignored pixels."""
        path = results["seg_map_path"]
        mask = masks.read_mask(path)
        (height, width), (image_height, image_width) = mask.shape, results["ori_shape"]
        problem = masks.size_problem(path, (width, height), results["img_path"], (image_width, image_height))
        problem = problem or masks.value_problem(path, mask, self.num_classes)
        if problem is not None:
            raise UnreadableImage(problem)
        results["gt_seg_map"] = masks.labels_of(mask)
        results["seg_fields"].append("gt_seg_map")


@DATASETS.register_module()
class ImagesWithMasks(mmseg.datasets.BaseSegDataset):
    """mmseg's data set for the images and masks of a listing. mmseg itself lists images of one suffix, at any depth.

    Args:
        pairs: Each image with its mask.
        options: Options of `BaseSegDataset`.
    """

    def __init__(self, pairs: list[tuple[Path, Path]], **options: Any):
        self._pairs = pairs
        super().__init__(**options)

    def load_data_list(self) -> list[dict[str, Any]]:
        """List the images with their masks."""
        labels = {"label_map": self.label_map, "reduce_zero_label": self.reduce_zero_label}
        return [
            {"img_path": str(image), "seg_map_path": str(mask), **labels, "seg_fields": []}
            for image, mask in self._pairs
        ]


class CocoAp(CocoMetric):
    """COCO's average precisions ``box_ap`` ... ``mask_ap_l`` in percent (see `coco_ap`), collected by mmdet.

    Args:
        outputs: Folder to which the detections are written in COCO's result format.
        options: Options of `CocoMetric`.
    """

    default_prefix = None

    def __init__(self, outputs: Path | None = None, **options: Any):
        super().__init__(**options)
        self._outputs = outputs
        self._matches: dict[str, Matches] = {}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute COCO's average precisions of boxes and of masks."""
        self.cat_ids = self._coco_api.get_cat_ids(cat_names=self.dataset_meta["classes"])
        found: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            files = self.results2json([detection for _, detection in results], str(Path(folder) / "detections"))
            for prefix, kind in (("box", "bbox"), ("mask", "segm")):
                detections = result_entries(json.loads(Path(files[kind]).read_text()), kind)
                if self._outputs is not None:
                    write_text(self._outputs / f"detections.{kind}.json", json.dumps(detections) + "\n")
                values, self._matches[prefix] = average_precisions_and_matches(self._coco_api, detections, kind)
                found |= {f"{prefix}_{name}": value for name, value in values.items()}
        return found

    def predictions(self, _names: list[str]) -> Detections:
        """Return the results of the single images, after `compute_metrics`."""
        truth = self._coco_api
        names = [truth.imgs[image]["file_name"] for image in sorted(truth.get_img_ids())]
        return Detections(np.array(names), **self._matches)


class MeanIoU(IoUMetric):
    """``miou``, ``pixel_acc`` and ``mean_acc`` in percent from mmseg's areas per image, summed exactly."""

    default_prefix = None

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute means over the classes that occur in the truth or, for IoU, in the predictions."""
        # mmseg adds counts in single precision, which is exact only up to 2^24 pixels.
        self._areas = [torch.stack(column).double() for column in zip(*results, strict=True)]
        if not self._areas[3].any():
            raise UserError("no pixel of the validation masks is labelled, so that there is nothing to measure")
        found = self.total_area_to_metrics(*(area.sum(0) for area in self._areas), metrics=self.metrics)
        return {
            "miou": 100 * float(np.nanmean(found["IoU"])),
            "pixel_acc": 100 * float(found["aAcc"]),
            "mean_acc": 100 * float(np.nanmean(found["Acc"])),
        }

    def predictions(self, names: list[str]) -> Areas:
        """Return the areas of the single images, after `compute_metrics`; ``names`` follow the data set's order."""
        intersection, union, _, truth = (area.numpy().astype(np.int64) for area in self._areas)
        return Areas(np.array(names), intersection, union, truth)


class Training(Protocol):
    """The methods that mmengine calls during a training; `DenseTrainer` implements them."""

    def __len__(self) -> int:
        """Return the number of optimiser steps of the whole training."""

    def batches(self, start: int) -> Generator[dict[str, Any]]:
        """Load the batches from step ``start`` to the last step."""

    def begin(self, runner: Runner) -> int:
        """Resume before the first step; return the number of steps already done."""

    def before_step(self, runner: Runner) -> None:
        """Prepare a step."""

    def after_step(self, losses: dict[str, Any]) -> None:
        """Count a step, after its schedules, with the values that the model logs."""


@LOOPS.register_module()
class StepLoop(BaseLoop):
    """A loop over optimiser steps whose batches begin at the step where the training resumes."""

    def __init__(self, runner: Runner, dataloader: Training):
        super().__init__(runner, dataloader)
        self.iter, self.max_iters = 0, len(dataloader)
        # mmengine requires epochs too. Here schedules and batches count steps.
        self.epoch, self.max_epochs = 0, 1

    def run(self) -> nn.Module:
        """Train, and call every hook before and after each step."""
        runner = self.runner
        runner.call_hook("before_train")
        runner.model.train()
        # The generator is closed, because an error's traceback would keep its loading processes alive.
        with contextlib.closing(self.dataloader.batches(self.iter)) as batches:
            for batch in batches:
                runner.call_hook("before_train_iter", batch_idx=self.iter, data_batch=batch)
                outputs = runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
                runner.call_hook("after_train_iter", batch_idx=self.iter, data_batch=batch, outputs=outputs)
                self.iter += 1
        runner.call_hook("after_train")
        return runner.model


class StepCalls(Hook):
    """Calls a `Training` before and after every step."""

    # This runs after mmengine's scheduler hook (LOW), so that a saved state includes the step of the schedules.
    priority = "VERY_LOW"

    def __init__(self, training: Training):
        self._training = training

    def before_train(self, runner: Runner) -> None:
        """Resume the training."""
        runner.train_loop.iter = self._training.begin(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Prepare a step."""
        self._training.before_step(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Count a step.

        Args:
            runner: The runner that calls the hook.
            batch_idx: Number of the step, counted from 0.
            data_batch: The batch of the step.
            outputs: The values that the model logs.
        """
        self._training.after_step(outputs or {})


class QuietRunner(Runner):
    """mmengine's runner without its files and messages; it receives a finished model and loaded batches.

    Args:
        task: Determines the scope in which names are looked up.
        training: Gives the batches and is called at every step.
        world: The processes of the training.
        folder: An empty folder for files that mmengine writes in any case; the caller removes it.
        options: Options of `Runner`.
    """

    _count = 0

    def __init__(self, task: str, training: Training, world: World, folder: str, **options: Any):
        self._world = world
        # mmengine keeps scopes, loggers and hubs by this name until the process ends.
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
        """Return a logger that writes errors to standard error."""
        return MMLogger.get_instance(self._experiment_name, log_level="ERROR")

    def wrap_model(self, _config: dict | None, model: nn.Module) -> nn.Module:
        """Move the model to its device; with several processes, average its gradients."""
        device = self._world.device
        model = model.to(device)
        if self._world.size == 1:
            return model
        # On CPU there are no device_ids, although mmengine would pass one. Batch statistics are not shared.
        devices = [device.index] if device.type == "cuda" else None
        return MMDistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)

    def set_randomness(self, *_arguments: Any, **_options: Any) -> None:
        """Do nothing, because random numbers are seeded at every step."""
        self._seed, self._deterministic = None, False

    def _init_model_weights(self) -> None:
        # The model is already initialised, its backbone from the classification checkpoint.
        pass

    def _log_env(self, env_cfg: dict) -> None:
        pass

    def dump_config(self) -> None:
        """Do nothing, because this project stores the configuration of the run."""


def same_size_collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Make a batch of evaluation samples.

    Raises:
        UserError: If the samples differ in size.
    """
    sizes = {tuple(sample["inputs"].shape[-2:]) for sample in samples}
    if len(sizes) > 1:
        found = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
        raise UserError(f"images of several sizes in one batch ({found}): set eval_batch_size to 1")
    return pseudo_collate(samples)


def metric(task: str, annotations: Path | None = None, outputs: Path | None = None) -> BaseMetric:
    """Return the metric of a task.

    Args:
        task: ``segmentation`` for mean IoU, ``detection`` for COCO's average precisions.
        annotations: The annotation file (detection).
        outputs: Folder to which the metric writes what it measures: detections in COCO's result format, or label
            maps with the values of ADE20K's masks, in which class 0 has the value 1.
    """
    if task == "segmentation":
        return MeanIoU(iou_metrics=["mIoU"], output_dir=None if outputs is None else str(outputs))
    with contextlib.redirect_stdout(io.StringIO()):
        return CocoAp(outputs, ann_file=str(annotations), metric=["bbox", "segm"])


@torch.inference_mode()
def evaluate(model: Any, dataset: BaseDataset, batches: Generator[Any], metric: BaseMetric) -> dict[str, float]:
    """Evaluate a model on a data set.

    Args:
        model: A segmentor or detector in evaluation mode.
        dataset: Gives the classes and the number of images.
        batches: All batches of the data set; the generator is closed at the end.
        metric: Computes the values.

    Returns:
        The metric's values, without those that are not defined.

    Raises:
        UserError: If the model cannot process an image, with the names of its batch.
    """
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = dataset.metainfo
    with contextlib.closing(batches), finite_outputs(model, *DENSE_PARTS):
        for batch in batches:
            try:
                results = model.test_step(batch)
            except UserError as error:
                places = ", ".join(sample.img_path for sample in batch["data_samples"])
                raise UserError([Problem(places, "", str(problem)) for problem in error.problems]) from None
            evaluator.process(data_samples=results, data_batch=batch)
    found = evaluator.evaluate(len(dataset))
    return {name: value for name, value in found.items() if math.isfinite(value)}


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model without its distributed wrapper."""
    return model.module if isinstance(model, MMDistributedDataParallel) else model
