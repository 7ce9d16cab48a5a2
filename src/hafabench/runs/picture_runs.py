"""The runs whose weights the pictures are drawn with, and the files of the pictures; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hafabench.config.experiment import Experiment
from hafabench.runs.paths import picture_index
from hafabench.runs.run import Run

IMAGES_PER_SHEET = 4


@dataclass(frozen=True)
class Subjects:
    """The runs that an experiment's pictures show.

    Attributes:
        pair: A segmentation run of a baseline, and one of the same seed of a model with SIA in front of stage 4; None
            if the experiment trains no such pair.
        sampler: A classification run of a model with LAA; None if the experiment trains none.
    """

    pair: tuple[Run, Run] | None
    sampler: Run | None

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs of the pictures, without duplicates."""
        return (*(self.pair or ()), *((self.sampler,) if self.sampler else ()))

    @property
    def can_be_drawn(self) -> bool:
        """Whether the weights of every run exist or will be trained.

        An evaluated run without a checkpoint, as in a copy of the records only, is not trained again for a picture.
        """
        return bool(self.runs) and all(run.checkpoint.exists() or not run.record.exists() for run in self.runs)


def picture_subjects(runs: Mapping[str, Run]) -> Subjects:
    """Choose the first run of each kind in the experiment's order, and for LAA the model of the pair if possible.

    Args:
        runs: The runs of `hafabench.runs.run.expand`.
    """
    pair = next(
        (
            (baseline, hafa)
            for hafa in runs.values()
            if hafa.task == "segmentation" and hafa.model.mergers[-1] == "sia"
            for baseline in runs.values()
            if (baseline.task, baseline.seed) == (hafa.task, hafa.seed)
            and baseline.model.architecture == hafa.model.architecture
            and not baseline.model.has_mergers
        ),
        None,
    )
    samplers = [run for run in runs.values() if run.task == "classification" and "laa" in run.model.mergers]
    preferred = [run for run in samplers if pair and (run.model, run.seed) == (pair[1].model, pair[1].seed)]
    return Subjects(pair, next(iter([*preferred, *samplers]), None))


@dataclass(frozen=True)
class SheetLayout:
    """The layout of a contact sheet, as far as it follows from the configuration.

    Attributes:
        name: ``clusters`` or ``offsets``.
        runs: The runs whose weights are drawn.
        columns: What each column shows.
        rows: The number of validation images.
    """

    name: str
    runs: tuple[Run, ...]
    columns: tuple[str, ...]
    rows: int

    @property
    def file(self) -> str:
        """The name of the contact sheet."""
        return f"{self.name}.webp"

    def tile_file(self, row: int, column: int) -> str:
        """The path of a tile, relative to the folder of the index."""
        return f"tiles/{self.name}/{row}_{column}.webp"

    @property
    def files(self) -> list[str]:
        """The contact sheet and every tile, relative to the folder of the index."""
        tiles = [self.tile_file(row, column) for row in range(self.rows) for column in range(len(self.columns))]
        return [self.file, *tiles]


def clusters_layout(pair: tuple[Run, Run]) -> SheetLayout:
    """The sheet of SIA's clusters, and of segmentations by a baseline and by a model with SIA."""
    names = (run.model.name for run in pair)
    return _layout("clusters", pair, ["image", "SIA clusters", *names, "ground truth"])


def offsets_layout(run: Run) -> SheetLayout:
    """The sheet of the sampling points of a classifier's LAAs."""
    stages = [stage for stage, merger in enumerate(run.model.mergers, start=1) if merger == "laa"]
    return _layout("offsets", (run,), ["image", *(f"LAA into stage {stage}" for stage in stages)])


def _layout(name: str, runs: tuple[Run, ...], columns: Sequence[str]) -> SheetLayout:
    rows = min(IMAGES_PER_SHEET, runs[-1].dataset.images["val"])
    return SheetLayout(name, runs, tuple(columns), rows)


def picture_files(experiment: Experiment, subjects: Subjects) -> list[Path]:
    """All files that drawing the subjects writes: the index, the contact sheets, and the tiles."""
    layouts = [clusters_layout(subjects.pair)] if subjects.pair else []
    layouts += [offsets_layout(subjects.sampler)] if subjects.sampler else []
    index = picture_index(experiment)
    return [index, *(index.parent / file for layout in layouts for file in layout.files)]
