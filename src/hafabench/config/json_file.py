"""JSON files, and their validation, which reports all problems at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hafabench.config.text_file import read_bytes, read_text
from hafabench.config.yaml_file import describe, dotted
from hafabench.errors import Problem, UserError

Model = TypeVar("Model", bound=BaseModel)

# Annotations of large data sets have a few 10^9 bytes.
_LARGEST = 2**34


def read_json(path: Path, *, missing: str = "no such file") -> Any:
    """Read the content of a JSON file.

    Args:
        path: The file.
        missing: The message of the error if the file does not exist.

    Raises:
        UserError: If the file is missing or is not valid JSON, with the line of the first syntax error.
    """
    text = read_text(path, missing=missing, largest=_LARGEST)
    if not text.strip():
        raise UserError(Problem(str(path), "", "not valid JSON: the file is empty"))
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        raise UserError(Problem(str(path), "", f"not valid JSON: {error.msg}", error.lineno)) from None


def parse_json(text: str) -> Any:
    """Return the content of a JSON text.

    Raises:
        json.JSONDecodeError: If the text is not valid JSON, is nested too deeply or contains too large a number.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", text, 0) from None
    except ValueError as error:
        raise json.JSONDecodeError(f"a number is too large ({error})".partition(";")[0], text, 0) from None


def read_json_object(path: Path) -> dict[str, Any] | None:
    """Read a JSON object from a file; None if the file does not exist or does not contain an object."""
    try:
        content = read_json(path)
    except UserError:
        return None
    return content if isinstance(content, dict) else None


def read_json_model(path: Path, model: type[Model], *, missing: str = "no such file") -> Model:
    """Read a JSON file and validate it.

    If the model has a field ``schema`` and the file has another schema, this is the only problem that is reported.

    Args:
        path: The file.
        model: The pydantic model of its content.
        missing: The message of the error if the file does not exist.

    Raises:
        UserError: If the file is missing, is not valid JSON, or does not fit the model; every problem is listed.
    """
    try:
        # pydantic's own JSON parser is faster. Invalid files are read again below, for better messages.
        return model.model_validate_json(read_bytes(path, missing=missing))
    except ValidationError:
        content = read_json(path, missing=missing)
    schema = model.model_fields.get("schema_")
    if schema is not None:
        found = content.get("schema") if isinstance(content, dict) else None
        if found != schema.default:
            raise UserError(Problem(str(path), "schema", f"expected {schema.default!r}, found {found!r}"))
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = [Problem(str(path), dotted(item["loc"]), describe(item)) for item in error.errors()]
        raise UserError(problems) from None
