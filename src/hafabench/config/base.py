"""The base classes of every schema of this project."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, model_validator


class StrictModel(BaseModel):
    """A pydantic model that is immutable and refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _add_old_spellings(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Allow the old spellings of renamed keys in a JSON Schema and mark them as deprecated."""
    for field in model.model_fields.values():
        if not isinstance(field.validation_alias, AliasChoices):
            continue
        new, *old = map(str, field.validation_alias.choices)
        properties, required = schema["properties"], schema.get("required", [])
        about = {"description": f"Old spelling of `{new}`.", "deprecated": True}
        properties.update({name: {**properties[new], **about} for name in old})
        if new in required:
            required.remove(new)
            schema["anyOf"] = [{"required": [name]} for name in (new, *old)]


class RenamedKeysModel(StrictModel):
    """A strict model with renamed keys: it reads the old spelling of a key, and refuses both spellings at once.

    A renamed field has ``validation_alias=AliasChoices(new, old, ...)``.
    """

    model_config = ConfigDict(json_schema_extra=_add_old_spellings)

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
