"""Loading the weights of a classifier into the backbone of a dense task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from hafabench.errors import UserError
from hafabench.models.checkpoints.digest import is_plain
from hafabench.models.checkpoints.storage import is_finite, tensor_problem
from hafabench.models.dense_backbone import TimmDenseBackbone
from hafabench.models.pyramid import Stage, resize_positions


@dataclass(frozen=True)
class LoadReport:
    """Names without a counterpart.

    Attributes:
        missing: Names that only the backbone has.
        unexpected: Names that only the classifier has: its head and class token.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def load_classifier(backbone: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> LoadReport:
    """Load the weights of a classifier into a backbone that was created with ``dense=True``.

    Position embeddings are resized if they were made for another image size.

    Raises:
        UserError: If the weights belong to another model: a shape or a data type differs, or no name is shared. Also
            if values are not finite.
    """
    target = undecorated(backbone)
    weights = dict(state_dict)
    for name, value in weights.items():
        if not isinstance(value, torch.Tensor) or not is_plain(value):
            raise UserError(f"{name}: expected a dense tensor with values, found {type(value).__name__}")
        if not is_finite(value):
            raise UserError(f"{name}: some values are not finite (NaN or infinity)")
    resize_position_embeddings(target, weights)
    own = target.state_dict()
    shared = own.keys() & weights.keys()
    if not shared:
        raise UserError("weights of another model: they have no name in common with this backbone")
    for name in sorted(shared):
        problem = tensor_problem(own[name], weights[name])
        if problem:
            raise UserError(f"weights of another model: {name}: {problem}")
    target.load_state_dict({name: weights[name] for name in shared}, strict=False)
    return LoadReport(tuple(sorted(own.keys() - shared)), tuple(sorted(weights.keys() - shared)))


def undecorated(backbone: nn.Module) -> nn.Module:
    """Return the module of a backbone whose parameters have the names of the classifier's."""
    return backbone.body if isinstance(backbone, TimmDenseBackbone) else backbone


def resize_position_embeddings(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Resize the position embeddings among ``weights`` to those of ``model``, if they are of another image size."""
    for name, stage in model.named_modules():
        key = f"{name}.pos_embed"
        if not isinstance(stage, Stage) or stage.pos_grid is None or key not in weights:
            continue
        positions = stage.pos_grid[0] * stage.pos_grid[1]
        extra = stage.pos_embed.shape[1] - positions
        given = weights[key]
        # Tensors that cannot be position embeddings are refused later, by their shapes or their kinds of numbers.
        if given.ndim != 3 or given.shape[1] <= extra or not given.is_floating_point():
            continue
        side = round((given.shape[1] - extra) ** 0.5)
        if given.shape[1] == positions + extra or side * side + extra != given.shape[1]:
            continue
        resized = resize_positions(given[:, extra:], (side, side), stage.pos_grid)
        weights[key] = torch.cat((given[:, :extra], resized), dim=1)
