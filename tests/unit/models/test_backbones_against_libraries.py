"""Backbones without HAFA's mergers equal mmdet's PVT and timm's PVT-v2 and Swin on the same weights."""

from __future__ import annotations

import re

import pytest
import timm
import torch

from hafabench.config.catalog import GRID_ONLY
from hafabench.engines.dense import operators
from hafabench.models import create
from hafabench.models.pvt_v2 import ARCHITECTURES as PVT_V2
from hafabench.models.pvt_v2 import PyramidVisionTransformerV2
from hafabench.models.swin import ARCHITECTURES as SWIN
from hafabench.models.swin import SwinTransformerHafa, relative_position_bias
from tests.support.mmdet_weights import mmdet_state


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@torch.no_grad()
@pytest.mark.parametrize("size", [(224, 224), (109, 77)])
def test_pvt_equals_mmdet(size):
    operators.install()
    from mmdet.models.backbones import PyramidVisionTransformer

    ours = create("pvt_tiny", dense=True, depths=(1, 2, 1, 2)).eval()
    # mmdet gives one eps to all its norms; the published model's mergers and reductions have PyTorch's default.
    theirs = PyramidVisionTransformer(num_layers=[1, 2, 1, 2]).eval()
    for name, module in theirs.named_modules():
        if re.fullmatch(r"layers\.\d\.0\.norm|layers\.\d\.1\.\d+\.attn\.norm", name):
            module.eps = 1e-5
    theirs.load_state_dict(mmdet_state(ours), strict=True)
    x = torch.randn(1, 3, *size)
    for tokens, expected in zip(ours.forward_tokens(x), theirs(x), strict=True):
        torch.testing.assert_close(tokens.to_map(), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_pvt_v2_equals_timm():
    name = "pvt_v2_b0"
    ours = PyramidVisionTransformerV2(PVT_V2[name], num_classes=7).eval()
    theirs = timm.create_model(name, num_classes=7).eval()
    state = {}
    for key, value in ours.state_dict().items():
        key = key.replace("stage1.merger", "patch_embed").replace("dwconv.dwconv", "dwconv")
        key = re.sub(r"^stage(\d)", lambda match: f"stages.{int(match[1]) - 1}", key)
        state[key.replace("merger", "downsample")] = value
    theirs.load_state_dict(state, strict=True)
    x = torch.randn(2, 3, 65, 97)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
    for found, expected in zip(
        ours.forward_intermediates(x, intermediates_only=True),
        theirs.forward_intermediates(x, intermediates_only=True),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_swin_equals_timm():
    name = "swin_tiny_patch4_window7_224"
    shape = {**SWIN[name], "depths": (2, 1, 2, 1)}
    ours = SwinTransformerHafa(GRID_ONLY, **shape, num_classes=7).eval()
    theirs = timm.create_model(name, **shape, num_classes=7, strict_img_size=False).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(1, 3, 96, 160)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_swin_bias_of_one_window():
    """Grid tokens of one window read the table at whole offsets: Swin's own bias."""
    model = create("swin_tiny_hafa", depths=(1, 1, 1, 1))
    attention = model.layers[3].blocks[0].attn
    tokens = model.forward_tokens(torch.zeros(1, 3, 32 * 7, 32 * 7))[3]
    grid = type(tokens)(torch.zeros(1, 49, 1), (7, 7))
    bias = relative_position_bias(attention.relative_position_bias_table, attention.window_size, grid, grid)
    torch.testing.assert_close(bias, attention._get_rel_pos_bias())


def test_drop_path_grows_linearly_over_all_blocks():
    with torch.device("meta"):
        model = create("pvt_v2_b2_hafa", drop_path_rate=0.3)
    found = [getattr(block.drop_path, "drop_prob", 0.0) for stage in model.stages for block in stage.blocks]
    assert found == pytest.approx([0.3 * index / 15 for index in range(16)])
