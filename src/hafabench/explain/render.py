"""An explanation as text, Markdown or JSON."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hafabench.explain.explanation import Details, ExplainedRun, Explanation, Origin
from hafabench.formatting.durations import format_duration
from hafabench.formatting.markdown import escape_inline, escape_markdown, markdown_block, markdown_code
from hafabench.formatting.numbers import format_significant
from hafabench.formatting.text import one_line
from hafabench.reporting.provenance import commit_text, short_digest

Section = tuple[str, list[tuple[str, str]]]
_WIDTH = 110
# The entry with a command, which is never wrapped, because wrapping would change quoted spaces.
_MADE_BY = "made by"


def to_json(explanation: Explanation) -> str:
    """The explanation as JSON, with unrounded numbers."""
    content = dataclasses.asdict(explanation)
    for run, explained in zip(content["runs"], explanation.runs, strict=True):
        for setting, own in zip(run["settings"], explained.settings, strict=True):
            setting["differs"] = own.differs
    return json.dumps(content, indent=2, default=_json_value) + "\n"


def _json_value(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"not a JSON value: {value!r}")


def to_text(explanation: Explanation) -> str:
    """The explanation for a terminal. Each command is on a separate line, so that it can be copied."""
    lines = [one_line(f"{explanation.locator}  {explanation.what}")]
    lines += [one_line(explanation.warning)] if explanation.warning else []
    for title, entries in _sections(explanation):
        lines += ["", one_line(title)]
        width = max((len(name) for name, _ in entries if name), default=0)
        for name, text in entries:
            first = f"  {name:{width}}  "
            if name == _MADE_BY:
                lines.append(first + text)
                continue
            lines += textwrap.wrap(
                text,
                _WIDTH,
                initial_indent=first,
                subsequent_indent=" " * len(first),
                break_on_hyphens=False,
                break_long_words=False,
            )
    return "\n".join([*lines, *_commands(explanation, is_markdown=False)]) + "\n"


def to_markdown(explanation: Explanation) -> str:
    """The explanation as Markdown, for an issue or an appendix."""
    lines = [f"# {escape_inline(explanation.what)}", ""]
    lines.append(f"{markdown_code(explanation.locator)} of experiment {explanation.experiment}")
    lines += ["", f"**{escape_inline(explanation.warning)}**"] if explanation.warning else []
    for title, entries in _sections(explanation):
        lines += ["", f"## {escape_inline(title)}", ""]
        lines += [f"- {escape_markdown(f'{name}: {text}' if name else text)}" for name, text in entries]
    return "\n".join([*lines, *_commands(explanation, is_markdown=True)]) + "\n"


def _commands(explanation: Explanation, *, is_markdown: bool) -> Iterator[str]:
    if explanation.remake is None:
        return
    title = "To reproduce it" if explanation.cost is None else "To produce it"
    blocks = [(title, [explanation.remake.command])]
    if explanation.remake.by_hand:
        blocks.append(("The same by hand", list(explanation.remake.by_hand)))
    for heading, commands in blocks:
        yield ""
        yield f"## {heading}" if is_markdown else heading
        # Commands are never wrapped.
        yield from ["", markdown_block(commands)] if is_markdown else (f"  {command}" for command in commands)


def _sections(explanation: Explanation) -> list[Section]:
    sections = [("Value", _value(explanation))]
    shown = [origin for origin in explanation.origins if origin.shown]
    sections += [(_heading(origin), _origin(origin)) for origin in shown]
    sections += [
        (f"{_heading(origin)}: imported, not shown beside the measured value", _origin(origin))
        for origin in explanation.origins
        if not origin.shown
    ]
    sections += _configurations(explanation.runs)
    if explanation.accounting:
        entries = [(entry["job"], _cost(entry)) for entry in explanation.accounting]
        sections.append(("Accounting", entries))
    return sections


def _cost(entry: Details) -> str:
    spent = f"{entry['hours']:.2f} h, {entry['gpu_hours']:.2f} GPU-hours"
    attempts = (
        f"{entry['jobs']} jobs, {entry['requeues']} requeues, on {', '.join(entry['nodes']) or 'unknown nodes'}"
    )
    return f"{entry['state']}, {spent}, {attempts}"


def _value(explanation: Explanation) -> list[tuple[str, str]]:
    value = explanation.value
    here = " ".join(filter(None, [value.printed, value.delta_printed]))
    is_empty = value.mean is None and value.mark in ("not run", "stale")
    # A run that is stale, interrupted or complete without a number was run; a note gives the reason.
    was_run = any(run.state != "missing" for run in explanation.runs)
    empty = "no number" if was_run else "not run in this experiment"
    entries = [("here", empty if is_empty else f"{here} ({value.mark})")]
    for model, seeds in value.by_seed.items():
        name = "seeds" if len(value.by_seed) == 1 else f"seeds, {model}"
        if seeds:
            entries.append(
                (name, ", ".join(f"{seed}: {format_significant(number)}" for seed, number in seeds.items()))
            )
    entries.append(("paper", value.paper_printed or "prints no number"))
    entries += [("verdict", f"{v.verdict} ({v.printed}): {v.because}") for v in explanation.verdicts]
    entries += [("note", note) for note in explanation.notes]
    entries += [("cost", explanation.cost)] if explanation.cost else []
    return entries


def _heading(origin: Origin) -> str:
    return f"{origin.id}: {format_significant(origin.value, 6)} {origin.unit if origin.unit != '1' else ''}".rstrip()


def _origin(origin: Origin) -> list[tuple[str, str]]:
    known = [
        ("commit", origin.commit or "unknown"),
        ("how", origin.how),
        ("device", origin.device or ("no device: counted" if origin.took else "unknown")),
        ("host", origin.host),
        ("started", ", ".join(filter(None, [origin.started, f"took {origin.took}" if origin.took else None]))),
        ("training", _training(origin)),
        ("started from", _starting_weights(origin)),
        ("checkpoint", _checkpoint(origin)),
        ("data set", short_digest(origin.dataset_digest)),
        ("logs", ", ".join(map(str, origin.logs)) or None),
        ("record", str(origin.record)),
        (_MADE_BY, origin.command),
    ]
    if origin.source is not None:
        also = "".join(f", {name} (sha256 {digest[:16]}…)" for name, digest in origin.source["also"].items())
        known += [
            ("imported", f"{origin.source['file']} (sha256 {origin.source['sha256'][:16]}…){also}"),
            ("read", origin.source["read"]),
        ]
    return [(name, text) for name, text in known if text]


def _checkpoint(origin: Origin) -> str | None:
    if origin.checkpoint is None:
        return None
    return f"{origin.checkpoint.path} ({origin.checkpoint.state}), sha256 {origin.checkpoint.sha256}"


def _starting_weights(origin: Origin) -> str | None:
    weights = origin.starting_weights
    if weights is None:
        return None
    read = f", {weights['read']}" if weights["read"] else ""
    return f"published weights, {weights['file']} (sha256 {weights['sha256'][:16]}…){read}"


def _training(origin: Origin) -> str | None:
    training = origin.training
    if not training or origin.source is not None:
        return None
    version = (training.get("packages") or {}).get("hafabench")
    changes = training.get("git_changes")
    commit = commit_text(training.get("git_commit"), training.get("git_dirty"), version=version, changes=changes)
    parts = [
        f"{training['steps']:,} steps" if "steps" in training else None,
        format_duration(training.get("seconds")),
        f"{training['images_per_s']:g} images/s" if "images_per_s" in training else None,
        f"{training['resumes']} resumes" if "resumes" in training else None,
        f"{training['processes']} processes" if training.get("processes", 1) > 1 else None,
        f"on {training['device']}" if training.get("device") else None,
        f"commit {commit}" if commit else None,
    ]
    return ", ".join(filter(None, parts)) or None


def _configurations(runs: Sequence[ExplainedRun]) -> list[Section]:
    """The configurations of the runs. Runs that differ only by their seed share a section."""
    groups: dict[str, list[ExplainedRun]] = {}
    for run in runs:
        groups.setdefault(
            json.dumps([run.model, run.dataset, [dataclasses.astuple(s) for s in run.settings]]), []
        ).append(run)
    return [
        ("Configuration of " + ", ".join(run.id for run in group), _configuration(group)) for group in groups.values()
    ]


def _configuration(group: Sequence[ExplainedRun]) -> list[tuple[str, str]]:
    first = group[0]
    states = [f"{run.id}: {run.state}" + (f" ({'; '.join(run.changes)})" if run.changes else "") for run in group]
    data = first.dataset
    images = ", ".join(f"{count:,} {split}" for split, count in data["images"].items())
    digest = f"{short_digest(data['digest'])} at the last verification" if data["digest"] else "not verified yet"
    entries = [
        ("state", "; ".join(states)),
        ("fingerprint", ", ".join(run.fingerprint for run in group)),
        (
            "model",
            ", ".join(
                [
                    first.model["architecture"],
                    f"mergers {'-'.join(first.model['mergers'])}",
                    first.model["fidelity"],
                    *([first.model["scale"]] if "scale" in first.model else []),
                ]
            ),
        ),
        ("data set", f"{data['name']} at {data['root']}: {images} images, {data['classes']} classes; {digest}"),
    ]
    if first.starts_from:
        starts = dict.fromkeys(run.starts_from for run in group if run.starts_from)
        entries.append(("starts from", ", ".join(starts)))
    changed = [setting for setting in first.settings if setting.differs]
    entries += [
        (
            setting.key,
            f"{_setting_text(setting.value)}, in the recipe {_setting_text(setting.recipe)} ({setting.source}); "
            f"{setting.why}",
        )
        for setting in changed
    ]
    same = [f"{setting.key} {_setting_text(setting.value)}" for setting in first.settings if not setting.differs]
    entries.append(("as in the recipe" if changed else "the recipe's", ", ".join(same)))
    return entries


def _setting_text(value: Any) -> str:
    return "none" if value is None else json.dumps(value).strip('"')
