"""The base classes of every schema of this project."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

# Characters of a value in a message.
_SHOWN = 60
# Bytes of a path, and of the name of one file, that Linux allows.
_LONGEST_PATH, _LONGEST_NAME = 4095, 255

_VARIABLE = re.compile(r"\$(?:(\$)|([A-Za-z_]\w*)|\{([^}]*)\})")


def _checking_numbers(schema: Any) -> Any:
    if isinstance(schema, list | tuple):
        return type(schema)(map(_checking_numbers, schema))
    if not isinstance(schema, dict):
        return schema
    if schema.get("function") == {"type": "no-info", "function": _like_a_number}:
        return schema
    if schema.get("type") in ("int", "float"):
        return core_schema.no_info_before_validator_function(_like_a_number, schema)
    if schema.get("type") == "bool":
        return {**schema, "strict": True}
    return {
        key: value if key in ("metadata", "serialization", "default") else _checking_numbers(value)
        for key, value in schema.items()
    }


def _like_a_number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"expected a number, found {str(value).lower()}")
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value  # pydantic refuses it.
        if math.isfinite(number):
            raise ValueError(f"expected a number, found the text {shown(value)}; write it without quotes")
        raise ValueError(f"expected a finite number, found {shown(value)}")
    return value


def shown(value: Any) -> str:
    """Return a value as messages show it, which is cut if it is long."""
    if isinstance(value, str):
        return repr(value) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}..."
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


class StrictModel(BaseModel):
    """A pydantic model that is immutable and refuses unknown keys and values of another type.

    Pydantic takes true and a text for a number, a number and a text for true or false, and accepts numbers that are
    not finite. Here they are refused. A whole number may be written as ``8e4``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema of pydantic in which every number is checked by `_like_a_number` first."""
        checked: CoreSchema = _checking_numbers(handler(source))
        return checked


def checking_numbers(annotation: Any) -> Any:
    """Return an annotation whose numbers are checked as in a `StrictModel`, for a `pydantic.TypeAdapter`."""

    class Checking:
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
            checked: CoreSchema = _checking_numbers(handler(source))
            return checked

    return Annotated[annotation, Checking]


def _expanded(path: Any) -> Any:
    """Replace ``~`` and environment variables in a path; ``$$`` stands for a dollar sign."""
    if not isinstance(path, str):
        return path
    if not path.strip():
        raise ValueError("expected a path, found an empty text")

    def value_of(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        name = match[2] or match[3]
        value = os.environ.get(name)
        if not value:
            state = "not set" if value is None else "empty"
            raise ValueError(
                f"the environment variable {name} is {state} (write $$ for a dollar sign), found {path!r}"
            )
        return value

    expanded = _VARIABLE.sub(value_of, path)
    try:
        encoded = os.fsencode(expanded)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"this environment has the encoding {error.encoding}, which cannot represent the path "
            f"(set PYTHONUTF8=1), found {shown(path)}"
        ) from None
    if len(encoded) > _LONGEST_PATH or any(len(name) > _LONGEST_NAME for name in encoded.split(b"/")):
        raise ValueError(
            f"expected a path of at most {_LONGEST_PATH} bytes with names of at most {_LONGEST_NAME}, "
            f"found {shown(path)}"
        )
    if b"\0" in encoded:
        raise ValueError(f"expected a path without NUL characters, found {shown(path)}")
    try:
        return Path(expanded).expanduser() if path.startswith("~") else expanded
    except RuntimeError:
        raise ValueError(
            f"there is no home folder {path.partition('/')[0]} (write ./~ for a name), found {path!r}"
        ) from None


# A path in a file that a user writes.
UserPath = Annotated[Path, BeforeValidator(_expanded)]


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
