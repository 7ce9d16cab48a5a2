"""The base classes of every schema of this project."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, model_validator


class StrictModel(BaseModel):
    """A pydantic model that is immutable and refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RenamedKeysModel(StrictModel):
    """A strict model with renamed keys: it reads the old spelling of a key, and refuses both spellings at once.

    A renamed field has ``validation_alias=AliasChoices(new, old, ...)``.
    """

    @model_validator(mode="before")
    @classmethod
    def _one_spelling_per_key(cls, content: Any) -> Any:
        if isinstance(content, dict):
            for field in cls.model_fields.values():
                if isinstance(field.validation_alias, AliasChoices):
                    given = [name for name in field.validation_alias.choices if name in content]
                    if len(given) > 1:
                        raise ValueError(f"{' and '.join(map(repr, given))} are the same key; give one of them")
        return content
