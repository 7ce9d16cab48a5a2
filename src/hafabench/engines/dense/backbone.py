"""The backbone of a dense model: this project's models as mmseg and mmdet use them, and their starting weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hafabench.config.catalog import ModelSpec
from hafabench.engines.trained import read_final
from hafabench.errors import Problem, UserError
from hafabench.files import sha256_of
from hafabench.formatting.names import join_names
from hafabench.models import DenseBackbone, create
from hafabench.models.checkpoints.classifier import load_classifier
from hafabench.models.checkpoints.foreign import ForeignWeights
from hafabench.models.checkpoints.storage import expect_meta
from hafabench.models.hafa.tokens import Tokens
from hafabench.runs.run import Run
from hafabench.runs.weights import StartingWeights


class TimmBackbone(nn.Module):
    """A model of this project as a backbone of mmseg and mmdet.

    Args:
        spec: The fields of a `ModelSpec`.
        drop_path: Stochastic depth rate of the last block.
        as_tokens: Whether the stages are returned as `Tokens` (for `TokenFPN`) instead of maps (B, C, h, w).
        frozen: Modules of timm's model that are not trained. If there are any, all batch norms keep their statistics.
    """

    body: DenseBackbone

    def __init__(self, spec: dict[str, Any], drop_path: float, as_tokens: bool, frozen: Sequence[str] = ()):
        super().__init__()
        self.body = create(ModelSpec(**spec), dense=True, drop_path_rate=drop_path)
        self.as_tokens, self.frozen = as_tokens, bool(frozen)
        for name in frozen:
            self.get_submodule(f"body.body.{name}").requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | list[Tokens]:
        """Compute the features of the four stages from images (B, 3, H, W)."""
        return self.body.forward_tokens(x) if self.as_tokens else tuple(self.body.forward_maps(x))

    def train(self, mode: bool = True) -> TimmBackbone:
        """Set training mode; frozen batch norms stay in evaluation mode."""
        super().train(mode)
        if self.frozen:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def initialise_backbone(backbone: nn.Module, run: Run, *, verbose: bool) -> dict[str, Any]:
    """Copy the weights of ``run.parent``'s final checkpoint, or the published weights of ``run``, into ``backbone``.

    Args:
        backbone: A model made by `hafabench.models.create` with ``dense=True``.
        run: The dense run.
        verbose: Whether to print which weights were copied.

    Returns:
        ``run``, ``path`` and ``sha256`` of the checkpoint; ``missing``: names that only the backbone has;
        ``unexpected``: names that only the checkpoint has (the classifier's head). For published weights ``file``,
        ``sha256`` and ``read``: which part was read and how its names were translated.

    Raises:
        UserError: If the checkpoint belongs to another run or model, a tensor has another shape, or the two have no
            tensor in common; also if the published weights are not those of the run.
    """
    if run.weights is not None:
        return _initialise_from_weights(backbone, run, run.weights, verbose=verbose)
    parent = run.parent
    if parent is None:
        raise UserError(Problem(run.id, "parent", "a dense run starts from a classification run; found none"))
    path = parent.checkpoint
    content = read_final(parent, path)
    expect_meta(path, content, task=parent.task, model=run.model.name, fingerprint=parent.fingerprint)
    try:
        report = load_classifier(backbone, content.get("state_dict") or {})
    except UserError as error:
        raise UserError([Problem(str(path), "state_dict", str(problem)) for problem in error.problems]) from None
    if verbose:
        print(
            f"{run.id}: backbone starts from {path}; missing in the checkpoint: {join_names(report.missing)}; "
            f"not used: {join_names(report.unexpected)}",
            file=sys.stderr,
        )
    return {
        "run": parent.id,
        "path": str(path),
        "sha256": sha256_of(path),
        "missing": list(report.missing),
        "unexpected": list(report.unexpected),
    }


def _initialise_from_weights(
    backbone: nn.Module, run: Run, published: StartingWeights, *, verbose: bool
) -> dict[str, Any]:
    weights = ForeignWeights(published.file, published.part, published.renames)
    digest = sha256_of(published.file)
    if digest != published.sha256:
        message = f"the file changed while the training started: expected sha256 {published.sha256}, found {digest}"
        raise UserError(Problem(str(published.file), "", message))
    weights.fill_backbone(backbone, run.model)
    if verbose:
        print(f"{run.id}: backbone starts from {published.file}; read: {weights.read}", file=sys.stderr)
    return {"file": str(published.file), "sha256": digest, "read": weights.read}
