"""Time of HAFA's mergers and of their parts, as a percentage of the backbone's forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from benchmarks.rows import Row
from benchmarks.timing import compare_calls, quiet_process
from hafabench.models import create
from hafabench.models.hafa import SemanticInformationAggregation, Tokens, dpc_knn
from hafabench.models.hafa.sia import RATIO, convolve_windows
from hafabench.models.pyramid import PyramidClassifier
from hafabench.stats.intervals import median_interval

STAGES = {2: "LAA of stage 2", 3: "LAA of stage 3", 4: "SIA"}


def parts(quick: bool) -> Iterator[Row]:
    """Time each merger of PVT-Tiny with HAFA relative to the grid merger, and the parts of SIA, at batch size 1."""
    torch.manual_seed(0)
    pvt, hafa = create("pvt_tiny").eval(), create("pvt_tiny_hafa").eval()
    for stage in STAGES.keys() - {4}:
        torch.nn.init.normal_(hafa.stages[stage - 1].merger.offset.weight, std=0.05)
    image = torch.randn(1, 3, 224, 224)
    with quiet_process():
        calls: dict[str, Callable[[], object]] = {"whole": lambda: pvt(image)}
        for stage in STAGES:
            calls[f"grid {stage}"] = _merging(pvt, image, stage)
            calls[f"hafa {stage}"] = _merging(hafa, image, stage)
        calls |= _inside(hafa.stages[3].merger, _input_of(hafa, image, 4))
    found = compare_calls(calls, "whole", 256, quick)
    shares = {name: [100 * ratio for ratio in found.ratios(name)] for name in calls}
    for stage, what in STAGES.items():
        extra = [own - grid for own, grid in zip(shares[f"hafa {stage}"], shares[f"grid {stage}"], strict=True)]
        what = f"{what} more than the grid merger, share of PVT-Tiny's time"
        yield Row.of("parts", what, median_interval(extra), unit="%")
    for name in calls:
        if name.startswith("SIA"):
            what = f"{name}, share of PVT-Tiny's time"
            yield Row.of("parts", what, median_interval(shares[name]), unit="%")


def _input_of(model: PyramidClassifier, image: torch.Tensor, stage: int) -> Tokens:
    tokens = Tokens.from_map(image)
    for before in model.stages[: stage - 1]:
        tokens = before(tokens)
    return tokens


def _merging(model: PyramidClassifier, image: torch.Tensor, stage: int) -> Callable[[], object]:
    merger, tokens = model.stages[stage - 1].merger, _input_of(model, image, stage)
    return lambda: merger(tokens)


def _inside(sia: SemanticInformationAggregation, tokens: Tokens) -> dict[str, Callable[[], object]]:
    image, wide = tokens.to_map(), torch.randn(1, tokens.x.shape[1], sia.token_proj.out_features)
    grid = Tokens(wide, tokens.grid).to_map()
    clusters = int(wide.shape[1] * RATIO)
    return {
        "SIA: 3x3 convolution": lambda: convolve_windows(sia.map_conv, image),
        "SIA: two projections": lambda: (sia.token_proj(tokens.x), sia.kv_proj(tokens.x)),
        "SIA: depthwise and pointwise convolution": lambda: sia.kv_pointwise(sia.kv_depthwise(grid)),
        "SIA: clustering": lambda: dpc_knn(wide, clusters, 5),
    }
