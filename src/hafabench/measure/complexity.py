"""Parameters and multiply-accumulates (MACs) of every row of the tables, at full size, without allocating a model.

Models are built and run on torch's meta device, where tensors have shapes and no memory. One convention serves every
row, `CONVENTION`; docs/measurement.md says where the paper's printed figures follow another one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torchvision.ops  # noqa: F401 (registers torch.ops.torchvision.deform_conv2d)
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from hafabench.config.catalog import ModelSpec
from hafabench.config.experiment import Experiment, unknown_model
from hafabench.config.metrics import METRICS
from hafabench.errors import UserError
from hafabench.results.provenance import Stopwatch
from hafabench.results.record import Metric, Record, write_record
from hafabench.runs.fingerprints import complexity_fingerprint, complexity_models
from hafabench.runs.paths import complexity_record

CONVENTION = (
    "multiply-accumulates of convolutions (deformable and offset ones too), linear layers and attention products "
    "(QK, AV); no bias, norms, softmax, distances, interpolation"
)

# What Mask R-CNN's heads are counted on, whatever the image: mmdet's test settings (proposals kept after the RPN,
# detections kept per image and so masks predicted).
PROPOSALS = 1000
MASKS = 100


@dataclass(frozen=True)
class Complexity:
    """The size of a model.

    Attributes:
        params: all parameters, heads included; buffers do not count.
        params_trainable: those that training changes (mmdet freezes stem and first stage of a ResNet).
        gmacs: 10^9 multiply-accumulates for one image, under `CONVENTION`.
    """

    params: int
    params_trainable: int
    gmacs: float


def count(model: nn.Module, image_size: tuple[int, int], in_chans: int = 3) -> Complexity:
    """Count a model on one image, in evaluation mode.

    The model may lie on any device; its weights are replaced by meta tensors during the count, so that nothing is
    computed, and it is left as it was.

    Args:
        model: takes an image batch (B, ``in_chans``, H, W).
        image_size: (H, W), pixels.
        in_chans: channels of the image.
    """
    state = {name: tensor.to("meta") for name, tensor in _state(model)}
    image = torch.empty(1, in_chans, *image_size, device="meta")
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_EXTRA_FORMULAS) as counter:
            functional_call(model, state, (image,))
    finally:
        for module, training in modes.items():
            module.training = training
    parameters = list(model.parameters())
    return Complexity(
        params=sum(p.numel() for p in parameters),
        params_trainable=sum(p.numel() for p in parameters if p.requires_grad),
        gmacs=counter.get_total_flops() / 2 / 1e9,
    )


def _state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _deform_conv2d_flops(_image, weight, *_arguments, out_shape, **_options) -> int:
    """A deformable convolution multiplies as often as a plain one of the same kernel and output."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


_EXTRA_FORMULAS = {torch.ops.torchvision.deform_conv2d: _deform_conv2d_flops}


def count_model(spec: ModelSpec, task: str, image_size: tuple[int, int], num_classes: int) -> Complexity:
    """Build a row of the tables on the meta device, with the task's head, and count it.

    Args:
        spec: the model.
        task: ``classification`` (the model with its classifier), ``segmentation`` (Semantic FPN: with neck and head)
            or ``detection`` (Mask R-CNN: with neck, RPN and, on `PROPOSALS` and `MASKS` regions, the heads).
        image_size: (H, W), pixels.
        num_classes: classes that the head predicts.

    Raises:
        UserError: for a size that the model cannot take.
    """
    model = build_on_meta(spec, task, num_classes)
    try:
        return count(model, image_size)
    except (AssertionError, RuntimeError) as error:
        # On the meta device there is nothing but shapes to go wrong.
        size = " x ".join(str(side) for side in image_size)
        raise UserError(f"model {spec.name!r} cannot take images of {size} pixels: {error}") from error


def build_on_meta(spec: ModelSpec, task: str, num_classes: int) -> nn.Module:
    """A row of the tables with the task's head, without memory; a detector's forward pass has a fixed cost."""
    with torch.device("meta"):
        if task == "classification":
            from hafabench.models import create

            return create(spec, num_classes=num_classes)
        # Seconds of import time that counting a classifier does not need.
        from hafabench.engines.dense.model import build_dense_model

        model = build_dense_model(spec, task, num_classes)
    return _DetectorForward(model) if task == "detection" else model


