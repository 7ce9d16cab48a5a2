"""How a trained classifier learns to drop tokens: DynamicViT's objective.

Rao et al., *DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification*, NeurIPS 2021, section 3.3.
The classifier gives the starting weights of what it has in common with the model, and imitates itself: it is the
teacher, evaluated on the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hafabench.engines.classification.objective import Objective
from hafabench.errors import Problem, UserError
from hafabench.models.token_pruning import Masked
from hafabench.runs.run import Run

Outputs = tuple[torch.Tensor, torch.Tensor]


class PruningObjective(Objective):
    """Classification, the share of tokens kept, and the teacher's outputs, weighted as the recipe says.

    The loss is the criterion on the logits; plus ``ratio_weight`` times `ratio_loss`; plus ``distillation_weight``
    times the divergence of the class probabilities from the teacher's; plus ``token_weight`` times the difference to
    the teacher in the tokens: `kept_divergence` of LV-ViT's token classifier, the mean square of Swin's features.

    Args:
        run: of a model with keep rates, whose recipe has a part ``token_pruning``.
        model: to be trained; takes over the teacher's weights.
        criterion: of logits and labels.
        teacher: the trained classifier, on the model's device.

    Raises:
        UserError: for a teacher that is another architecture.
    """

    def __init__(self, run: Run, model: nn.Module, criterion: nn.Module, teacher: nn.Module):
        super().__init__(model, criterion)
        self.recipe = run.recipe.token_pruning
        _start_from(teacher, model, run)
        family = _FAMILIES[run.model.family]
        # In a function, not among the modules: a teacher is neither trained nor shared nor saved.
        self._teach = partial(family.teach, teacher.eval().requires_grad_(False))
        self._token_loss = family.token_loss
        new = {id(parameter) for module in model.new_modules() for parameter in module.parameters()}
        self.backbone = tuple(parameter for parameter in model.parameters() if id(parameter) not in new)
        self.backbone_lr_share = self.recipe.backbone_lr_share
        self._batch_norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        self._frozen = False
        decay = self.recipe.ema_decay
        # In a list, for it is no part of what is trained.
        self._averages = [] if decay is None else [ModelEmaV3(model, decay=decay)]

    @property
    def average(self) -> nn.Module | None:
        return self._averages[0].module if self._averages else None

    def begin_step(self, epoch: int) -> None:
        """In the first epochs only the new parts learn; batch statistics, which no gradient moves, rest as well."""
        self._frozen = epoch < self.recipe.frozen_epochs
        for norm in self._batch_norms:
            norm.train(not self._frozen)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of images (B, 3, H, W) and labels, (B,) or soft ones (B, classes)."""
        masked: Masked = self.model.forward_masked(images)
        with torch.no_grad():
            logits, tokens = self._teach(images)
        recipe = self.recipe
        loss = self.criterion(masked.logits, labels)
        loss = loss + recipe.ratio_weight * ratio_loss(masked.decisions, self.model.keep)
        loss = loss + recipe.distillation_weight * divergence(masked.logits, logits).mean()
        return loss + recipe.token_weight * self._token_loss(masked, tokens)

    def before_update(self) -> None:
        """Drop the gradients of what is frozen: weight decay and moments then leave it alone too."""
        # Not by requires_grad, which several processes would have to know before their first step.
        if self._frozen:
            for parameter in self.backbone:
                parameter.grad = None

    def after_update(self) -> None:
        """Take the new weights into the average."""
        for average in self._averages:
            average.update(self.model)


def ratio_loss(decisions: Sequence[torch.Tensor], rates: Sequence[float]) -> torch.Tensor:
    """Mean over predictors and images of the squared difference between the shares of tokens kept and wanted.

    Args:
        decisions: per predictor (B, N), 1 for tokens kept.
        rates: per predictor, of the N tokens.
    """
    misses = [(kept.mean(dim=1) - rate).square().mean() for kept, rate in zip(decisions, rates, strict=True)]
    return torch.stack(misses).mean()


def divergence(logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of the probabilities (..., classes) from the teacher's: (...), temperature 1."""
    own, theirs = logits.float().log_softmax(dim=-1), teacher.float().log_softmax(dim=-1)
    return F.kl_div(own, theirs, reduction="none", log_target=True).sum(dim=-1)


def kept_divergence(masked: Masked, teacher: torch.Tensor) -> torch.Tensor:
    """`divergence` of the token logits (B, N, classes), mean over the tokens that the last decision keeps."""
    kept = masked.decisions[-1].detach()
    # By a product instead of a selection: with no token kept, every weight still has its gradient, zero.
    return (divergence(masked.tokens, teacher) * kept).sum() / kept.sum().clamp(min=1)


def feature_error(masked: Masked, teacher: torch.Tensor) -> torch.Tensor:
    """Mean square of the difference between the features (B, H, W, C)."""
    return F.mse_loss(masked.tokens.float(), teacher.float())


@dataclass(frozen=True)
class _Family:
    """What differs between families: the teacher's (logits, tokens) of images, and the loss of the tokens."""

    teach: Callable[[nn.Module, torch.Tensor], Outputs]
    token_loss: Callable[[Masked, torch.Tensor], torch.Tensor]


def _lvvit_outputs(teacher: nn.Module, images: torch.Tensor) -> Outputs:
    return teacher.classify(teacher.forward_features(images))


def _swin_outputs(teacher: nn.Module, images: torch.Tensor) -> Outputs:
    features = teacher.forward_features(images)
    return teacher.forward_head(features), features


_FAMILIES = {
    "dynamicvit": _Family(_lvvit_outputs, kept_divergence),
    "dynamic_swin": _Family(_swin_outputs, feature_error),
}


def _start_from(teacher: nn.Module, model: nn.Module, run: Run) -> None:
    """Copy the teacher's weights into what ``model`` has in common with it, which is everything but its new parts."""
    weights, own = teacher.state_dict(), model.state_dict()
    new = {name for name, module in model.named_modules() if any(module is part for part in model.new_modules())}
    expected = {name for name in own if not any(name.startswith(f"{part}.") for part in new)}
    if weights.keys() != expected or any(weights[name].shape != own[name].shape for name in expected):
        message = f"{run.recipe.token_pruning.teacher!r} is no classifier that {run.model.name!r} can start from"
        raise UserError(Problem(run.id, "token_pruning.teacher", message))
    model.load_state_dict(weights, strict=False)
