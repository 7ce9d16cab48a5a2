"""What the mergers of a model do: agreement of SIA's clusters with fixed windows, and shift of LAA's sampling points.

HAFA replaces windows of 2 x 2 positions by clusters (SIA, section 3.3) and moves the sampling points of windows (LAA,
section 3.2). A merger that forms the windows again, or does not move its points, does what it replaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from hafabench.config.recipes import ClassificationRecipe
from hafabench.data.loaders import classification_dataset
from hafabench.data.preview import spread
from hafabench.engines.classification.augmentation import eval_transform
from hafabench.engines.engine import engine_for
from hafabench.engines.sampling import Stream, seed_everything
from hafabench.engines.trained import load_trained
from hafabench.errors import Problem, UserError
from hafabench.models.hafa import LocalAdaptiveAggregation, SemanticInformationAggregation
from hafabench.models.hafa.tokens import Aggregation
from hafabench.results.record import MergerFacts, MergerMeasurement
from hafabench.runs.run import Run

IMAGES = 64
"""Number of validation images that are measured, evenly spread over the split."""

_MEASURED: tuple[tuple[Literal["laa", "sia"], type[nn.Module]], ...] = (
    ("laa", LocalAdaptiveAggregation),
    ("sia", SemanticInformationAggregation),
)


@torch.inference_mode()
def measure_mergers(run: Run, origin: Mapping[str, Any] | None = None) -> MergerMeasurement | None:
    """Measure the LAA and SIA mergers of a trained run, with its final weights and with those before its training.

    The weights before the training are the random ones of the run's seed, or for dense tasks those of the classifier
    or file that the run starts from. An evaluation does not need this file. If it is missing or has changed, only the
    final weights are measured.

    Args:
        run: A trained run.
        origin: The origin of the starting weights, as the final checkpoint records it.

    Returns:
        The means over at most `IMAGES` validation images; None if the model has neither LAA nor SIA.

    Raises:
        UserError: If the checkpoint belongs to another run, or the data cannot be read.
    """
    if not {"laa", "sia"} & set(run.model.mergers):
        return None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    forward, count = _images(run, device)
    after = merger_facts(load_trained(run, run.checkpoint).to(device), run.model.mergers, forward, count)
    try:
        untrained = untrained_model(run, origin).to(device)
    except UserError as error:
        problem = error.problems[0]
        reason = problem.message if isinstance(problem, Problem) else problem
        return MergerMeasurement(images=count, after=after, no_before=reason)
    before = merger_facts(untrained, run.model.mergers, forward, count)
    return MergerMeasurement(images=count, before=before, after=after)


def merger_facts(
    model: nn.Module, mergers: Sequence[str], forward: Callable[[nn.Module, int], object], count: int
) -> list[MergerFacts]:
    """Measure every LAA and SIA of a model.

    Args:
        model: The model, in evaluation mode.
        mergers: The merger in front of each of the four stages.
        forward: Applies the model to the image with an index.
        count: Number of images.

    Returns:
        The means over all images, one entry for each stage that begins with LAA or SIA.
    """
    kinds = {kind: name for name, kind in _MEASURED}
    modules = [module for module in model.modules() if type(module) in kinds]
    stages = [stage for stage, merger in enumerate(mergers, start=1) if merger in kinds.values()]
    values: dict[int, list[tuple[float, ...]]] = {stage: [] for stage in stages}
    with _observed(dict(zip(stages, modules, strict=True)), mergers, values):
        for index in range(count):
            forward(model, index)
    facts = []
    for stage, module in zip(stages, modules, strict=True):
        means = [float(mean) for mean in np.mean(values[stage], axis=0)]
        if isinstance(module, LocalAdaptiveAggregation):
            facts.append(MergerFacts(stage=stage, merger="laa", mean_shift=means[0]))
        else:
            rand, pairs = means
            facts.append(MergerFacts(stage=stage, merger="sia", adjusted_rand_index=rand, window_pairs=pairs))
    return facts


@contextmanager
def _observed(
    modules: dict[int, nn.Module], mergers: Sequence[str], values: dict[int, list[tuple[float, ...]]]
) -> Iterator[None]:
    """Append to ``values`` what each forward pass of each stage's merger does to each image of its batch."""
    hooks = []
    for stage, module in modules.items():
        if isinstance(module, LocalAdaptiveAggregation):
            # The offsets are the output of the convolution inside of LAA.
            observe: Any = lambda _, __, output, stage=stage: values[stage].extend(_shifts(output))  # noqa: E731
            hooks.append(module.offset.register_forward_hook(observe))
        else:
            # SIA in front of this stage and, without another merger between them, of earlier ones.
            halvings = len(list(takewhile(lambda merger: merger == "sia", reversed(mergers[:stage]))))
            observe = lambda _, __, output, stage=stage, halvings=halvings: values[stage].extend(  # noqa: E731
                _agreements(output, halvings)
            )
            hooks.append(module.register_forward_hook(observe))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _shifts(offsets: torch.Tensor) -> Iterator[tuple[float, ...]]:
    """Yield for each sample the mean length of the offsets (B, 2 k k, h, w), in positions of LAA's input."""
    pairs = offsets.double().unflatten(1, (-1, 2))
    for length in pairs.norm(dim=2).flatten(1).mean(1).tolist():
        yield (length,)


