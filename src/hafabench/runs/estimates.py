"""Estimates of how long trainings take, from the sizes of models and from published rates.

``throughput.yaml`` contains rates with their sources, ``complexity.csv`` the counted size of every model. Both are
stored in the folder of the tables file. What the experiment has counted or measured itself takes precedence.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hafabench.config.catalog import ModelSpec
from hafabench.config.experiment import Experiment
from hafabench.config.recipes import TASKS, ClassificationRecipe, DetectionRecipe, SegmentationRecipe
from hafabench.config.text_file import read_csv_table
from hafabench.config.throughput import Rates
from hafabench.config.yaml_file import YamlFile
from hafabench.errors import Problem, UserError
from hafabench.results.record import read_record
from hafabench.runs.fingerprints import complexity_fingerprint
from hafabench.runs.paths import complexity_record
from hafabench.runs.run import Run

# A training step costs three forward passes, because the backward pass costs two.
PASSES = 3
_COLUMNS = ["task", "model", "params", "gmacs"]


@dataclass(frozen=True)
class Size:
    """A counted model: parameters, and 10^9 multiply-accumulates for one image at the task's full size."""

    params: int
    gmacs: float
    source: str


@dataclass(frozen=True)
class Estimate:
    """An estimated duration.

    Attributes:
        hours: Wall-clock hours.
        gpus: The number of GPUs; 0 for a CPU core.
        images_per_s: Images per second over all GPUs.
        sources: The sources of the numbers that it is derived from, as clauses.
    """

    hours: float
    gpus: int
    images_per_s: float
    sources: tuple[str, ...]

    @property
    def gpu_hours(self) -> float:
        """GPUs times hours."""
        return self.hours * self.gpus


