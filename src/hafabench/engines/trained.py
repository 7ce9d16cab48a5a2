"""Trained models: the identity that a final checkpoint records, and models filled with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from hafabench.config.recipes import ClassificationRecipe
from hafabench.engines.engine import engine_for
from hafabench.errors import Problem, UserError
from hafabench.models.checkpoints.final import belongs_to
from hafabench.models.checkpoints.storage import Fill, expect_meta, load_checkpoint, load_strict
from hafabench.results.record import Collapse
from hafabench.runs.run import Run


def identity(run: Run) -> dict[str, Any]:
    """Return the identity that a final checkpoint of ``run`` records. If any entry differs, it is another run's."""
    found = {
        "run": run.id,
        "task": run.task,
        "model": run.model.name,
        "architecture": run.model.architecture,
        "mergers": list(run.model.mergers),
        "variant": run.model.query_mode,
        "fidelity": run.model.fidelity,
        "num_classes": run.dataset.num_classes,
        "dataset": run.dataset.name,
        "seed": run.seed,
        "fingerprint": run.fingerprint,
    }
    if isinstance(run.recipe, ClassificationRecipe):
        found["image_size"] = run.recipe.image_size
    return found


def is_trained(run: Run) -> bool:
    """Return whether the run's final checkpoint exists and belongs to the current configuration and training data.

    Raises:
        UserError: If the checkpoint cannot be read, or has changed since it was written.
    """
    return run.checkpoint.exists() and belongs_to(run, load_checkpoint(run.checkpoint))


def collapse_of(content: dict[str, Any]) -> Collapse | None:
    """Return the outcome in the final checkpoint of a run whose training collapsed; None if it has weights.

    Args:
        content: The content of the checkpoint.

    Raises:
        UserError: If the checkpoint contains something else in the place of the outcome.
    """
    found = content.get("meta", {}).get("collapse")
    try:
        return None if found is None else Collapse.model_validate(found)
    except ValidationError as error:
        raise UserError(f"meta.collapse of a final checkpoint: {error.errors()[0]['msg']}") from None


def load_trained(run: Run, checkpoint: Path, fill: Fill | None = None) -> nn.Module:
    """Return the run's model with its final weights, in evaluation mode, on the CPU.

    Args:
        run: The run whose model is built.
        checkpoint: The run's final checkpoint, or the file that ``fill`` reads.
        fill: Loads the weights into the model; `fill_trained` by default.

    Raises:
        UserError: If the checkpoint belongs to another run or does not fit the model.
    """
    model = engine_for(run.task).create_model(run)
    (fill or fill_trained)(model, run, checkpoint)
    return model.eval()


def fill_trained(model: nn.Module, run: Run, checkpoint: Path) -> None:
    """Load the weights of the run's own final checkpoint into ``model``.

    Raises:
        UserError: If the checkpoint belongs to another run or does not fit the model.
    """
    _fill(model, run, checkpoint, "state_dict")


def fill_averaged(model: nn.Module, run: Run, checkpoint: Path) -> None:
    """Load the moving average of the weights in the run's own final checkpoint into ``model``.

    Raises:
        UserError: If the checkpoint belongs to another run or does not fit the model.
    """
    _fill(model, run, checkpoint, "average")


def _fill(model: nn.Module, run: Run, checkpoint: Path, key: str) -> None:
    content = load_checkpoint(checkpoint)
    expect_meta(checkpoint, content, **identity(run))
    collapse = collapse_of(content)
    if collapse is not None:
        raise UserError(Problem(str(checkpoint), "", f"contains no weights: {collapse.clause(run.id)}"))
    try:
        load_strict(model, content.get(key), checkpoint)
    except UserError as error:
        raise UserError([*error.problems, advice_to_train_again(run, checkpoint)]) from None


def advice_to_train_again(run: Run, checkpoint: Path) -> str:
    """Return the sentence that tells what to do about a final checkpoint that cannot be used."""
    return f"restore {checkpoint} from a copy, or delete it; `hafabench train {run.id}` then trains the run again"
