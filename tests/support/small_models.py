"""Every model of this project with few blocks and channels, for tests that run all of them."""

from __future__ import annotations

from typing import Any

import timm
import torch

from hafabench.config.catalog import CATALOG
from hafabench.models import timm_name

# Arguments of a family's small model; a family without an entry is tested at its real size. All sizes of an
# architecture become the same small model. Tests of parameter counts cover the real sizes.
SMALL: dict[str, dict[str, Any]] = {
    "pvt": {"depths": (1, 1, 1, 2), "embed_dims": (16, 32, 80, 128)},
    "pvt_v2": {"depths": (1, 1, 1, 2), "embed_dims": (16, 32, 80, 128)},
    "swin": {"depths": (1, 1, 1, 2), "embed_dim": 24},
    "lvvit": {"depth": 4, "embed_dim": 96},
    "dynamicvit": {"depth": 8, "embed_dim": 96},
    "dynamic_swin": {"depths": (1, 1, 5, 1), "embed_dim": 24},
}


def small_options(name: str) -> dict[str, Any]:
    """Return the arguments that make a model of the catalog small."""
    return SMALL.get(CATALOG[name].family, {})


def small(name: str, **kwargs: Any) -> torch.nn.Module:
    """The small version of a model, from timm's registry, with seeded weights."""
    torch.manual_seed(0)
    return timm.create_model(timm_name(name), **small_options(name), **kwargs)


def image(batch: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    """Normal noise (batch, channels, height, width), always the same."""
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(0))
