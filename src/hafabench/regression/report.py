"""Findings for people and machines: lines for a terminal, Markdown for a pull request, JUnit XML for a CI server."""

from __future__ import annotations

from xml.etree import ElementTree

from hafabench.formatting.markdown import markdown_table
from hafabench.formatting.numbers import format_significant
from hafabench.regression.compare import FAILURES, VERDICTS, Comparison, Finding

_HEADER = ("", "what", "baseline", "candidate", "change", "interval", "could have seen", "limit", "by")
_NOTHING = "-"
_MARKS = {"worse": "❌", "missing": "❌", "better": "✅", "cannot tell": "❔", "no change": "⚪", "new": "🆕"}


def headline(comparison: Comparison) -> str:
    """How many of each verdict, in one line."""
    counts = [f"{comparison.count(verdict)} {verdict}" for verdict in VERDICTS if comparison.count(verdict)]
    return ", ".join(counts)


def text(comparison: Comparison) -> str:
    """Lines: everything but what did not change, which is counted."""
    lines = []
    for finding in comparison.findings:
        if finding.verdict != "no change":
            lines.append(f"{finding.verdict:<11} {_sentence(finding)}")
    lines += [f"note        {note}" for note in comparison.notes]
    return "\n".join([*lines, headline(comparison)])


def markdown(comparison: Comparison, title: str, *, strict: bool = False) -> str:
    """A comment for a pull request: what changed in a table, what did not folded away."""
    state = "shut" if comparison.failed(strict=strict) else "open"
    shown = [finding for finding in comparison.findings if finding.verdict != "no change"]
    same = [finding for finding in comparison.findings if finding.verdict == "no change"]
    parts = [f"### {title}: {state}", f"{headline(comparison)}."]
    if shown:
        parts.append(_table(shown))
    if comparison.notes:
        parts.append("\n".join(f"- {note}" for note in comparison.notes))
    if same:
        summary = f"<summary>{len(same)} without a change that matters</summary>"
        parts.append(f"<details>{summary}\n\n{_table(same)}\n\n</details>")
    parts.append(
        f"Intervals are at {100 * (1 - comparison.level):.4g} % each. Could have seen: the smallest change found "
        "with 80 % power. Limit: the largest change that does not matter."
    )
    return "\n\n".join(parts) + "\n"


def junit(comparison: Comparison, name: str, *, strict: bool = False) -> str:
    """One test case per metric; worse and missing fail, cannot tell is skipped (strictly: fails)."""
    failing = {*FAILURES, *(("cannot tell",) if strict else ())}
    suite = ElementTree.Element(
        "testsuite",
        name=name,
        tests=str(len(comparison.findings)),
        failures=str(sum(finding.verdict in failing for finding in comparison.findings)),
        skipped=str(sum(f.verdict == "cannot tell" for f in comparison.findings) if not strict else 0),
        errors="0",
    )
    for finding in comparison.findings:
        cell = finding.cell
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"{cell.group}.{cell.model}".replace("/", "."), name=cell.metric
        )
        if finding.verdict in failing:
            ElementTree.SubElement(case, "failure", message=f"{finding.verdict}: {_sentence(finding)}")
        elif finding.verdict == "cannot tell":
            ElementTree.SubElement(case, "skipped", message=f"cannot tell: {_sentence(finding)}")
        else:
            ElementTree.SubElement(case, "system-out").text = f"{finding.verdict}: {_sentence(finding)}"
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _table(findings: list[Finding]) -> str:
    rows = []
    for finding in findings:
        by = "; ".join(filter(None, (finding.effect.by if finding.effect else "", *finding.notes)))
        mark = f"{_MARKS[finding.verdict]} {finding.verdict}"
        rows.append((mark, f"`{finding.cell}`", *_numbers(finding), by))
    return markdown_table(_HEADER, rows, "llrrrrrrl", is_markdown=True)


def _sentence(finding: Finding) -> str:
    before, after, change, interval, seen, limit = _numbers(finding)
    notes = "".join(f"; {note}" for note in finding.notes)
    if finding.effect is None:
        return f"{finding.cell}: {before} -> {after}{notes}"
    return (
        f"{finding.cell}: {before} -> {after}, {change} {interval}, limit {limit}, could have seen {seen} "
        f"({finding.effect.by}){notes}"
    )


def _numbers(finding: Finding) -> tuple[str, str, str, str, str, str]:
    """Baseline, candidate, change, interval, smallest visible change, limit."""
    unit = "" if finding.unit == "1" else f" {finding.unit}"
    before, after = (
        f"{format_significant(value)}{unit}" if value is not None else _NOTHING
        for value in (finding.baseline, finding.candidate)
    )
    effect = finding.effect
    if effect is None:
        return before, after, _NOTHING, _NOTHING, _NOTHING, _NOTHING
    interval = "no interval"
    if effect.low is not None and effect.high is not None:
        interval = f"[{', '.join(format_significant(bound, signed=True) for bound in (effect.low, effect.high))}]"
    seen = "any" if effect.detectable == 0 else _NOTHING
    if effect.detectable:
        seen = format_significant(effect.detectable)
    change = format_significant(effect.change, signed=True)
    return before, after, change, interval, seen, format_significant(finding.limit)
