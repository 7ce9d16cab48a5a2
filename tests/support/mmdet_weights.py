"""Conversion of this project's PVT weights to those of mmdet."""

from __future__ import annotations

import re

import torch


def mmdet_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of this project's dense PVT under mmdet's names."""
    state = {}
    for name, value in model.state_dict().items():
        stage, rest = re.fullmatch(r"stage(\d)\.(.*)", name).groups()
        prefix = f"layers.{int(stage) - 1}"
        if rest.startswith("merger."):
            part = {"proj": "projection", "norm": "norm"}[rest.split(".")[1]]
            state[f"{prefix}.0.{part}.{rest.split('.')[2]}"] = value
        elif rest == "pos_embed":
            # mmdet's position embedding has no row for the class token.
            state[f"{prefix}.1.0.pos_embed"] = value[:, 1:] if stage == "4" else value
        else:
            index, rest = re.fullmatch(r"blocks\.(\d+)\.(.*)", rest).groups()
            block = f"{prefix}.1.{int(index) + 1}"
            match rest.split("."):
                case ["attn", "q" | "kv" as part, leaf]:
                    state[f"{block}.attn.{part}.{leaf}"] = value
                case ["attn", "proj", leaf]:
                    state[f"{block}.attn.attn.out_proj.{leaf}"] = value
                case ["mlp", "fc1" | "fc2" as part, leaf]:
                    layer = {"fc1": 0, "fc2": 3}[part]
                    value = value[..., None, None] if leaf == "weight" else value
                    state[f"{block}.ffn.layers.{layer}.{leaf}"] = value
                case _:
                    state[f"{block}.{rest}"] = value
    for name in [name for name in state if ".attn.q." in name]:
        rest = torch.cat((state.pop(name), state.pop(name.replace(".q.", ".kv."))))
        state[re.sub(r"attn\.q\.(\w+)", r"attn.attn.in_proj_\1", name)] = rest
    return state
