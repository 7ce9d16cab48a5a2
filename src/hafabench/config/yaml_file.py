"""YAML files with the line of every key, and their validation, which reports all problems at once.

Plain scalars are read by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema). PyYAML
implements YAML 1.1, in which ``24:00:00`` is 86400, ``064`` is 52 and ``no`` is false. Here the first and the last
are text, which is refused where a number is expected, and the second is 64. Dates are text as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hafabench.config.base import shown
from hafabench.config.text_file import read_text
from hafabench.errors import Problem, UserError

KeyPath = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

# Files that people write stay far below these limits, which end the reading of recursive and exploding aliases.
_MAX_DEPTH = 100
_MAX_VALUES = 100_000
_MAX_INT = 2**63
_MAX_BYTES = 2**24
_TOO_MANY = f"more than {_MAX_VALUES:,} values, aliases included"

# Text must not contain control characters other than tab and line breaks, or halves of surrogate pairs.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")

# A key, and keys inside of it, at the beginning of a message.
_KEY = re.compile(r"[a-z_]+(\.\w+)*")

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULL = ("", "~", "null", "Null", "NULL")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}")
# Snakemake reads experiment files as well, by YAML 1.1. Only texts that begin so can be more than text to it.
_MORE_THAN_TEXT = "0123456789+-.=<"


class _Loader(yaml.CSafeLoader):
    """Composes nodes whose plain scalars have one of the tags of the core schema."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]


for _name, _pattern, _first in (
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("bool", re.compile("|".join(_BOOL)), "tTfF"),
    ("null", re.compile("|".join(map(re.escape, _NULL))), ["~", "n", "N", ""]),
    ("merge", re.compile("<<"), "<"),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern.pattern})$"), list(_first))


