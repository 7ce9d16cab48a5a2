"""Conversion of this project's PVT weights to the names of the published code."""

from __future__ import annotations

import re

import torch


def published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of our PVT, grid mergers or HAFA's SIA, under the published names."""
    table = {
        r"stage(\d)\.merger\.(proj|norm)\.": r"patch_embed\1.\2.",
        r"stage(\d)\.pos_embed": r"pos_embed\1",
        r"stage(\d)\.blocks\.": r"block\1.",
        r"stage4\.cls_token": "cls_token",
        r"head_norm\.": "norm.",
        r"stage(\d)\.norm\.": r"norm\1.",
        r"stage4\.merger\.map_conv\.": "ctm3.conv.",
        r"stage4\.merger\.token_proj\.": "ctm3.conv.skip.",
        r"stage4\.merger\.token_norm\.": "ctm3.norm.",
        r"stage4\.merger\.score\.": "ctm3.score.",
    }
    renamed = {}
    for name, value in state.items():
        for ours, theirs in table.items():
            if re.match(ours, name):
                name = re.sub(ours, theirs, name)
                break
        renamed[name] = value
    return renamed
