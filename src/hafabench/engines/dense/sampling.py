"""Batches of images of like orientation, for detection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hafabench.engines.sampling import StepSampler


class AspectSampler(StepSampler):
    """A `StepSampler` whose batches hold only landscape or only portrait images, as mmdet's published recipes do.

    Images of a batch are padded to a common size; like ones waste less memory and time. Each process's batch is of
    one kind; kinds alternate as the random order fills them. At most one batch of an epoch is mixed.

    Args:
        landscape: of each image, whether it is at least as wide as high.
        batch_size: of a step, over all processes.
        options: see `StepSampler`.
    """

    def __init__(self, landscape: Sequence[bool], batch_size: int, *, size: int = 1, **options: int):
        super().__init__(len(landscape), batch_size, size=size, **options)
        self._landscape = np.asarray(landscape, dtype=bool)

    def _order(self, epoch: int) -> np.ndarray:
        order = super()._order(epoch)
        per_process = self._batch // self._size
        landscape = self._landscape[order]
        groups, rest = [], []
        for kind in (True, False):
            places = np.flatnonzero(landscape == kind)
            whole = len(places) // per_process * per_process
            groups.append(places[:whole].reshape(-1, per_process))
            rest.append(places[whole:])
        grouped = np.concatenate(groups)
        # A group's turn comes when its last image does.
        grouped = grouped[np.argsort(grouped[:, -1])] if len(grouped) else grouped
        mixed = np.concatenate(rest)
        mixed = mixed[: len(mixed) // per_process * per_process].reshape(-1, per_process)
        steps = self._steps_per_epoch
        turns = np.concatenate([grouped, mixed])[: steps * self._size]
        # Processes take turns through a step's images: the p-th of each has to be in the p-th group.
        return order[turns.reshape(steps, self._size, per_process).transpose(0, 2, 1).reshape(-1)]
