"""Every model with a feature pyramid keeps the contract of `DenseBackbone`, on the meta device."""

from __future__ import annotations

import pytest
import torch

from hafabench.config.catalog import CATALOG
from hafabench.errors import UserError
from hafabench.models import DenseBackbone, create, family_of, is_own
from tests.support.family_expectations import allowed_grids
from tests.support.small_models import small_options


def is_dense(name: str) -> bool:
    spec = CATALOG[name]
    family = family_of(spec)
    return family.own.dense if family.is_own(spec) else family.timm.pyramid_levels is not None


DENSE = [name for name in CATALOG if is_dense(name)]


@pytest.mark.parametrize("name", DENSE)
def test_contract(name):
    spec = CATALOG[name]
    small = small_options(name) if is_own(spec) else {}
    with torch.device("meta"):
        backbone = create(name, dense=True, **small)
        images = {size: torch.empty(2, 3, *size) for size in ((64, 96), (65, 97))}
    assert isinstance(backbone, DenseBackbone)
    assert backbone.strides == (4, 8, 16, 32)
    assert len(backbone.channels) == 4
    for (height, width), x in images.items():
        maps = backbone.eval().forward_maps(x)
        tokens = backbone.forward_tokens(x)
        assert len(maps) == len(tokens) == 4
        assert [tuple(features.shape[2:]) for features in maps] in allowed_grids(spec.family, height, width)
        for features, stage, channels in zip(maps, tokens, backbone.channels, strict=True):
            assert features.shape[:2] == (2, channels)
            assert stage.x.shape[::2] == (2, channels)
            assert stage.grid == tuple(features.shape[2:])
            assert stage.to_map().shape == features.shape


@pytest.mark.parametrize("name", [name for name in CATALOG if name not in DENSE])
def test_models_without_a_pyramid_are_refused(name):
    with torch.device("meta"), pytest.raises(UserError, match=f"{name}.*has no feature pyramid"):
        create(name, dense=True)


def test_dense_models_of_the_paper():
    assert {CATALOG[name].family for name in DENSE} == {"pvt", "pvt_v2", "swin", "resnet"}
