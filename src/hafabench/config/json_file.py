"""JSON files, and their validation, which reports all problems at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hafabench.config.yaml_file import describe, dotted
from hafabench.errors import Problem, UserError

Model = TypeVar("Model", bound=BaseModel)


def read_json(path: Path, *, missing: str = "no such file") -> Any:
    """Read the content of a JSON file.

    Args:
        path: The file.
        missing: The message of the error if the file does not exist.

    Raises:
        UserError: If the file is missing or is not valid JSON, with the line of the first syntax error.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(Problem(str(path), "", missing)) from None
    except json.JSONDecodeError as error:
        raise UserError(Problem(str(path), "", f"not valid JSON: {error.msg}", error.lineno)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(Problem(str(path), "", f"cannot be read as UTF-8 text: {error}")) from None
    except (RecursionError, ValueError) as error:
        # Lists in too many levels, or an integer of thousands of digits.
        raise UserError(Problem(str(path), "", f"not valid JSON: {error}")) from None


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
        return model.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
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
