"""Limits of numbers that a user writes: what is larger fits into no memory, ends in no lifetime, or was mistyped.

Every limit is far above what is used in practice. A number above it would otherwise fail after a job has waited in
the queue of a cluster.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field

SEED_BOUND = 2**32
"""Seeds are smaller. NumPy accepts no larger ones."""

MAX_IMPORTED_SEED = 2**63 - 1
"""Largest seed of a training elsewhere: frames store seeds as integers of 64 bits."""
MAX_SEEDS = 1000
MIN_SIDE = 32
"""Smallest side of an image, in pixels: the largest stride of the models."""
MAX_SIDE = 8192
MAX_BATCH = 2**16
MAX_EPOCHS = 10**5
MAX_STEPS = 10**9
MAX_CLASSES = 10**5
MAX_IMAGES = 10**9
MAX_WORKERS = 256
MAX_THREADS = 4096
MAX_GPUS = 10**5
MAX_PROCESSES = 1024
"""Largest number of training processes on one node."""
MAX_SINGLE = 1e38
"""Largest learning rate and weight decay: about the largest number in single precision. A training with much smaller
ones diverges already, which is an outcome and no mistake of the file."""
MAX_BATCH_GIB = 64
"""Largest size of a batch of images in single precision."""

_Value = TypeVar("_Value", bound=tuple[Any, ...])

Seed = Annotated[int, Field(ge=0, lt=SEED_BOUND)]
Side = Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE)]
Batch = Annotated[int, Field(gt=0, le=MAX_BATCH)]
Classes = Annotated[int, Field(gt=0, le=MAX_CLASSES)]
Images = Annotated[int, Field(gt=0, le=MAX_IMAGES)]
Steps = Annotated[int, Field(gt=0, le=MAX_STEPS)]
Epochs = Annotated[int, Field(gt=0, le=MAX_EPOCHS)]
Threads = Annotated[int, Field(gt=0, le=MAX_THREADS)]


def _checked(is_right: Callable[[Any], bool], expectation: str) -> AfterValidator:
    def check(values: _Value) -> _Value:
        if not is_right(values):
            raise ValueError(f"{expectation}, found {list(values)}")
        return values

    return AfterValidator(check)


SharesSmallerFirst = _checked(
    lambda pair: pair[0] <= pair[1], "expected two shares from 0 to 1, the smaller one first"
)
SmallerFirst = _checked(lambda pair: pair[0] <= pair[1], "expected the smaller number first")
LargerFirst = _checked(lambda pair: pair[0] >= pair[1], "expected the larger number first")
Rising = _checked(
    lambda values: all(low < high for low, high in pairwise(values)),
    "expected different numbers in rising order",
)


def batch_problem(batch: int, height: float, width: float) -> str | None:
    """Explain why a batch of RGB images in single precision fits into no memory; None if it may fit.

    Args:
        batch: The number of images.
        height: Their height, in pixels.
        width: Their width, in pixels.
    """
    gib = batch * 3 * height * width * 4 / 2**30
    if gib <= MAX_BATCH_GIB:
        return None
    return (
        f"{batch} images of {height:.0f} x {width:.0f} pixels take {math.ceil(gib):,} GiB; "
        f"expected at most {MAX_BATCH_GIB} GiB in a batch"
    )