class _DetectorForward(nn.Module):
    """A two-stage detector's forward pass with a fixed number of regions, so that its cost does not depend on data.

    RoIAlign is interpolation and costs nothing under `CONVENTION`: the heads get regions of the right shape instead.
    """

    def __init__(self, detector: nn.Module):
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple:
        detector = self.detector
        maps = detector.extract_feat(image)
        regions = detector.rpn_head(maps)
        roi_head = detector.roi_head
        boxes = roi_head.bbox_head(_regions(maps, PROPOSALS, roi_head.bbox_roi_extractor))
        masks = roi_head.mask_head(_regions(maps, MASKS, roi_head.mask_roi_extractor))
        return regions, boxes, masks


def _regions(maps: tuple[Tensor, ...], number: int, extractor: nn.Module) -> Tensor:
    height, width = extractor.roi_layers[0].output_size
    return maps[0].new_empty(number, extractor.out_channels, height, width)


def dead_weights(spec: ModelSpec, task: str) -> int:
    """Weights that the authors' published class of this row holds beside the live ones, and Tables 2 and 3 count.

    Only the class of SIA with its own key/value path has them (SIA after a grid, not after another SIA).
    """
    published = spec.fidelity == "published_code" and spec.mergers[3] == "sia" and spec.mergers[2] != "sia"
    if not published:
        return 0
    from hafabench.models import family_of

    return family_of(spec).dead_weights.get(task, 0)


def metrics(
    specs: Iterable[ModelSpec],
    task: Literal["classification", "segmentation", "detection"],
    image_size: tuple[int, int],
    num_classes: int,
) -> list[Metric]:
    """Complexity of several models as metrics of a record.

    Per model ``params``, ``params_trainable``, ``params_with_dead_weights`` (unit 1) and ``gmacs`` (GMAC); arguments
    and errors are those of `count_model`.
    """
    found = []
    for spec in specs:
        size = count_model(spec, task, image_size, num_classes)
        dead = dead_weights(spec, task)
        for name, value, convention in (
            ("params", size.params, "all parameters, heads included"),
            ("params_trainable", size.params_trainable, "parameters that training changes, heads included"),
            ("params_with_dead_weights", size.params + dead, f"params and {dead} the published class never uses"),
            ("gmacs", size.gmacs, _gmacs_convention(task, image_size)),
        ):
            unit = METRICS[name].unit
            found.append(Metric(task=task, model=spec.name, name=name, value=value, unit=unit, convention=convention))
    return found


def _gmacs_convention(task: str, image_size: tuple[int, int]) -> str:
    height, width = image_size
    regions = f"; heads on {PROPOSALS} proposals and {MASKS} masks" if task == "detection" else ""
    return f"one image of {height}x{width} (height x width); {CONVENTION}{regions}"


def table_rows(experiment: Experiment, names: list[str], task: str, style: Literal["csv", "text"]) -> Iterator[str]:
    """Lines for the command line: a heading, then one line per model as soon as it is counted.

    Args:
        experiment: gives sizes, class counts and the models known by name.
        names: of the models; none means all that the tables need for ``task``.
        task: see `count_model`.
        style: ``csv`` (``model,params,gmacs``) or ``text`` (aligned, with the trainable parameters).

    Raises:
        UserError: with every unknown name, before anything is counted.
    """
    specs = _named(experiment, names) if names else complexity_models(experiment, task)
    config = experiment.config.complexity
    image_size, num_classes = config.image_size[task], config.num_classes[task]
    if style == "csv":
        yield "model,params,gmacs"
    else:
        width = max((len(spec.name) for spec in specs), default=0)
        yield f"{'model':{width}}  {'params':>11}  {'trainable':>11}  {'GMACs':>8}"
    for spec in specs:
        size = count_model(spec, task, image_size, num_classes)
        if style == "csv":
            yield f"{spec.name},{size.params},{size.gmacs:.6f}"
        else:
            yield f"{spec.name:{width}}  {size.params:>11,}  {size.params_trainable:>11,}  {size.gmacs:8.3f}"


def _named(experiment: Experiment, names: list[str]) -> list[ModelSpec]:
    problems = [unknown_model(name, experiment.models) for name in names if name not in experiment.models]
    if problems:
        raise UserError(problems)
    return [experiment.models[name] for name in names]


def record_complexity(experiment: Experiment, task: str) -> Record:
    """Count every model that the tables need for ``task`` and write the record."""
    watch = Stopwatch()
    config = experiment.config.complexity
    models = complexity_models(experiment, task)
    counted = metrics(models, task, config.image_size[task], config.num_classes[task])
    record = Record(
        experiment=experiment.name,
        scale=experiment.config.scale,
        verb="complexity",
        id=f"complexity/{task}",
        fingerprint=complexity_fingerprint(experiment, task),
        metrics=counted,
        provenance=watch.provenance(device="meta", threads=1),
    )
    write_record(complexity_record(experiment, task), record)
    return record
