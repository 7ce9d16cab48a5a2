"""Latency of HAFA relative to its backbones on one CPU thread at 224 x 224."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from benchmarks.rows import Row
from benchmarks.timing import compare_models, compare_modules
from hafabench.config.catalog import CATALOG
from hafabench.engines.dense import operators
from hafabench.models import create

# Upper bound of the ratio of HAFA's latency to PVT's, and the ratio of their multiply-accumulates. The two ratios are
# equal at equal efficiency.
SIZES = {"tiny": (1.06, 1.059), "small": (1.05, 1.029), "large": (1.02, 1.011)}
# Half the ratio of the published structure to plain PVT-v2-B1 (397 ms to 95 ms on one CPU thread).
TCFORMER_LIMIT = 397 / 95 / 2


def hafa_over_pvt(quick: bool) -> Iterator[Row]:
    """Compare PVT with HAFA to PVT at batch sizes 1 and 16."""
    for batch, most in ((1, {"tiny": 256, "small": 256, "large": 128}), (16, {"tiny": 48, "small": 32, "large": 24})):
        for size, (limit, macs) in SIZES.items():
            if quick and batch > 1 and size == "large":
                continue
            rounds = most[size]
            pvt, hafa = f"pvt_{size}", f"pvt_{size}_hafa"
            found = compare_models({pvt: pvt, hafa: hafa}, pvt, batch, rounds, quick)
            what = f"PVT-{size.capitalize()} with HAFA / without, batch {batch}"
            yield Row.of("hafa_over_pvt", what, found.ratio(hafa), at_most=limit, note=f"MACs {macs}")


def variants_of_pvt_v2(quick: bool) -> Iterator[Row]:
    """Compare the rows of Table 4 on PVT-v2-B1 with plain PVT-v2-B1, both this project's and timm's."""
    plain = CATALOG["pvt_v2_b1"]
    limits = {("sia", "sia", "sia"): TCFORMER_LIMIT, ("laa", "sia", "sia"): None, ("laa", "laa", "sia"): None}
    specs = {"-".join(m).upper(): replace(plain, name="-".join(m), mergers=("grid", *m)) for m in limits}
    for batch, rounds in ((1, 192), (16, 32)):
        found = compare_models({"plain": plain, **specs}, "plain", batch, rounds, quick)
        for (name, _), limit in zip(specs.items(), limits.values(), strict=True):
            yield Row.of(
                "variants_of_pvt_v2",
                f"PVT-v2-B1 {name} / plain, batch {batch}",
                found.ratio(name),
                at_most=limit,
                note="published structure 4.2" if limit and batch == 1 else "",
            )


class _Maps(nn.Module):
    """A dense backbone of this project that returns its four feature maps."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [tokens.to_map() for tokens in self.backbone.forward_tokens(image)]


def pvt_over_mmdet(quick: bool) -> Iterator[Row]:
    """Compare the baselines with other implementations: PVT with mmdet's, PVT-v2 with timm's."""
    operators.install()
    import timm
    from mmdet.models.backbones import PyramidVisionTransformer

    depths = {"tiny": [2, 2, 2, 2], "small": [3, 4, 6, 3]}
    for size, batch, rounds in (("tiny", 1, 192), ("small", 1, 128), ("tiny", 16, 24)):
        ours = _Maps(create(f"pvt_{size}", dense=True)).eval()
        theirs = PyramidVisionTransformer(num_layers=depths[size]).eval()
        found = compare_modules({"ours": ours, "mmdet": theirs}, _images(batch), "mmdet", rounds, quick)
        what = f"PVT-{size.capitalize()} / mmdet's, four maps, batch {batch}"
        yield Row.of("pvt_over_mmdet", what, found.ratio("ours"), at_most=1.0)
    models = {"ours": create("pvt_v2_b1").eval(), "timm": timm.create_model("pvt_v2_b1").eval()}
    found = compare_modules(models, _images(1), "timm", 128, quick)
    yield Row.of("pvt_over_mmdet", "PVT-v2-B1 / timm's, batch 1", found.ratio("ours"), at_most=1.0)


def _images(batch: int) -> tuple[torch.Tensor]:
    return (torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0)),)


def swin(quick: bool) -> Iterator[Row]:
    """Compare Swin with HAFA to Swin."""
    found = compare_models({"swin": "swin_tiny", "hafa": "swin_tiny_hafa"}, "swin", 1, 128, quick)
    yield Row.of("swin", "Swin-T with HAFA / without, batch 1", found.ratio("hafa"))
