"""The metrics of records, each registered once."""

from __future__ import annotations

from typing import Literal

Verb = Literal["evaluate", "complexity", "latency"]
"""What makes a record: the evaluation of a run, the counting of models, or the timing of models."""
