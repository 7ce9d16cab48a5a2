"""The changes as lines for a terminal, as Markdown for a pull request, and as JUnit XML for a CI server."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from hafabench.formatting.markdown import escape_markdown, markdown_table
from hafabench.formatting.numbers import format_significant
from hafabench.formatting.text import one_line
from hafabench.regression.changes import VERDICTS, Change, Changes, failing_verdicts

_HEADER = ("", "metric", "baseline", "candidate", "change", "interval", "detectable", "limit", "method")
_UNKNOWN = "-"
_MARKS = {"worse": "❌", "missing": "❌", "better": "✅", "cannot tell": "❔", "no change": "⚪", "new": "🆕"}


def summary(changes: Changes) -> str:
    """Return the number of changes with each verdict, in one line."""
    return ", ".join(f"{changes.count(verdict)} {verdict}" for verdict in VERDICTS if changes.count(verdict))


def text(changes: Changes) -> str:
    """Return a line for every metric whose verdict is not ``no change``, then the summary."""
    lines = [
        f"{change.verdict:<11} {_sentence(change)}" for change in changes.changes if change.verdict != "no change"
    ]
    lines += [f"note        {one_line(note)}" for note in changes.notes]
    return "\n".join([*lines, summary(changes)])


def markdown(changes: Changes, title: str, *, strict: bool = False) -> str:
    """Return a comment for a pull request, with a table of what changed and a folded table of what did not."""
    outcome = "failed" if changes.failed(strict=strict) else "passed"
    changed = [change for change in changes.changes if change.verdict != "no change"]
    unchanged = [change for change in changes.changes if change.verdict == "no change"]
    parts = [f"### {title}: {outcome}", f"{summary(changes)}."]
    if changed:
        parts.append(_table(changed))
    if changes.notes:
        parts.append(_list(changes.notes))
    if unchanged:
        heading = f"<summary>{len(unchanged)} without a change that matters</summary>"
        parts.append(f"<details>{heading}\n\n{_table(unchanged)}\n\n</details>")
    parts.append(
        f"Each interval has {100 * (1 - changes.level):.4g} % confidence. *Detectable* is the smallest change that "
        "is found with 80 % power, *limit* the largest change that does not matter."
    )
    return "\n\n".join(parts) + "\n"


def markdown_of_problems(problems: Sequence[str], title: str) -> str:
    """Return a comment for a pull request about two folders that cannot be compared."""
    return f"### {title}: not compared\n\n{_list(problems)}\n"


def junit_of_problems(problems: Sequence[str], name: str) -> str:
    """Return JUnit XML with one test case, whose error is that two folders cannot be compared."""
    suite = ElementTree.Element("testsuite", name=name, tests="1", failures="0", skipped="0", errors="1")
    case = ElementTree.SubElement(suite, "testcase", classname=name, name="comparison")
    ElementTree.SubElement(case, "error", message=one_line("; ".join(problems)))
    return _xml(suite)


def junit(changes: Changes, name: str, *, strict: bool = False) -> str:
    """Return JUnit XML with a test case per metric.

    Worse and missing metrics fail. Those with the verdict ``cannot tell`` are skipped, or fail if ``strict``.
    """
    failing = failing_verdicts(strict=strict)
    skipped = {"cannot tell"} - failing
    suite = ElementTree.Element(
        "testsuite",
        name=name,
        tests=str(len(changes.changes)),
        failures=str(sum(change.verdict in failing for change in changes.changes)),
        skipped=str(sum(change.verdict in skipped for change in changes.changes)),
        errors="0",
    )
    for change in changes.changes:
        key, message = change.key, f"{change.verdict}: {_sentence(change)}"
        classname = one_line(f"{key.group}.{key.model}".replace("/", "."))
        case = ElementTree.SubElement(suite, "testcase", classname=classname, name=one_line(key.metric))
        if change.verdict in failing:
            ElementTree.SubElement(case, "failure", message=message)
        elif change.verdict in skipped:
            ElementTree.SubElement(case, "skipped", message=message)
        else:
            ElementTree.SubElement(case, "system-out").text = message
    return _xml(suite)


def _xml(suite: ElementTree.Element) -> str:
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _table(changes: Sequence[Change]) -> str:
    rows = []
    for change in changes:
        method = "; ".join(filter(None, (change.effect.method if change.effect else "", *change.notes)))
        verdict = f"{_MARKS[change.verdict]} {change.verdict}"
        rows.append((verdict, str(change.key), *_numbers(change), method))
    return markdown_table(_HEADER, rows, "llrrrrrrl")


def _list(texts: Sequence[str]) -> str:
    return "\n".join(f"- {escape_markdown(text)}" for text in texts)


def _sentence(change: Change) -> str:
    before, after, difference, interval, detectable, limit = _numbers(change)
    notes = "".join(f"; {note}" for note in change.notes)
    if change.effect is None:
        return one_line(f"{change.key}: {before} -> {after}{notes}")
    return one_line(
        f"{change.key}: {before} -> {after}, {difference} {interval}, limit {limit}, detectable {detectable} "
        f"({change.effect.method}){notes}"
    )


def _numbers(change: Change) -> tuple[str, str, str, str, str, str]:
    """Return baseline, candidate, change, interval, smallest detectable change and limit."""
    unit = "" if change.unit == "1" else f" {change.unit}"
    before, after = (
        f"{format_significant(value)}{unit}" if value is not None else _UNKNOWN
        for value in (change.baseline, change.candidate)
    )
    effect = change.effect
    if effect is None:
        return before, after, _UNKNOWN, _UNKNOWN, _UNKNOWN, _UNKNOWN
    interval = "no interval"
    if effect.low is not None and effect.high is not None:
        interval = f"[{', '.join(format_significant(bound, signed=True) for bound in (effect.low, effect.high))}]"
    detectable = "any" if effect.detectable == 0 else _format(effect.detectable)
    return before, after, format_significant(effect.change, signed=True), interval, detectable, _format(change.limit)


def _format(value: float | None) -> str:
    return _UNKNOWN if value is None else format_significant(value)
