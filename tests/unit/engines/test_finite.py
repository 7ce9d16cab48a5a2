"""Outputs that are not finite are refused instead of becoming a prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from hafabench.engines.finite import finite_outputs
from hafabench.errors import UserError


@dataclass
class Features:
    values: torch.Tensor
    index: torch.Tensor


class Model(nn.Module):
    """Returns its features in some container."""

    def __init__(self, wrap: Any):
        super().__init__()
        self.backbone, self.head, self.wrap = nn.Linear(1, 1, bias=False), nn.Identity(), wrap
        nn.init.constant_(self.backbone.weight, 1e38)

    def forward(self, image: torch.Tensor) -> Any:
        return self.wrap(self.head(self.backbone(image)))


WRAPS = {
    "tensor": lambda value: value,
    "list": lambda value: [torch.ones(1), value],
    "nested": lambda value: ((), {"a": [value]}),
    "dataclass": lambda value: [Features(value, torch.ones(1, dtype=torch.long))],
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_outputs_in_any_container_are_checked(wrap):
    model = Model(WRAPS[wrap])
    with finite_outputs(model):
        model(torch.ones(1))
        with pytest.raises(UserError, match=r"outputs of the model are not finite .* although all weights are"):
            model(torch.full((1,), 1e3))
        with pytest.raises(UserError, match="not finite"):
            model(torch.full((1,), torch.nan))
    model(torch.full((1,), 1e3))


def test_only_the_named_parts_are_checked():
    model = Model(lambda value: value * torch.inf)
    with finite_outputs(model, "head", "neck"):
        model(torch.ones(1))
        with pytest.raises(UserError, match="the outputs of head are not finite"):
            model(torch.full((1,), 1e3))