class YamlFile:
    """The content of a YAML file and the line of each of its keys.

    Args:
        path: The file.

    Attributes:
        path: The file.
        content: Its content as plain Python containers. Keys are text.

    Raises:
        UserError: If the file cannot be read, is not valid YAML, is not a mapping, contains a key twice, or contains
            a value that cannot be represented, such as an alias of itself. Problems of keys and values are listed
            together.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._lines: dict[KeyPath, int] = {}
        self._problems: list[Problem] = []
        self._values = 0
        root = self._compose(self._read())
        if not isinstance(root, yaml.MappingNode):
            raise UserError(Problem(str(path), "", "expected a mapping of keys at the top level"))
        self.content: Any = self._value(root, (), ())
        if self._problems:
            raise UserError(self._problems)

    def _read(self) -> str:
        text = read_text(self.path, missing="no such file; expected a YAML configuration", largest=_MAX_BYTES)
        control = _CONTROL.search(text)
        if control:
            line = text.count("\n", 0, control.start()) + 1
            raise UserError(Problem(str(self.path), "", _control_message(control), line))
        return text

    def _compose(self, text: str) -> yaml.Node | None:
        """Return the root of the file's nodes; None for an empty file."""
        try:
            # libyaml builds nested nodes recursively, but reads events one by one.
            depth = 0
            for number, event in enumerate(yaml.parse(text, Loader=_Loader)):
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                message = f"nested more than {_MAX_DEPTH} levels deep" if depth > _MAX_DEPTH else None
                # Every value has at most a key and two events.
                message = _TOO_MANY if number > 3 * _MAX_VALUES else message
                if message is not None:
                    line = event.start_mark.line + 1 if event.start_mark else None
                    raise UserError(Problem(str(self.path), "", message, line))
            return yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else None
            what = [error.context if str(error.problem).startswith("but ") else None, error.problem or error.context]
            message = f"not valid YAML: {' '.join(filter(None, what))}"
            raise UserError(Problem(str(self.path), "", message, line)) from None
        except (yaml.YAMLError, ValueError) as error:
            message = f"not valid YAML: {' '.join(str(error).split())}"
            raise UserError(Problem(str(self.path), "", message)) from None

    def _refuse(self, at: KeyPath, message: str, node: yaml.Node) -> None:
        self._problems.append(Problem(str(self.path), dotted(at), message, node.start_mark.line + 1))

    def _value(self, node: yaml.Node, at: KeyPath, around: tuple[yaml.Node, ...]) -> Any:
        """Return the content of a node; note lines and problems.

        Args:
            node: The node.
            at: Its key.
            around: The nodes that contain it.
        """
        self._count(node, at, around)
        if any(node is other for other in around):
            self._refuse(at, "an alias must not refer to a node that contains it", node)
            return None
        inside = (*around, node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, at)
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            self._refuse(at, f"unknown tag {node.tag.replace(_TAG, '!!')!r}; expected a value without a tag", node)
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at, inside)
        items = []
        for index, item in enumerate(node.value):
            self._lines[(*at, index)] = item.start_mark.line + 1
            items.append(self._value(item, (*at, index), inside))
        return items

    def _count(self, node: yaml.Node, at: KeyPath, around: tuple[yaml.Node, ...]) -> None:
        """Count one more value. Aliases can nest values more deeply, and repeat more of them, than the file has."""
        self._values += 1
        message = f"nested more than {_MAX_DEPTH} levels deep" if len(around) > _MAX_DEPTH else None
        message = _TOO_MANY if self._values > _MAX_VALUES else message
        if message is not None:
            raise UserError([*self._problems, Problem(str(self.path), dotted(at), message, node.start_mark.line + 1)])

    def _mapping(self, node: yaml.MappingNode, at: KeyPath, inside: tuple[yaml.Node, ...]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _TAG + "null":
                self._refuse(at, "expected a name as key", key)
                continue
            name = key.value
            if name in seen:
                self._refuse((*at, name), "key given twice", key)
                continue
            if _CONTROL.search(name):
                self._scalar(key, at)
                continue
            seen.add(name)
            if key.tag == _TAG + "merge":
                # The keys of earlier mappings win over those of later ones.
                for other in reversed(list(self._merged(value, at))):
                    self._count(other, at, inside)
                    merged |= self._mapping(other, at, (*inside, other)) if other not in inside else {}
                    if other in inside:
                        self._refuse(at, "an alias must not refer to a node that contains it", key)
                continue
            self._lines[(*at, name)] = key.start_mark.line + 1
            own[name] = self._value(value, (*at, name), inside)
        return merged | own

    def _merged(self, node: yaml.Node, at: KeyPath) -> Iterator[yaml.MappingNode]:
        """Yield the mappings that the value of ``<<`` consists of."""
        for other in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(other, yaml.MappingNode):
                yield other
            else:
                self._refuse((*at, "<<"), "expected a mapping or a list of mappings", other)

    def _scalar(self, node: yaml.ScalarNode, at: KeyPath) -> Any:
        text = node.value
        control = _CONTROL.search(text)
        if control:
            self._refuse(at, _control_message(control), node)
            return None
        kind = node.tag.removeprefix(_TAG)
        try:
            match kind:
                case "str" | "merge":
                    if not node.style:
                        _check_plain(text)
                    return text
                case "null":
                    return None
                case "bool":
                    return _BOOL[text]
                case "int":
                    return _int(text)
                case "float":
                    return _float(text)
        except KeyError:
            self._refuse(at, f"expected true or false, found {text!r}", node)
        except ValueError as error:
            self._refuse(at, str(error) if "expected" in str(error) else f"not a number: {text[:40]!r}", node)
        else:
            tag = node.tag.replace(_TAG, "!!")
            self._refuse(at, f"unknown tag {tag!r}; expected a value without a tag", node)
        return None

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

    def _place(self, at: KeyPath, loc: tuple[str | int, ...]) -> KeyPath:
        """Return the key that pydantic means by a location inside of the value at ``at``.

        pydantic inserts names of validators and of the members of a union between the keys, such as
        ``function-before[...]`` and the name of a class.
        """
        parts = [part for part in loc if isinstance(part, int) or "[" not in part]
        for index, part in enumerate(parts):
            inside = parts[index + 1 : index + 2]
            if inside and (*at, part) not in self._lines and (*at, *inside) in self._lines:
                continue
            at = (*at, part)
        return at

    def problems_of(self, error: ValidationError, at: KeyPath = ()) -> list[Problem]:
        """Return the problems that pydantic found in the value at ``at``.

        The message of a validator of several keys begins with the key that it is about.
        """
        problems = []
        for item in error.errors():
            place, message = self._place(at, item["loc"]), describe(item)
            key, colon, rest = message.partition(": ")
            inner = (*place, *key.split("."))
            is_key = inner in self._lines or (not place and _KEY.fullmatch(key))
            if colon and item["type"] == "value_error" and is_key:
                place, message = inner, rest
            problems.append(self.problem(place, message))
        return problems


def dotted(at: KeyPath) -> str:
    """Write a path of keys as text: ``("seeds", 0)`` -> ``seeds[0]``."""
    text = ""
    for part in at:
        name = part if isinstance(part, int) or part.isprintable() else repr(part)
        text += f"[{name}]" if isinstance(part, int) else f".{name}" if text else str(name)
    return text


def _control_message(control: re.Match[str]) -> str:
    return f"contains the control character U+{ord(control.group()):04X}; expected text"


def _int(text: str) -> int:
    # Python refuses to read thousands of digits.
    value = int(text, 0 if text[:2] in ("0o", "0x") else 10) if len(text) < 100 else _MAX_INT
    if abs(value) >= _MAX_INT:
        raise ValueError(f"expected a number below 2^63, found {text[:40]}")
    return value


def _float(text: str) -> float:
    value = float(text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf").replace(".n", "n"))
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, found {text!r}")
    return value


def _check_plain(text: str) -> None:
    """Refuse a text without quotes on which Snakemake fails: a date that is none, or ``0x_``, ``=`` and ``<<``."""
    if not text or text[0] not in _MORE_THAN_TEXT:
        return
    try:
        yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        kind = "a date or a text" if _DATE.match(text) else "a text"
        raise ValueError(f"expected {kind} in quotes, found {text}") from None


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
        case "string_type" if isinstance(given, bool | int | float):
            return f"expected text, found {shown(given)}; write it in quotes"
        case _:
            message = item["msg"][0].lower() + item["msg"][1:]
            return f"{message}, found {shown(given)}" if not isinstance(given, dict | list) else message
