"""Which runs the pictures are drawn of. Pure, no torch: the workflow asks this too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hafabench.runs.run import Run


@dataclass(frozen=True)
class Subjects:
    """The runs that an experiment's pictures show.

    Attributes:
        pair: a segmentation run of a baseline, and the run of the same seed of a model that clusters into stage 4
            (SIA); None where the experiment trains no such pair.
        sampler: a classification run of a model that moves its sampling points (LAA); None where there is none.
    """

    pair: tuple[Run, Run] | None
    sampler: Run | None

    @property
    def runs(self) -> tuple[Run, ...]:
        """All of them, each once."""
        return (*(self.pair or ()), *((self.sampler,) if self.sampler else ()))

    @property
    def can_be_drawn(self) -> bool:
        """Whether every run's weights are there or still to come.

        A run that was evaluated and whose checkpoint is gone (a copy of the records alone, disk that was freed) is
        not trained again for the sake of a picture.
        """
        return bool(self.runs) and all(run.checkpoint.exists() or not run.record.exists() for run in self.runs)


def picture_subjects(runs: Mapping[str, Run]) -> Subjects:
    """The first of each kind, in the experiment's order; of LAA the pair's model where it has been trained.

    Args:
        runs: of `hafabench.runs.run.expand`.
    """
    pair = next(
        (
            (baseline, variant)
            for variant in runs.values()
            if variant.task == "segmentation" and variant.model.mergers[-1] == "sia"
            for baseline in runs.values()
            if (baseline.task, baseline.seed) == (variant.task, variant.seed)
            and baseline.model.architecture == variant.model.architecture
            and not baseline.model.is_plugin
        ),
        None,
    )
    samplers = [run for run in runs.values() if run.task == "classification" and "laa" in run.model.mergers]
    preferred = [run for run in samplers if pair and (run.model, run.seed) == (pair[1].model, pair[1].seed)]
    return Subjects(pair, next(iter([*preferred, *samplers]), None))
