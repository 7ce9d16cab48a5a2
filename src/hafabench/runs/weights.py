"""Published weights from which dense runs start; imports no torch.

The weights are identified by the SHA-256 of their file, so that the file may be moved or renamed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hafabench.config.custom_models import WeightsConfig
from hafabench.config.json_file import read_json_object
from hafabench.errors import UserError
from hafabench.files import sha256_of_large

if TYPE_CHECKING:
    from hafabench.runs.run import Run


@dataclass(frozen=True)
class StartingWeights:
    """Published weights from which a dense run starts.

    Attributes:
        file: The file.
        sha256: The SHA-256 of the file, or that of the file which the run was trained from if the file no longer
            exists; None if the file is missing and nothing was trained from it.
        part: The entry of the file that contains the weights; None if it follows from the file.
        renames: For each prefix of names in the file, the prefix in the model.
    """

    file: Path
    sha256: str | None
    part: str | None = None
    renames: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The name of the file with its SHA-256: ``pvt_tiny.pth (sha256 0123456789ab)``."""
        return describe_weights(self.as_record())

    def identity(self) -> dict[str, Any]:
        """What identifies the weights, without the path of the file. It is part of a run's fingerprint."""
        return {key: value for key, value in self.as_record().items() if key != "file"}

    def as_record(self) -> dict[str, Any]:
        """The weights as plain data, as they are stored in the folder of the run."""
        return {"file": str(self.file), "sha256": self.sha256, "part": self.part, "rename": dict(self.renames)}


def describe_weights(weights: Mapping[str, Any]) -> str:
    """Describe stored weights (`StartingWeights.as_record`) by the name of their file and what was read from it."""
    digest = weights.get("sha256")
    clauses = [f"sha256 {digest[:12]}" if digest else "missing"]
    clauses += [weights["part"]] if weights.get("part") else []
    clauses += [f"{old} renamed to {new}" for old, new in (weights.get("rename") or {}).items()]
    return f"{Path(weights['file']).name} ({', '.join(clauses)})"


def missing_weights(runs: Iterable[Run]) -> list[str]:
    """Describe the files of published weights that are missing and from which runs have yet to be trained."""
    missing = {
        run.model.name: f"weights of {run.model.name} are not at {run.weights.file}"
        for run in runs
        if run.weights is not None and not run.weights.file.is_file() and not run.checkpoint.exists()
    }
    return list(missing.values())


def starting_weights(config: WeightsConfig, run_folder: Path) -> StartingWeights:
    """Return the weights that an experiment file names for a run whose files are stored in ``run_folder``."""
    try:
        digest: str | None = sha256_of_large(config.file)
    except (OSError, UserError):
        digest = _trained_from(run_folder)
    return StartingWeights(config.file, digest, config.part, config.rename)


def _trained_from(run_folder: Path) -> str | None:
    """Return the SHA-256 that a training stored, so that results can be read where the weights are not."""
    stored = (read_json_object(run_folder / "config.json") or {}).get("weights")
    digest = stored.get("sha256") if isinstance(stored, dict) else None
    return digest if isinstance(digest, str) else None
