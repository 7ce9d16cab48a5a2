"""Batches of images with the same orientation, for detection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hafabench.engines.sampling import StepSampler


class AspectSampler(StepSampler):
    """A `StepSampler` whose batches hold only landscape or only portrait images, as in mmdet's published recipes.

    The images of a batch are padded to a common size; images of one orientation need less memory and time. The batch
    of each process has one orientation, and orientations alternate as the random order fills the batches. At most one
    batch of an epoch is mixed.

    Args:
        landscape: For each image, whether it is at least as wide as high.
        batch_size: Images per step, over all processes.
        size: Number of processes.
        options: Other options of `StepSampler`.
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
        # Groups are ordered by the position of their last image.
        grouped = grouped[np.argsort(grouped[:, -1])] if len(grouped) else grouped
        mixed = np.concatenate(rest)
        mixed = mixed[: len(mixed) // per_process * per_process].reshape(-1, per_process)
        steps = self._steps_per_epoch
        batches = np.concatenate([grouped, mixed])[: steps * self._size]
        # A step's images are dealt to the processes in turn, so that process p receives group p.
        return order[batches.reshape(steps, self._size, per_process).transpose(0, 2, 1).reshape(-1)]
