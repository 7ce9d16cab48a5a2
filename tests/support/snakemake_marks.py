"""The marks by which Snakemake notes that the job of an output runs."""

from __future__ import annotations

import base64
import json
from pathlib import Path


def mark(folder: Path, output: str, slurm_job: str | None = None) -> Path:
    """Mark an output as Snakemake does while its job runs."""
    encoded = base64.urlsafe_b64encode(output.encode()).decode()
    # Snakemake cuts the name if it is longer than the names of files may be.
    parts = [encoded[i : i + 40] for i in range(0, len(encoded), 40)]
    path = folder.joinpath(".snakemake/incomplete", *(f"@{part}" for part in parts[:-1]), parts[-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"external_jobid": slurm_job}))
    return path
