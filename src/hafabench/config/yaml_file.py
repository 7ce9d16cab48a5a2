"""YAML files with the line of every key, and their validation, which reports all problems at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hafabench.errors import Problem, UserError

KeyPath = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class YamlFile:
    """The content of a YAML file and the line of each of its keys.

    Args:
        path: The file.

    Attributes:
        path: The file.
        content: Its content as plain Python containers.

    Raises:
        UserError: If the file cannot be read, is not valid YAML, is not a mapping, or contains a key twice.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(Problem(str(path), "", "no such file; expected a YAML configuration")) from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(Problem(str(path), "", f"cannot be read as UTF-8 text: {error}")) from None
        self._lines: dict[KeyPath, int] = {}
        try:
            root = yaml.compose(text, Loader=yaml.CSafeLoader)
            self.content: Any = yaml.load(text, Loader=yaml.CSafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else None
            message = f"not valid YAML: {error.problem or error.context}"
            raise UserError(Problem(str(path), "", message, line)) from None
        if root is None or not isinstance(self.content, dict):
            raise UserError(Problem(str(path), "", "expected a mapping of keys at the top level"))
        self._duplicates: list[Problem] = []
        self._index(root, ())
        if self._duplicates:
            raise UserError(self._duplicates)

    def _index(self, node: yaml.Node, at: KeyPath) -> None:
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                line = key.start_mark.line + 1
                if key.value in seen:
                    name = dotted((*at, key.value))
                    self._duplicates.append(Problem(str(self.path), name, "key given twice", line))
                seen.add(key.value)
                self._lines[(*at, key.value)] = line
                self._index(value, (*at, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._lines[(*at, index)] = value.start_mark.line + 1
                self._index(value, (*at, index))

    def line(self, at: KeyPath) -> int | None:
        """Return the line of the key at ``at``, or of the innermost key around it that the file contains."""
        while at:
            if at in self._lines:
                return self._lines[at]
            at = at[:-1]
        return None

    def spelling(self, at: KeyPath, *names: str) -> str:
        """Return the spelling of a key, out of ``names``, that the mapping at ``at`` uses; by default the first."""
        return next((name for name in names if (*at, name) in self._lines), names[0])

    def problem(self, at: KeyPath, message: str) -> Problem:
        """Return a problem of the key at ``at``, with its line."""
        return Problem(str(self.path), dotted(at), message, self.line(at))

    def validate(self, model: type[Model]) -> Model:
        """Return the content as ``model``.

        Raises:
            UserError: With every problem of the content.
        """
        try:
            return model.model_validate(self.content)
        except ValidationError as error:
            raise UserError(self.problems_of(error)) from None

    def problems_of(self, error: ValidationError, at: KeyPath = ()) -> list[Problem]:
        """Return the problems that pydantic found in the value at ``at``."""
        return [self.problem((*at, *_key_path(item["loc"])), describe(item)) for item in error.errors()]


def dotted(at: KeyPath) -> str:
    """Write a path of keys as text: ``("seeds", 0)`` -> ``seeds[0]``."""
    text = ""
    for part in at:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _key_path(loc: tuple[str | int, ...]) -> KeyPath:
    # pydantic inserts names of validators and union members, such as "function-before[...]", between the keys.
    return tuple(part for part in loc if isinstance(part, int) or "[" not in part)


def describe(item: ErrorDetails) -> str:
    """Return the message of a pydantic error: what was expected and what was found."""
    given = item.get("input")
    match item["type"]:
        case "extra_forbidden":
            return "unknown key"
        case "missing":
            return "required key is missing"
        case "value_error" | "assertion_error":
            return str(item["ctx"]["error"])
        case _:
            message = item["msg"][0].lower() + item["msg"][1:]
            return f"{message}, found {given!r}" if not isinstance(given, dict | list) else message
