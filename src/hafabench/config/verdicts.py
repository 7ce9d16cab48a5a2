"""The verdicts on a claim of the paper, in the order of summaries. Imports nothing that takes time."""

from __future__ import annotations

from typing import Literal, get_args

Verdict = Literal[
    "reproduced", "reproduced under a convention", "contradicted", "inconclusive", "not comparable", "not run"
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
