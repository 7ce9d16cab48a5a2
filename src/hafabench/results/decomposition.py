"""The parameters and operations of a model by part and kind, as plain data without torch.

`hafabench.measure.decompose` makes a `Decomposition`, and `hafabench.measure.conventions` adds it up.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from hafabench.config.operation_kinds import MULTIPLICATIONS, PARAMETERS, PARTS


@dataclass(frozen=True)
class Amount:
    """The amount of one kind in one part of a model.

    Attributes:
        part: One of `PARTS`.
        kind: One of `PARAMETERS`, `BUFFERS` or `OPERATIONS`.
        count: The number of parameters, multiply-accumulates, additions or elements.
        trainable: False for frozen parameters.
    """

    part: str
    kind: str
    count: int
    trainable: bool = True


@dataclass(frozen=True)
class Decomposition:
    """A model's parameters, with its buffers, and its operations on one image. Each part and kind occurs once."""

    parameters: tuple[Amount, ...]
    operations: tuple[Amount, ...] = ()

    @property
    def params(self) -> int:
        """The number of parameters, counted as in `hafabench.measure.complexity`."""
        return total(self.parameters, PARAMETERS)

    @property
    def macs(self) -> int:
        """The number of multiply-accumulates, counted as in `hafabench.measure.complexity`."""
        return total(self.operations, MULTIPLICATIONS)


def total(amounts: Collection[Amount], kinds: Collection[str], parts: Collection[str] = PARTS) -> int:
    """Return the sum of the counts of the given kinds in the given parts."""
    return sum(amount.count for amount in amounts if amount.kind in kinds and amount.part in parts)