class Throughput:
    """The rates and the sizes of an experiment's models.

    Args:
        experiment: A checked experiment.

    Raises:
        UserError: With every problem of the two files.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.rates = YamlFile(experiment.companion("throughput.yaml")).validate(Rates)
        self._tracked = _read_sizes(experiment.companion("complexity.csv"))

    @property
    def startup_minutes(self) -> float:
        """The minutes before a job begins its work."""
        uses_gpus = self.experiment.config.uses_gpus
        return (self.rates.startup_minutes if uses_gpus else self.rates.embedded_startup_minutes).value

    @cached_property
    def _counted(self) -> dict[tuple[str, str], Size]:
        """What the experiment has counted itself, without records that cannot be read."""
        found: dict[tuple[str, str], dict[str, float]] = {}
        for task in self.experiment.config.complexity.image_size:
            path = complexity_record(self.experiment, task)
            try:
                record = read_record(path)
            except UserError:
                continue
            if record.fingerprint != complexity_fingerprint(self.experiment, task):
                continue
            for metric in record.metrics:
                found.setdefault((task, metric.model), {})[metric.name] = metric.value
        source = "counted by this experiment"
        return {key: Size(int(v["params"]), v["gmacs"], source) for key, v in found.items() if "gmacs" in v}

    def size(self, task: str, model: ModelSpec) -> Size:
        """The size of a model with the task's head.

        A model that has not been counted gets the size of the largest known model of its architecture, or of the
        largest model of the task if no model of its architecture is known.
        """
        for sizes in (self._counted, self._tracked):
            if (task, model.name) in sizes:
                return sizes[task, model.name]
        known, models = {**self._tracked, **self._counted}, self.experiment.models
        relatives = [
            size
            for (at, name), size in known.items()
            if at == task and name in models and models[name].architecture == model.architecture
        ]
        if relatives:
            nearest = max(relatives, key=lambda size: size.gmacs)
            return Size(
                nearest.params, nearest.gmacs, f"not counted; assumed as for the largest {model.architecture}"
            )
        nearest = max((size for (at, _), size in known.items() if at == task), key=lambda size: size.gmacs)
        return Size(nearest.params, nearest.gmacs, "not counted; assumed as for the task's largest model")

    def gmacs(self, run: Run) -> float:
        """10^9 multiply-accumulates for one training image of the run: the counted ones, scaled by image area.

        A model at a fraction of its width and depth is taken to need these fractions of the work. It has fewer
        multiply-accumulates than that, but small layers use processors less well.
        """
        height, width = self.experiment.config.complexity.image_size[run.task]
        size = self.size(run.task, run.model).gmacs * run.model.width * run.model.depth
        return size * image_area(run) / (height * width)

    def train(self, run: Run, gpus: int, speed: float = 1.0) -> Estimate:
        """Estimate the duration of the run's training from its first step.

        Args:
            run: Any run of the experiment.
            gpus: The number of GPUs that share each batch; 0 trains on one CPU core.
            speed: The speed of one GPU, relative to the GPU that the rates hold for.
        """
        images = total_steps(run) * run.recipe.batch_size
        if not gpus:
            rate = self.rates.cpu_gmacs_per_s.value / (PASSES * self.gmacs(run))
            return _estimate(images, rate, 0, (self._size_source(run), self.rates.cpu_gmacs_per_s.source))
        if run.task == "classification":
            rate, sources = self._classification_rate(run, gpus, speed)
        else:
            rate, sources = self._dense_rate(run, gpus, speed)
        return _estimate(images, rate, gpus, sources)

    def evaluate(self, run: Run, gpus: int, speed: float = 1.0) -> Estimate:
        """Estimate the duration of the evaluation, which takes a third of the work of a training step per image.

        Args:
            run: Any run of the experiment.
            gpus: 0 or 1.
            speed: The speed of one GPU, relative to the GPU that the rates hold for.
        """
        images = run.dataset.images["val"]
        train = self.train(run, gpus, speed)
        if not gpus:
            return _estimate(images, train.images_per_s * PASSES, 0, train.sources)
        rate = train.images_per_s * PASSES
        if run.task == "classification":
            rate = min(rate, self._loader_rate(run, 1))
        else:
            # Images are evaluated one by one, and none takes less time than the shortest step.
            rate = min(rate, 1 / self.rates.dense_seconds_per_step.value)
        return _estimate(images, rate, 1, train.sources)

    def _classification_rate(self, run: Run, gpus: int, speed: float) -> tuple[float, tuple[str, ...]]:
        assert isinstance(run.recipe, ClassificationRecipe)
        sources: tuple[str, ...]
        published = None if run.model.is_scaled else self.rates.images_per_s.get(run.model.architecture)
        if published is not None:
            area = (224 / run.recipe.image_size) ** 2
            rate, sources = published.value * area, (published.source,)
        else:
            achieved = self.rates.tmacs_per_s
            rate, sources = (
                achieved.value * 1e3 / (PASSES * self.gmacs(run)),
                (self._size_source(run), achieved.source),
            )
        slower, why = self._slowdown(run.model)
        rate = gpus * speed * rate / slower
        loaded = self._loader_rate(run, gpus)
        if loaded < rate:
            return loaded, (f"limited by data loading: {self.rates.loader_images_per_s.source}",)
        return rate, (*sources, *why)

    def _dense_rate(self, run: Run, gpus: int, speed: float) -> tuple[float, tuple[str, ...]]:
        achieved, least = self.rates.dense_tmacs_per_s, self.rates.dense_seconds_per_step
        batch = run.recipe.batch_size
        slower, why = self._slowdown(run.model)
        seconds = batch / gpus * PASSES * self.gmacs(run) / (achieved.value * 1e3 * speed)
        if seconds < least.value:
            return batch / (least.value * slower), (least.source, *why)
        return batch / (seconds * slower), (self._size_source(run), achieved.source, *why)

    def _loader_rate(self, run: Run, gpus: int) -> float:
        return gpus * max(run.recipe.workers, 1) * self.rates.loader_images_per_s.value

    def _slowdown(self, model: ModelSpec) -> tuple[float, tuple[str, ...]]:
        if not model.has_mergers:
            return 1.0, ()
        mergers = "-".join(model.mergers[1:])
        known = self.rates.slowdown
        rate = known.get(f"{mergers}/{model.size}") or known.get(mergers) or self.rates.slowdown_otherwise
        return rate.value, (f"{rate.value:g} times slower with {mergers}: {rate.source}",)

    def _size_source(self, run: Run) -> str:
        source = f"multiply-accumulates per image: {self.size(run.task, run.model).source}"
        return f"{source}, in proportion to {run.model.scale_text}" if run.model.is_scaled else source


def _estimate(images: int, rate: float, gpus: int, sources: tuple[str, ...]) -> Estimate:
    return Estimate(images / rate / 3600, gpus, rate, sources)


def total_steps(run: Run) -> int:
    """The optimiser steps of the whole training, as the engines count them."""
    return max(run.recipe.steps(run.dataset.images["train"]), 1)


def image_area(run: Run) -> int:
    """The pixels of a training image. Detection images are assumed to have an aspect ratio of up to 8:5."""
    recipe = run.recipe
    if isinstance(recipe, ClassificationRecipe):
        return recipe.image_size**2
    if isinstance(recipe, SegmentationRecipe):
        return recipe.crop_size**2
    assert isinstance(recipe, DetectionRecipe)
    long, short = max(recipe.resize), min(recipe.resize)
    return short * min(long, round(1.6 * short))


def _read_sizes(path: Path) -> dict[tuple[str, str], Size]:
    table = read_csv_table(path)
    lines = [dict(zip(table.header, fields, strict=False)) for _, fields in table.rows]
    try:
        sizes = {
            (line["task"], line["model"]): Size(int(line["params"]), float(line["gmacs"]), path.name)
            for line in lines
        }
        if not all(0 < size.params < 1e15 and 0 < size.gmacs < 1e9 for size in sizes.values()):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise UserError(Problem(str(path), "", f"expected the columns {','.join(_COLUMNS)} with numbers")) from None
    uncounted = [task for task in TASKS if not any(at == task for at, _ in sizes)]
    if uncounted:
        raise UserError(Problem(str(path), "", f"no model is counted for {', '.join(uncounted)}"))
    return sizes
