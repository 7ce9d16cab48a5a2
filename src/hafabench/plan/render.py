"""Plans as Markdown and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hafabench.formatting.durations import format_duration
from hafabench.formatting.markdown import escape_inline, escape_markdown, markdown_table
from hafabench.plan.hours import PlannedJob
from hafabench.plan.plan import Plan

_SHOWN_STALE = 20


def to_json(plan: Plan) -> str:
    """The plan as a JSON object."""
    content = {
        "schema": "hafabench.plan/1",
        "experiment": plan.experiment,
        "gpu": plan.gpu,
        "speed": plan.speed,
        "gpu_hours": plan.gpu_hours,
        "gpu_hours_left": plan.gpu_hours_left,
        "tables": [asdict(table) for table in plan.tables],
        "schedule": asdict(plan.schedule),
        "disk_gb": {**asdict(plan.disk), "total": plan.disk.total},
        "stale": [asdict(item) for item in plan.stale],
        "questions": [asdict(question) | {"runs": sorted(question.runs)} for question in plan.questions],
        "selection": asdict(plan.selection) if plan.selection else None,
        "jobs": [_job(job) for job in plan.jobs.values()],
    }
    return json.dumps(content, indent=2) + "\n"


def _job(planned: PlannedJob) -> dict[str, Any]:
    job = planned.job
    return {
        "id": job.id,
        "rule": job.rule,
        "subject": job.subject,
        "needs": job.needs,
        "resources": asdict(planned.resources),
        "hours": planned.hours,
        "hours_anew": planned.hours_from_scratch,
        "state": planned.state,
        "sources": planned.sources,
        "gpu_hours": planned.gpu_hours,
        "gpu_hours_anew": planned.gpu_hours_from_scratch,
        "attempts": planned.resources.attempts,
    }


def to_markdown(plan: Plan, *, listing: bool = False) -> str:
    """The plan as Markdown.

    Args:
        plan: The plan.
        listing: Whether to list every job with its request and the source of its estimate.
    """
    blocks = [
        f"# Plan of {plan.experiment}: {escape_inline(plan.title)}",
        _summary(plan),
        _table_costs(plan),
        _path(plan),
        _disk(plan),
        _stale(plan),
        _selection(plan),
        _listing(plan) if listing else "",
        _sources(plan),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def targets(plan: Plan, results: Path) -> list[str]:
    """The files to request from the workflow so that exactly the selected runs are trained and evaluated."""
    assert plan.selection is not None
    return [str(results / run / "evaluate.json") for run in plan.selection.runs]


def _summary(plan: Plan) -> str:
    rules = Counter(planned.job.rule for planned in plan.jobs.values())
    undone = [job for job in plan.jobs.values() if job.state != "done"]
    states: Counter[str] = Counter(state.state for state in plan.runs.values())
    speed = "" if plan.speed == 1 else f", assumed to be {plan.speed:g} times as fast"
    scheduled = plan.schedule
    shortest = format_duration(3600 * scheduled.critical_hours)
    lines = [
        f"- {len(plan.runs)} runs ({_counts(states)}); {len(plan.jobs)} jobs, {len(undone)} to do: {_counts(rules)}",
    ]
    if any(job.resources.gpus for job in plan.jobs.values()):
        left, total = plan.gpu_hours_left, plan.gpu_hours
        lines += [
            f"- GPU-hours: **{left:,.0f}** to go, {total:,.0f} from scratch ({escape_inline(plan.gpu)}{speed})",
            f"- on {scheduled.gpus} GPUs: **{format_duration(3600 * scheduled.hours)}**, the GPUs "
            f"{scheduled.busy:.0%} busy; no number of GPUs finishes in less than the critical path, {shortest}",
        ]
    else:
        alone = sum(job.hours for job in plan.jobs.values())
        lines += [
            f"- no GPU: **{format_duration(3600 * alone)}** with one job at a time on one core, {shortest} "
            "with as many as possible",
        ]
    return "\n".join([*lines, f"- disk: about {plan.disk.total:,.1f} GB"])


def _table_costs(plan: Plan) -> str:
    rows = [
        (table.id, str(table.runs), *(f"{hours:,.1f}" for hours in (table.gpu_hours, table.left, table.added)))
        for table in plan.tables
    ]
    legend = "*To go* counts what is not done yet; *added* leaves out what the tables above need as well."
    heading = ("table", "runs", "GPU-hours from scratch", "to go", "added")
    return f"## GPU-hours per table\n\n{markdown_table(heading, rows, 'lrrrr', is_markdown=True)}\n\n{legend}"


def _path(plan: Plan) -> str:
    if not plan.schedule.critical_path:
        return ""
    rows = [
        (identifier, f"{plan.jobs[identifier].hours:,.2f}", f"{plan.schedule.start[identifier]:,.1f}")
        for identifier in plan.schedule.critical_path
    ]
    heading = ("job", "hours", f"starts at hour, on {plan.schedule.gpus} GPUs")
    return f"## Critical path\n\n{markdown_table(heading, rows, 'lrr', is_markdown=True)}"


def _disk(plan: Plan) -> str:
    rows = [(f"data set {name}", f"{size:,.2f}") for name, size in plan.disk.datasets.items()]
    rows += [
        ("final checkpoints of all runs", f"{plan.disk.checkpoints:,.2f}"),
        ("states of trainings that run at the same time", f"{plan.disk.work:,.2f}"),
    ]
    return f"## Disk\n\n{markdown_table(('what', 'GB'), rows, 'lr', is_markdown=True)}"


def _stale(plan: Plan) -> str:
    if not plan.stale:
        return ""
    total = sum(item.gpu_hours for item in plan.stale)
    lines = [
        f"- `{item.id}`: {escape_inline('; '.join(item.changes))} ({item.gpu_hours:,.1f} GPU-hours)"
        for item in plan.stale
    ]
    if len(lines) > _SHOWN_STALE:
        lines[_SHOWN_STALE:] = [f"- and {len(lines) - _SHOWN_STALE} more"]
    heading = f"## Made under another configuration: {len(plan.stale)} to do again, {total:,.1f} GPU-hours"
    return "\n".join([heading, "", *lines])


def _selection(plan: Plan) -> str:
    chosen = plan.selection
    if chosen is None:
        return ""
    kinds = {question.id: question.kind for question in plan.questions}
    total = Counter(kinds.values())
    settled = Counter(kinds[name] for name in chosen.settled)
    differences = [name for name in chosen.settled if kinds[name] == "difference"]
    unsettled = [name for name in chosen.open if kinds[name] == "difference"]
    lines = [
        f"## For {chosen.budget:,.0f} GPU-hours",
        "",
        f"{len(chosen.runs)} runs, {chosen.gpu_hours:,.1f} GPU-hours to go, settle {settled['difference']} of "
        f"{total['difference']} printed differences and {settled['value']} of {total['value']} printed rows. No "
        "choice within the budget settles more differences or, with as many differences, more rows.",
        "",
        f"- runs: {_names(chosen.runs)}",
        f"- differences settled: {_names(differences)}",
        f"- differences left open: {_names(unsettled)}",
    ]
    return "\n".join(lines)


def _listing(plan: Plan) -> str:
    rows = []
    for job in plan.jobs.values():
        request = job.resources
        limit = format_duration(60 * request.runtime) + (f" x{request.attempts}" if request.attempts > 1 else "")
        rows.append(
            (
                job.id,
                job.state,
                str(request.gpus) if request.nodes == 1 else f"{request.gpus} on {request.nodes} nodes",
                str(request.cpus),
                f"{request.mem_mb / 1024:.1f}",
                limit,
                f"{job.hours:,.2f}",
                f"{job.gpu_hours:,.1f}",
                escape_inline("; ".join(job.sources)),
            )
        )
    heading = ("job", "state", "GPUs", "CPUs", "GiB", "time limit", "hours", "GPU-hours", "source")
    note = "CPUs and memory are per node. `x2` means that a training takes two attempts within the site's time limit."
    return f"## Jobs\n\n{markdown_table(heading, rows, 'lrrrrrrrr', is_markdown=True)}\n\n{note}"


def _sources(plan: Plan) -> str:
    counted = Counter(
        source
        for job in plan.jobs.values()
        if job.job.rule == "train_run" and job.state != "done"
        for source in job.sources
    )
    if not counted:
        return ""
    lines = [f"- {escape_markdown(source)} ({count})" for source, count in counted.most_common()]
    heading = "## Sources of the estimates of trainings (number of trainings)"
    return "\n".join([heading, "", *lines])


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.items())


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
