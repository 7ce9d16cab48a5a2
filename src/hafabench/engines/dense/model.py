"""The models of dense runs: Semantic FPN and Mask R-CNN on the backbones of the catalog."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import nn

from hafabench.config.catalog import ModelSpec
from hafabench.config.recipes import DenseRecipe
from hafabench.engines.dense import operators
from hafabench.engines.dense.config import dense_recipe, fill_model
from hafabench.models import create
from hafabench.runs.run import Run


def load_mm() -> ModuleType:
    """Import `hafabench.engines.dense.mm` after providing mmcv's operators; the first call takes seconds."""
    operators.install()
    from hafabench.engines.dense import mm

    return mm


def create_model(run: Run) -> nn.Module:
    """Build the run's model with random weights, on the current device."""
    return build_dense_model(run.model, run.task, run.dataset.num_classes, dense_recipe(run))


def build_dense_model(
    spec: ModelSpec, task: str, num_classes: int, recipe: DenseRecipe | None = None, *, sync_norm: bool = False
) -> nn.Module:
    """Build Semantic FPN or Mask R-CNN with random weights; under ``torch.device("meta")`` nothing is allocated.

    Args:
        spec: The model of the backbone.
        task: ``segmentation`` or ``detection``.
        num_classes: Number of classes of the head.
        recipe: The recipe of a run. With None the heads are those of the libraries, with their initialisation and
            without drop path.
        sync_norm: Whether batch statistics are shared by all processes, if mmseg's configurations do that.

    Raises:
        UserError: If the model has no feature pyramid.
    """
    mm = load_mm()
    with torch.device("meta"):
        backbone = create(spec, dense=True)
    config = fill_model(
        mm.stock_model(task), spec, task, num_classes, list(backbone.channels), recipe, sync_norm=sync_norm
    )
    model = mm.build_model(task, config)
    if recipe is not None and recipe.new_layer_init == "xavier":
        initialise_new_layers(model)
    return model


def initialise_new_layers(model: nn.Module) -> None:
    """Initialise every convolution and linear layer outside of ``model.backbone`` by Xavier (uniform), biases by 0.

    Glorot and Bengio, *Understanding the difficulty of training deep feedforward neural networks*, AISTATS 2010.
    Norms keep their weights of 1 and biases of 0.
    """
    for name, module in model.named_modules():
        weight, bias = (getattr(module, key, None) for key in ("weight", "bias"))
        # Weights of fewer than two dimensions are those of norms.
        if name.partition(".")[0] == "backbone" or not isinstance(weight, nn.Parameter) or weight.ndim < 2:
            continue
        nn.init.xavier_uniform_(weight)
        if bias is not None:
            nn.init.zeros_(bias)
