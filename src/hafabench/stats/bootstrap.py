"""The bootstrap over images: the standard error of a statistic that has no formula for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_SEED = 0
_RESAMPLES_AT_ONCE = 100


def bootstrap_error(
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]], images: int, resamples: int
) -> float:
    """Return the standard error of a statistic over resampled images.

    Args:
        statistic: Takes (resamples, images) counts of how often each image was drawn; returns (resamples,) values.
        images: The number of images, which is also the size of each resample.
        resamples: The number of resamples. The same number gives the same resamples.
    """
    random = np.random.default_rng(_SEED)
    found: list[float] = []
    while len(found) < resamples:
        number = min(_RESAMPLES_AT_ONCE, resamples - len(found))
        found += statistic(random.multinomial(images, np.full(images, 1 / images), number)).tolist()
    return float(np.nanstd(found, ddof=1))
