"""Values that no key of a configuration file expects, and strategies that put them into the content of a file."""

from __future__ import annotations

import copy
import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from hafabench.errors import Problem, UserError

KeyPath = tuple[str | int, ...]

VALUES: tuple[Any, ...] = (
    *(True, False, None, {}, [], [[]], {"a": 1}, ["a", "a"], [1, 0], [0, 1], [1, 1]),
    *(0, -1, 1, 2, 3, 7, 33, 1000, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 10**40),
    *(0.0, -0.0, 0.5, 1.0, 1.5, -0.5, 1e-9, 1e-320, 1e20, 1e308, math.nan, math.inf, -math.inf),
    *("", " ", "0", "1", "true", "nan", "inf", "1e400", "-1", "null", "classification", "pvt_tiny", "digits"),
    *("é", "x\ny", "a" * 300, "../up", "/", ".", "*", "$(id)", "{x}", "%s", "$HOME", "~nobody", "=1", "-x", "\u202e"),
)

NUMBERS = st.one_of(
    st.sampled_from([value for value in VALUES if isinstance(value, int | float)]),
    st.integers(-(2**64), 2**64),
    st.integers(0, 100),
    st.floats(allow_nan=True),
    st.floats(0, 1),
)
ANYTHING = st.one_of(
    st.sampled_from(VALUES),
    NUMBERS,
    st.text(max_size=8),
    st.lists(NUMBERS, max_size=3),
    st.lists(st.text(max_size=3)),
)


def search(examples: int) -> settings:
    """Return the settings of a test that always tries the same examples.

    Args:
        examples: Their number. The environment variable ``HAFABENCH_SEARCH`` multiplies it for a longer search.
    """
    return settings(
        max_examples=examples * int(os.environ.get("HAFABENCH_SEARCH", "1")),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def paths(content: Any, at: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of every value inside of a content, and of at most the first three items of a list."""
    if at:
        yield at
    keys = content if isinstance(content, dict) else range(min(len(content), 3)) if isinstance(content, list) else ()
    for key in keys:
        yield from paths(content[key], (*at, key))


@st.composite
def changed(draw: Any, content: dict[str, Any], values: st.SearchStrategy[Any] = ANYTHING) -> dict[str, Any]:
    """A copy of a content in which one or two values are replaced, removed or repeated, or a key is unknown."""
    found = copy.deepcopy(content)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
        at = draw(st.sampled_from(list(paths(found))))
        inside = found
        for part in at[:-1]:
            inside = inside[part]
        kind = draw(st.sampled_from(["replace"] * 8 + ["remove", "repeat", "unknown"]))
        if kind == "replace":
            inside[at[-1]] = copy.deepcopy(draw(values))
        elif kind == "remove":
            del inside[at[-1]]
        elif isinstance(inside, list):
            inside.insert(at[-1], copy.deepcopy(inside[at[-1]]))
        else:
            inside[draw(st.sampled_from(["unknown", "", "é", f"{at[-1]} "]))] = copy.deepcopy(draw(values))
    return found


@contextmanager
def in_time(seconds: int = 20) -> Iterator[None]:
    """Interrupt what takes longer."""

    def stop(number: int, frame: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read_or_refused(read: Callable[[], Any], about: str, *, whole: bool = False) -> Any:
    """Return what a reader returns, or None if it refuses its file as it should.

    Args:
        read: The reader.
        about: The beginning of the paths of the files that an error may name.
        whole: Whether an error may be about a file as a whole, without a line or a key.
    """
    with in_time():
        try:
            return read()
        except UserError as error:
            assert error.problems
            for problem in error.problems:
                assert isinstance(problem, Problem), problem
                assert problem.file.startswith(about), problem
                assert whole or problem.line is not None or problem.key, problem
                assert problem.message.strip()
                assert "\n" not in str(problem)
                assert len(str(problem)) < 1500
            return None