def _agreements(output: Aggregation, halvings: int) -> Iterator[tuple[float, ...]]:
    """Yield for each sample the adjusted Rand index and the share of window pairs in one cluster.

    Both compare divisions of the initial grid, the grid on which clustering first happened. Fixed down-sampling would
    have halved this grid ``halvings`` times.
    """
    table = output.tokens.table
    assert table is not None
    windows = fixed_windows(table.size, halvings)
    for clusters in table.index.cpu().numpy():
        yield agreement(clusters, windows)


def fixed_windows(size: tuple[int, int], halvings: int) -> np.ndarray:
    """Return the window (H*W,) of each position of a grid (H, W) after repeated fixed down-sampling by 2 x 2.

    Odd sides have a narrower last window. `hafabench.models.hafa.tokens.map_positions` assigns positions of the
    initial grid in proportion, which differs from repeated halving if a grid is odd.
    """
    rows, columns = (np.arange(side) >> halvings for side in size)
    return (rows[:, np.newaxis] * (int(columns[-1]) + 1) + columns).ravel()


def agreement(clusters: np.ndarray, windows: np.ndarray) -> tuple[float, float]:
    """Compare two divisions of the same positions.

    Args:
        clusters: Cluster (N,) of each position, integers from 0.
        windows: Window (N,) of each position, integers from 0.

    Returns:
        The adjusted Rand index (Hubert and Arabie, *Comparing partitions*, Journal of Classification 1985), 1 for
        equal divisions and 0 on average for independent ones; and the share of the pairs of positions in one window
        that are also in one cluster, 1 if no window has two positions.
    """
    both = np.bincount(windows * (int(clusters.max()) + 1) + clusters)
    together, in_clusters, in_windows = (
        float((sizes * (sizes - 1) / 2).sum()) for sizes in (both, np.bincount(clusters), np.bincount(windows))
    )
    pairs = len(clusters) * (len(clusters) - 1) / 2
    expected = in_clusters * in_windows / pairs if pairs else 0.0
    most = (in_clusters + in_windows) / 2
    index = 1.0 if most == expected else (together - expected) / (most - expected)
    return index, together / in_windows if in_windows else 1.0


def untrained_model(run: Run, origin: Mapping[str, Any] | None = None) -> nn.Module:
    """Build the run's model with the weights that its training started from, in evaluation mode.

    Args:
        run: The run.
        origin: The origin of the starting weights, as the final checkpoint records it.

    Raises:
        UserError: If the starting weights of a dense run are missing, or are not those of ``origin``.
    """
    seed_everything(run.seed, Stream.WEIGHTS)
    model: Any = engine_for(run.task).create_model(run)
    if run.task != "classification":
        from hafabench.engines.dense.backbone import initialise_backbone

        if run.weights is not None and not run.weights.file.exists():
            raise UserError("the file of the starting weights does not exist")
        if run.weights is None and run.parent is not None and not run.parent.checkpoint.exists():
            raise UserError(f"the checkpoint of {run.parent.id} does not exist")
        found = initialise_backbone(model.backbone.body, run, verbose=False)
        expected = (origin or {}).get("sha256")
        if expected is not None and found["sha256"] != expected:
            raise UserError("the file of the starting weights has changed since the training started from it")
    return model.eval()


def _images(run: Run, device: torch.device) -> tuple[Callable[[nn.Module, int], object], int]:
    """Return a function that applies a model to the image with an index, and the number of images."""
    if isinstance(run.recipe, ClassificationRecipe):
        data = classification_dataset(run.dataset, "val", eval_transform(run.recipe))
        chosen = list(spread(range(len(data)), IMAGES))
        return lambda model, index: model(data[chosen[index]][0].unsqueeze(0).to(device)), len(chosen)
    from hafabench.engines.dense.datasets import load_dataset
    from hafabench.engines.dense.model import load_mm

    mm = load_mm()
    with mm.scope(run.task):
        scenes: Any = load_dataset(run, "val")
    chosen = list(spread(range(len(scenes)), IMAGES))

    def forward(model: Any, index: int) -> object:
        with mm.scope(run.task):
            batch = mm.pseudo_collate([scenes[chosen[index]]])
            return model.backbone(model.data_preprocessor(batch, training=False)["inputs"])

    return forward, len(chosen)
