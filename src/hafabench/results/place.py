"""The place of a record, from its path below a folder of results: what it has to be about.

`hafabench.runs.paths` says where records are written. Folders of the regression gate have the same places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hafabench.config.metrics import Verb
from hafabench.results.record import Record

EVALUATIONS, COMPLEXITIES, LATENCIES = "*/*/seed*/evaluate.json", "complexity/*.json", "latency/*.json"
"""The patterns of the paths of measured records."""
IMPORTED_EVALUATIONS, IMPORTED_COMPLEXITIES = "imported/evaluate/*/*/*.json", "imported/complexity/*/*/*.json"
"""The patterns of the paths of imported records."""

_SEED = r"seed(?P<seed>0|[1-9][0-9]*)"
_PLACES = (
    re.compile(rf"(?P<task>[^/]+)/(?P<model>[^/]+)/{_SEED}/evaluate\.json"),
    re.compile(r"(?P<verb>complexity)/(?P<task>[^/]+)\.json"),
    re.compile(r"(?P<verb>latency)/(?P<group>[^/]+)\.json"),
    re.compile(
        r"(?P<origin>imported)/(?P<verb>evaluate|complexity)/(?P<task>[^/]+)/(?P<model>[^/]+)/"
        rf"(?:{_SEED}|seed_unknown)-(?P<source>[0-9a-f]{{8}})\.json"
    ),
)


@dataclass(frozen=True)
class Place:
    """What a record at some path has to be about; None for what may differ from number to number.

    Attributes:
        origin: ``measured`` or ``imported``.
        verb: The verb that makes the record.
        id: Its id.
        task: The task of its numbers.
        model: The model of its numbers.
        seed: The seed of its numbers; None also if they have none.
        source: The first digits of the SHA-256 of the file that was imported.
    """

    origin: Literal["measured", "imported"]
    verb: Verb
    id: str
    task: str | None = None
    model: str | None = None
    seed: int | None = None
    source: str | None = None

    @property
    def of_one_seed(self) -> bool:
        """Whether all numbers must have the seed of the place, even if this is None."""
        return self.verb == "evaluate" or self.origin == "imported"


def place_of(path: Path, folder: Path) -> Place | None:
    """Return the place of a record.

    Args:
        path: The file of the record.
        folder: The results folder of the experiment, or the folder of a baseline.

    Returns:
        The place; None if no record is stored at such a path.
    """
    try:
        relative = Path(path).relative_to(folder).as_posix()
    except ValueError:
        return None
    found = next((match for pattern in _PLACES if (match := pattern.fullmatch(relative))), None)
    if found is None:
        return None
    part = found.groupdict()
    verb: Verb = part.get("verb") or "evaluate"  # type: ignore[assignment]
    is_imported = part.get("origin") is not None
    if is_imported:
        identifier = f"imported/{part['task']}/{part['model']}/seed{part['seed'] or '_unknown'}"
    elif verb == "evaluate":
        identifier = relative.removesuffix("/evaluate.json")
    else:
        identifier = relative.removesuffix(".json")
    return Place(
        origin="imported" if is_imported else "measured",
        verb=verb,
        id=identifier,
        task=part.get("task") or ("classification" if verb == "latency" else None),
        model=part.get("model"),
        seed=int(part["seed"]) if part.get("seed") else None,
        source=part.get("source"),
    )


def place_problems(record: Record, place: Place) -> Iterator[tuple[str, str]]:
    """Yield the key and the message of everything in a record that belongs to another place."""
    for key in ("origin", "verb", "id"):
        expected, found = getattr(place, key), getattr(record, key)
        if found != expected:
            yield key, f"expected {expected!r} at this path, found {found!r}"
    if place.source is not None and record.source is not None and not record.source.sha256.startswith(place.source):
        yield "source.sha256", f"expected {place.source}... at this path, found {record.source.sha256[:8]}..."
    for index, metric in enumerate(record.metrics):
        expected_about = {"task": place.task, "model": place.model}
        about = {key: value for key, value in expected_about.items() if value is not None}
        if place.of_one_seed:
            about["seed"] = place.seed  # type: ignore[assignment]
        elif metric.seed is not None:
            yield f"metrics[{index}].seed", f"expected none in a record of {place.verb}, found {metric.seed}"
        for key, value in about.items():
            if getattr(metric, key) != value:
                yield f"metrics[{index}].{key}", f"expected {value!r} at this path, found {getattr(metric, key)!r}"
