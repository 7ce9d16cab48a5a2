"""The one rule for names that the user chooses: of experiments, models, data sets, measurements and rows of tables.

Names become folders and files, values of Snakemake's wildcards, words of command lines and comments of Slurm jobs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

MAX_NAME = 100
"""Most characters of a name. File systems allow 255 in the name of a file, and names are combined."""

NAME_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*"
"""A regular expression of all names, without their length. It also constrains the wildcards of the workflow."""

_NAME = re.compile(NAME_PATTERN)
# Windows cannot store files with these names, so that nobody could check out a repository with them there.
_DEVICE = re.compile(r"(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_RUN_PATTERN = re.compile(r"[A-Za-z0-9_.*?\[\]!/-]+")
_MAX_PATTERN = 3 * MAX_NAME
_SHOWN = 40


def name_problem(name: str) -> str | None:
    """Explain why a text cannot be a name; None if it can.

    A name consists of ASCII letters, digits, ``_``, ``.`` and ``-``. It begins with a letter, a digit or ``_``, and
    each ``.`` stands between two other characters. Hence it is never an option, a hidden file or a path.
    """
    shown = _shown(name)
    if not name:
        return "expected a name, found an empty text"
    if len(name) > MAX_NAME:
        return f"expected a name of at most {MAX_NAME} characters, found {len(name)}: {shown}"
    if not _NAME.fullmatch(name):
        return (
            "expected a name of letters, digits, _ and -, which may contain single dots but does not begin with . or "
            f"- (it is the name of a file or folder), found {shown}"
        )
    if _DEVICE.fullmatch(name):
        return f"expected another name, because Windows reserves {name!r}"
    return None


def pattern_problem(pattern: str) -> str | None:
    """Explain why a text cannot be a shell pattern of run ids, which consist of names; None if it can."""
    if not _RUN_PATTERN.fullmatch(pattern):
        return (
            "expected a shell pattern of run ids: names of a task, a model and a seed with the wildcards *, ? and "
            f"[], separated by slashes, such as 'classification/pvt_tiny/*', found {_shown(pattern)}"
        )
    if len(pattern) > _MAX_PATTERN:
        return f"expected a pattern of at most {_MAX_PATTERN} characters, found {len(pattern)}: {_shown(pattern)}"
    return None


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."


def _checked(name: str) -> str:
    problem = name_problem(name)
    if problem:
        raise ValueError(problem)
    return name


Name = Annotated[
    str,
    AfterValidator(_checked),
    WithJsonSchema({"type": "string", "format": "name", "pattern": f"^{NAME_PATTERN}$", "maxLength": MAX_NAME}),
]
"""A name in a file that a user writes."""


def same_folded(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs of names that are equal or differ only in case, each name with the first such name before it.

    File systems of macOS and Windows would store both in one file.
    """
    first: dict[str, str] = {}
    pairs = []
    for name in names:
        folded = name.casefold()
        if folded in first:
            pairs.append((first[folded], name))
        else:
            first[folded] = name
    return pairs
