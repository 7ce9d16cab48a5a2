"""A pair of runs that are small enough to train in a test: a teacher, and a token-dropping model that learns from it.

The module is also a program that trains the second run of a pair, so that tests can start several processes:
``python -m tests.support.tiny_pruning FOLDER IMAGES FAMILY '{"epochs": 2}'``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timm.models import register_model
from timm.models.swin_transformer import SwinTransformer

from hafabench.config.catalog import ModelSpec
from hafabench.engines import classification
from hafabench.engines.sampling import Stream, seed_everything
from hafabench.engines.trained import identity
from hafabench.models import dynamic_swin, dynamicvit, lvvit
from hafabench.models.checkpoints.storage import save_checkpoint
from hafabench.runs.run import Run
from tools.tiny_runs.classification import ALL_MODELS, tiny_run

_LVVIT = {"embed_dim": 24, "depth": 4, "num_heads": 2, "mlp_ratio": 2.0}
_SWIN = {"embed_dim": 12, "depths": (1, 1, 5, 1), "num_heads": (1, 2, 2, 4), "window_size": 2}
lvvit.ARCHITECTURES["tiny_lvvit"] = dynamicvit.ARCHITECTURES["tiny_dynamicvit"] = _LVVIT
dynamic_swin.ARCHITECTURES["tiny_dynamic_swin"] = _SWIN
_STUDENTS = {"dynamicvit": "tiny_lvvit", "dynamic_swin": "tiny_swin"}
for _spec in (
    ModelSpec("tiny_lvvit", "lvvit", "tiny", "tiny_lvvit"),
    ModelSpec("tiny_swin", "swin", "tiny", "tiny_swin"),
    ModelSpec("tiny_dynamicvit", "dynamicvit", "tiny", "tiny_dynamicvit", keep=(0.5, 0.25, 0.125)),
    ModelSpec("tiny_dynamic_swin", "dynamic_swin", "tiny", "tiny_dynamic_swin", keep=(0.25, 0.25, 0.25)),
):
    ALL_MODELS[_spec.name] = _spec

PRUNING = {
    "ratio_weight": 2.0,
    "distillation_weight": 0.5,
    "token_weight": 0.5,
    "backbone_lr_share": 0.1,
    "frozen_epochs": 1,
    "ema_decay": 0.9,
}


@register_model
def tiny_swin(pretrained: bool = False, **kwargs: Any) -> SwinTransformer:
    for from_timm in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        kwargs.pop(from_timm, None)
    return SwinTransformer(**{**_SWIN, **kwargs})


def tiny_pair(
    folder: Path, family: str, *, images: Path, pruning: dict[str, Any] | None = None, **changes: Any
) -> Run:
    """A run of a model that drops tokens; its parent has a final checkpoint of random weights already.

    Args:
        family: ``dynamicvit`` or ``dynamic_swin``.
        pruning: changes of the recipe's part ``token_pruning``; ``changes`` are those of its other values.
    """
    changes = {"image_size": 64, **changes}
    teacher = _STUDENTS[family]
    parent = tiny_run(folder / "parent", images=images, model=teacher, image_size=changes["image_size"])
    if not parent.checkpoint.exists():
        # Not the seed of the run, which would begin with these very weights.
        seed_everything(parent.seed + 1, Stream.WEIGHTS)
        model = classification.create_model(parent)
        meta = {**identity(parent), "training": {}}
        save_checkpoint(parent.checkpoint, {"state_dict": model.state_dict(), "meta": meta})
    part = {"teacher": teacher, **PRUNING, **(pruning or {})}
    run = tiny_run(folder / "run", images=images, model=f"tiny_{family}", token_pruning=part, **changes)
    return replace(run, parent=parent)


def main() -> None:
    torch.set_num_threads(1)
    folder, images, family, changes = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
    classification.train(tiny_pair(folder, family, images=images, **changes))


if __name__ == "__main__":
    main()
