"""The interface of the two engines, and the choice between them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import nn

from hafabench.models.checkpoints.storage import Fill
from hafabench.results.record import Metric
from hafabench.runs.run import Run


class Engine(Protocol):
    """The functions that `hafabench.engines.classification` and `hafabench.engines.dense` provide."""

    def create_model(self, run: Run) -> nn.Module:
        """Build the run's model with random weights, on the current device."""

    def train(self, run: Run) -> None:
        """Train the run and write its final checkpoint; resume an interrupted training from its last state.

        On CPU the weights are bit for bit those of an uninterrupted training with the same number of processes and
        threads. A run that is already trained is left unchanged.

        Under torchrun the processes share each batch. The first process writes ``run.history``, a state in
        ``run.work`` every ``checkpoint_every`` steps, and finally ``run.checkpoint``; then it removes the state.
        Meanwhile it holds the lease of the run (`hafabench.runs.lease`).

        If loss, gradients or weights are no longer finite, the training has collapsed: ``run.checkpoint`` then
        contains this outcome and no weights. The same holds if the training of the starting weights collapsed.

        Raises:
            UserError: If the recipe does not fit the data or the processes, the data or the starting weights cannot
                be used, or another process trains or evaluates the run.
            SystemExit: With code 75 after a request to stop. The state has been saved.
        """

    def evaluate(
        self,
        run: Run,
        checkpoint: Path,
        fill: Fill | None = None,
        keep: Path | None = None,
        outputs: Path | None = None,
    ) -> list[Metric]:
        """Evaluate a checkpoint on the run's validation split.

        Args:
            run: The run whose model is evaluated.
            checkpoint: The run's final checkpoint, or the file that ``fill`` reads.
            fill: Loads the weights into the model. The default, `fill_trained`, accepts the run's own checkpoint
                only.
            keep: If given, the results of the single images are written to this file.
            outputs: If given, the detections or label maps are written to this folder, which is replaced.

        Returns:
            Metrics in percent. Their ``repeats`` is the number of images.

        Raises:
            UserError: If the checkpoint belongs to another run, the data cannot be read, or the task has no outputs
                to write.
        """


def engine_for(task: str) -> Engine:
    """Return the engine of a task."""
    if task == "classification":
        from hafabench.engines import classification

        return classification
    from hafabench.engines import dense

    return dense
