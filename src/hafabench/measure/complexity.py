"""Parameters and multiply-accumulates (MACs) of every row of the tables, at full size, without allocating a model.

Models are built and run on torch's meta device, whose tensors have shapes but no memory. All rows are counted by the
same convention, `CONVENTION`. docs/measurement.md explains which of the paper's printed figures follow another one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torchvision.ops  # noqa: F401 (registers torch.ops.torchvision.deform_conv2d)
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from hafabench.config.catalog import ModelSpec
from hafabench.config.experiment import Experiment, unknown_model
from hafabench.config.metrics import METRICS
from hafabench.config.recipes import Task
from hafabench.errors import UserError
from hafabench.results.provenance import Stopwatch
from hafabench.results.record import Metric, Record, write_record
from hafabench.runs.fingerprints import complexity_fingerprint, complexity_models
from hafabench.runs.paths import complexity_record

CONVENTION = (
    "multiply-accumulates of convolutions (deformable and offset ones too), linear layers and attention products "
    "(QK, AV); no bias, norms, softmax, distances, interpolation"
)

# Numbers of regions on which Mask R-CNN's heads are counted, as in mmdet's test settings: proposals kept after the
# RPN, and detections kept per image, for which masks are predicted.
PROPOSALS = 1000
MASKS = 100


@dataclass(frozen=True)
class Complexity:
    """The size of a model.

    Attributes:
        params: All parameters including heads, without buffers.
        params_trainable: Parameters that training changes (mmdet freezes stem and first stage of a ResNet).
        gmacs: 10^9 multiply-accumulates for one image by `CONVENTION`.
    """

    params: int
    params_trainable: int
    gmacs: float


def count(model: nn.Module, image_size: tuple[int, int], in_chans: int = 3) -> Complexity:
    """Count a model on one image, in evaluation mode.

    The model may be on any device. During the count its weights are replaced by meta tensors, so that nothing is
    computed. Afterwards the model is as before.

    Args:
        model: A model of image batches (B, ``in_chans``, H, W).
        image_size: (H, W), pixels.
        in_chans: Channels of the image.
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


