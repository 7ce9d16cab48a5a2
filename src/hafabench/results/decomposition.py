"""What a model's parameters and operations are taken apart into: names and plain data, no torch.

A `Decomposition` is made by `hafabench.measure.decompose`; `hafabench.measure.conventions` adds it up again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from hafabench.config.operation_kinds import MULTIPLICATIONS, PARAMETERS, PARTS


@dataclass(frozen=True)
class Amount:
    """So much of one kind in one part.

    Attributes:
        part: one of `PARTS`.
        kind: one of `PARAMETERS`, `BUFFERS` or `OPERATIONS`.
        count: parameters, multiply-accumulates, additions or elements.
        trainable: False for frozen parameters.
    """

    part: str
    kind: str
    count: int
    trainable: bool = True


@dataclass(frozen=True)
class Decomposition:
    """A model's parameters (buffers among them) and its operations on one image; no pair of part and kind twice."""

    parameters: tuple[Amount, ...]
    operations: tuple[Amount, ...] = ()

    @property
    def params(self) -> int:
        """All parameters, as `hafabench.measure.complexity` counts them."""
        return total(self.parameters, PARAMETERS)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, as `hafabench.measure.complexity` counts them."""
        return total(self.operations, MULTIPLICATIONS)


def total(amounts: Collection[Amount], kinds: Collection[str], parts: Collection[str] = PARTS) -> int:
    """Sum of the counts of the given kinds in the given parts."""
    return sum(amount.count for amount in amounts if amount.kind in kinds and amount.part in parts)
