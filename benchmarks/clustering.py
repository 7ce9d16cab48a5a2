"""Speed of DPC-KNN relative to the reference implementation, and the memory of SIA at 3136 tokens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import torch

from benchmarks.rows import Row
from benchmarks.timing import compare_calls
from hafabench.models.hafa import dpc_knn
from hafabench.stats.intervals import Interval
from tools.checkout import REPOSITORY
from tools.reference_dpc_knn import reference_dpc_knn

NEIGHBOURS = 5
# Tokens, channels, batch, rounds, and the required speed-up over the reference implementation.
CASES = ((3136, 128, 1, 48, 2.0), (784, 320, 1, 96, None), (196, 512, 1, 512, 1.3), (196, 512, 16, 96, 1.3))
ONE_MATRIX = 3136**2 * 4 / 1e6
# The kernel records the peak memory. The record is reset after the libraries are loaded and everything has run once.
_PEAK = """
import pathlib, torch
from hafabench.models.hafa import SemanticInformationAggregation, Tokens, sia
from tools.reference_dpc_knn import reference_dpc_knn
if {plain}:
    sia.dpc_knn = reference_dpc_knn
torch.set_num_threads(1)
merger = SemanticInformationAggregation(64, 128, "tokens").eval()
def run(side):
    with torch.inference_mode():
        merger(Tokens(torch.randn(1, side * side, 64), (side, side)))
def kilobytes(of):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(of)).split()[1])
run(14)
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = kilobytes("VmRSS")
run(56)
print(kilobytes("VmHWM") - before)
"""


def clustering(quick: bool) -> Iterator[Row]:
    """Time DPC-KNN on noise and on a smooth map, in which fewer tokens have their centre among their neighbours."""
    for tokens, channels, batch, rounds, limit in CASES:
        for kind in ("noise", "smooth map"):
            x = _tokens(tokens, channels, batch, smooth=kind == "smooth map")
            arguments = (x, tokens // 4, NEIGHBOURS)
            calls = {"ours": lambda a=arguments: dpc_knn(*a), "plain": lambda a=arguments: reference_dpc_knn(*a)}
            ratio = compare_calls(calls, "plain", rounds, quick).ratio("ours")
            faster = Interval(1 / ratio.value, 1 / ratio.high, 1 / ratio.low, ratio.confidence)
            what = f"DPC-KNN, {tokens} tokens, batch {batch}, {kind}: times faster than cdist, topk, gather"
            yield Row.of("clustering", what, faster, at_least=limit)


def memory(quick: bool) -> Iterator[Row]:
    """Measure how the peak memory of SIA grows from 196 to 3136 tokens, each time in a new process."""
    for plain, goal in ((False, ONE_MATRIX), (True, None)):
        program = _PEAK.format(plain=plain)
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        kilobytes = int(done.stdout)
        what = f"SIA of 3136 tokens: peak memory{', with the reference clustering' if plain else ''}"
        note = "" if plain else "goal: less than one 3136 x 3136 matrix in float32"
        yield Row("memory", what, kilobytes * 1024 / 1e6, at_most=goal, unit="MB", note=note)


def _tokens(tokens: int, channels: int, batch: int, smooth: bool) -> torch.Tensor:
    side = int(tokens**0.5)
    x = torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(0))
    if smooth:
        x = torch.nn.functional.avg_pool2d(x, 5, stride=1, padding=2)
    return x.flatten(2).transpose(1, 2).contiguous()
