"""The base of every schema of this project."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A pydantic model that is immutable and refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
