"""The golden arrays: inputs, weights and outputs of the published modules at small size (evaluation mode)."""

from __future__ import annotations

import numpy as np
import torch

from hafabench.models.pyramid import Dimensions
from tools.checkout import REPOSITORY

TOLERANCE = 1e-5


def load(name: str) -> dict[str, torch.Tensor]:
    """Load every array of ``golden_<name>.npz``; half-precision inputs are cast to float32."""
    with np.load(REPOSITORY / f"tests/golden/data/golden_{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    return {key: value.float() if value.dtype == torch.float16 else value for key, value in arrays.items()}


def weights(arrays: dict[str, torch.Tensor], prefix: str = "param.") -> dict[str, torch.Tensor]:
    """Return the arrays that are weights, with the names of the model's state dict."""
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def dimensions(arrays: dict[str, torch.Tensor]) -> Dimensions:
    """Return the dimensions of a narrow backbone."""
    names = ("depths", "embed_dims", "num_heads", "mlp_ratios", "sr_ratios")
    return Dimensions(**{name: tuple(arrays[name].tolist()) for name in names})


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """max |a - b| / max |b|."""
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max()).item()
