"""Whether a run has a final checkpoint that need not be made again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hafabench.errors import UserError
from hafabench.models.checkpoints.storage import load_checkpoint, meta_of
from hafabench.runs.run import Run
from hafabench.runs.verified_data import data_changes


def is_finished(run: Run) -> bool:
    """Return whether the run's final checkpoint is complete, unchanged, and of the present configuration and data.

    A file that cannot be read, or whose content has changed since it was written, is not finished. The file is only
    read.
    """
    try:
        content = load_checkpoint(run.checkpoint)
        return belongs_to(run, content) and ("state_dict" in content or "collapse" in content["meta"])
    except UserError:
        return False


def belongs_to(run: Run, content: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint was made under the run's present configuration, from its present training data.

    Args:
        run: The run.
        content: The content of the checkpoint.

    Raises:
        UserError: If the checkpoint does not say of which run it is.
    """
    meta = meta_of(run.checkpoint, content)
    digest = (meta.get("training") or {}).get("listing_digest")
    return meta.get("fingerprint") == run.fingerprint and not data_changes(run, {"train": digest})
