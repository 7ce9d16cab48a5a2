"""The final checkpoint of a run, and its second name in the work folder.

Snakemake deletes the output of a job before it starts the job again. The driver that follows a killed one may do this
after the training of the killed driver has finished, and so may one beside which a training was started by hand. The
final checkpoint therefore has a second name in the work folder, which is no output of a rule, until an evaluation by
the workflow proves that the workflow knows that the training has finished.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from hafabench.engines.trained import checkpoint_findings
from hafabench.engines.training_state import STATE
from hafabench.errors import UserError
from hafabench.files import atomic_path, is_file_or_temporary, remove_made
from hafabench.models.checkpoints.final import belongs_to
from hafabench.models.checkpoints.storage import load_checkpoint, save_checkpoint
from hafabench.runs.paths import STATE_SUMMARY
from hafabench.runs.run import Run


def save_final(run: Run, content: dict[str, Any], check: Callable[[], None]) -> None:
    """Write the final checkpoint of a run under both names.

    Args:
        run: The run.
        content: The content of the checkpoint.
        check: Raises an error if this process must no longer write.

    Raises:
        UserError: If the checkpoint cannot be written.
    """
    save_checkpoint(run.kept_checkpoint, content, check)
    _put_in_place(run, check)


def restore_final(run: Run, check: Callable[[], None]) -> bool:
    """Restore a deleted final checkpoint from its second name, and return whether it could be restored.

    It is not restored if it is damaged, or of another configuration, other training data or other starting weights
    than the run has now.

    Args:
        run: The run.
        check: Raises an error if this process must no longer write.
    """
    if run.checkpoint.exists() or not run.kept_checkpoint.is_file():
        return False
    # A run whose checkpoint is the second name.
    if checkpoint_findings(replace(run, folder=run.work)):
        return False
    if not belongs_to(run, load_checkpoint(run.kept_checkpoint)):
        return False
    _put_in_place(run, check)
    return True


def discard_state(run: Run) -> None:
    """Remove the training state of a run, which is no longer needed once the final checkpoint is written."""
    with suppress(UserError):
        remove_made(run.work, lambda path: is_file_or_temporary(path, STATE, STATE_SUMMARY))


def discard_kept(run: Run) -> None:
    """Remove the second name of the final checkpoint, and the work folder if nothing else is in it."""
    run.kept_checkpoint.unlink(missing_ok=True)
    with suppress(OSError):
        run.work.rmdir()


def _put_in_place(run: Run, check: Callable[[], None]) -> None:
    with atomic_path(run.checkpoint) as temporary:
        try:
            os.link(run.kept_checkpoint, temporary)
        except OSError:
            # This file system has no hard links.
            shutil.copyfile(run.kept_checkpoint, temporary)
        check()