def _deform_conv2d_flops(
    _image: Any, weight: Sequence[int], *_arguments: Any, out_shape: Sequence[int], **_options: Any
) -> int:
    """Count a deformable convolution like a plain one of the same kernel and output; arguments are shapes."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


_EXTRA_FORMULAS = {torch.ops.torchvision.deform_conv2d: _deform_conv2d_flops}


def count_model(spec: ModelSpec, task: str, image_size: tuple[int, int], num_classes: int) -> Complexity:
    """Build a row of the tables on the meta device, with the task's head, and count it.

    Args:
        spec: The model.
        task: ``classification`` (the model with its classifier), ``segmentation`` (Semantic FPN with neck and head)
            or ``detection`` (Mask R-CNN with neck, RPN, and heads on `PROPOSALS` and `MASKS` regions).
        image_size: (H, W), pixels.
        num_classes: Number of classes of the head.

    Raises:
        UserError: If the model does not accept the image size.
    """
    model = build_on_meta(spec, task, num_classes)
    try:
        return count(model, image_size)
    except (AssertionError, RuntimeError) as error:
        # On the meta device only shapes can cause an error.
        size = " x ".join(str(side) for side in image_size)
        raise UserError(f"model {spec.name!r} cannot take images of {size} pixels: {error}") from error


def build_on_meta(spec: ModelSpec, task: str, num_classes: int) -> nn.Module:
    """Build a row of the tables with the task's head on the meta device; detectors have a fixed number of regions.

    Args:
        spec: The model.
        task: See `count_model`.
        num_classes: Number of classes of the head.
    """
    with torch.device("meta"):
        if task == "classification":
            from hafabench.models import create

            return create(spec, num_classes=num_classes)
        # This import takes seconds, and classifiers do not need it.
        from hafabench.engines.dense.model import build_dense_model

        model = build_dense_model(spec, task, num_classes)
    return _DetectorForward(model) if task == "detection" else model


class _DetectorForward(nn.Module):
    """The forward pass of a two-stage detector with a fixed number of regions, whose cost does not depend on data.

    RoIAlign is interpolation, which `CONVENTION` does not count. The heads receive regions of the right shape
    instead.
    """

    def __init__(self, detector: nn.Module):
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Any, Any, Any]:
        """Return the outputs of RPN, box head and mask head for an image (1, 3, H, W)."""
        detector: Any = self.detector
        maps = detector.extract_feat(image)
        regions = detector.rpn_head(maps)
        roi_head = detector.roi_head
        boxes = roi_head.bbox_head(_regions(maps, PROPOSALS, roi_head.bbox_roi_extractor))
        masks = roi_head.mask_head(_regions(maps, MASKS, roi_head.mask_roi_extractor))
        return regions, boxes, masks


def _regions(maps: tuple[Tensor, ...], number: int, extractor: Any) -> Tensor:
    height, width = extractor.roi_layers[0].output_size
    return maps[0].new_empty(number, extractor.out_channels, height, width)


def dead_weights(spec: ModelSpec, task: str) -> int:
    """Return the number of unused weights in the authors' published class of this row, which Tables 2 and 3 count.

    Only the class of SIA with its own key/value path has them (SIA after a grid, not after another SIA).
    """
    published = spec.fidelity == "published_code" and spec.mergers[3] == "sia" and spec.mergers[2] != "sia"
    if not published:
        return 0
    from hafabench.models import family_of

    return family_of(spec).dead_weights.get(task, 0)


def metrics(specs: Iterable[ModelSpec], task: Task, image_size: tuple[int, int], num_classes: int) -> list[Metric]:
    """Count several models, as metrics of a record.

    Args:
        specs: The models.
        task: See `count_model`.
        image_size: (H, W), pixels.
        num_classes: Number of classes of the head.

    Returns:
        For each model ``params``, ``params_trainable``, ``params_with_dead_weights`` (unit 1) and ``gmacs`` (GMAC).

    Raises:
        UserError: If a model does not accept the image size.
    """
    found = []
    for spec in specs:
        size = count_model(spec, task, image_size, num_classes)
        dead = dead_weights(spec, task)
        for name, value, convention in (
            ("params", size.params, "all parameters, heads included"),
            ("params_trainable", size.params_trainable, "parameters that training changes, heads included"),
            (
                "params_with_dead_weights",
                size.params + dead,
                f"params and {dead} the published class never uses",
            ),
            ("gmacs", size.gmacs, _gmacs_convention(task, image_size)),
        ):
            unit = METRICS[name].unit
            found.append(Metric(task=task, model=spec.name, name=name, value=value, unit=unit, convention=convention))
    return found


def _gmacs_convention(task: str, image_size: tuple[int, int]) -> str:
    height, width = image_size
    regions = f"; heads on {PROPOSALS} proposals and {MASKS} masks" if task == "detection" else ""
    return f"one image of {height}x{width} (height x width); {CONVENTION}{regions}"


def table_rows(experiment: Experiment, names: list[str], task: Task, style: Literal["csv", "text"]) -> Iterator[str]:
    """Yield lines for the command line: a heading, then one line per model as soon as it is counted.

    Args:
        experiment: Gives image sizes, class counts and models.
        names: Names of the models. An empty list selects all models that the tables need for ``task``.
        task: See `count_model`.
        style: ``csv`` (``model,params,gmacs``) or ``text`` (aligned, with the trainable parameters).

    Raises:
        UserError: If names are unknown; then nothing is counted.
    """
    specs = _select_models(experiment, names) if names else complexity_models(experiment, task)
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


def _select_models(experiment: Experiment, names: list[str]) -> list[ModelSpec]:
    problems = [unknown_model(name, experiment.models) for name in names if name not in experiment.models]
    if problems:
        raise UserError(problems)
    return [experiment.models[name] for name in names]


def record_complexity(experiment: Experiment, task: Task) -> Record:
    """Count every model that the tables need for ``task`` and write the record."""
    watch = Stopwatch(experiment)
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
