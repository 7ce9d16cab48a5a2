"""Speed-up of HAFA by torch.compile, with the same result."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import torch

from benchmarks.rows import Row
from benchmarks.timing import THREADS, compare_calls
from hafabench.models import create

TOLERANCE = 1e-5


def compilation(quick: bool) -> Iterator[Row]:
    """Time PVT-Tiny with HAFA compiled and not compiled. On a CPU, this needs a C++ compiler."""
    what = "PVT-Tiny with HAFA compiled / not compiled, batch 1"
    if not any(map(shutil.which, ("g++", "clang++"))):
        yield Row("compilation", what, None, note="torch.compile needs a C++ compiler on a CPU, and none was found")
        return
    torch.manual_seed(0)
    depths = (1, 1, 1, 1) if quick else (2, 2, 2, 2)
    model, image = create("pvt_tiny_hafa", depths=depths).eval(), torch.randn(1, 3, 224, 224)
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    compiled = torch.compile(model, fullgraph=True)
    with torch.inference_mode():
        expected, found = model(image), compiled(image)
    torch.set_num_threads(threads)
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    yield Row(
        "compilation", "torch.compile in one graph: relative error", error / TOLERANCE, at_most=1.0, unit="x 1e-5"
    )
    calls = {"plain": lambda: model(image), "compiled": lambda: compiled(image)}
    yield Row.of("compilation", what, compare_calls(calls, "plain", 128, quick).ratio("compiled"))
