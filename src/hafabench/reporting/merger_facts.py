"""What the mergers of the evaluated models do, before and after the training, as means over seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hafabench.config.recipes import TASKS
from hafabench.formatting.numbers import format_fixed

HEADER = ("Task", "Model", "Stage", "Measured", "Seeds", "Before training", "After training")
ALIGN = "llrlrrr"
NOTE = (
    "SIA is compared with the windows of fixed down-sampling. The adjusted Rand index is 1 for equal divisions and 0 "
    "on average for independent ones; the pairs are those of positions in one window. The shift of LAA is the mean "
    "distance of its sampling points from the regular grid, in positions of its input. The numbers are means over "
    "seeds ± standard deviation, measured on validation images."
)
_MEASURED = {
    "adjusted_rand_index": ("SIA: adjusted Rand index", 1.0, 3, ""),
    "window_pairs": ("SIA: window pairs in one cluster", 100.0, 1, " %"),
    "mean_shift": ("LAA: mean shift", 1.0, 3, ""),
}


@dataclass(frozen=True)
class MergerRow:
    """One measurement of one stage of a model.

    Attributes:
        task, model, stage: What was measured.
        name: The field of `hafabench.results.record.MergerFacts`.
        before: The value of each seed before the training, if it was measured.
        after: The value of each seed after the training.
    """

    task: str
    model: str
    stage: int
    name: str
    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """The texts of the row under `HEADER`."""
        title = _MEASURED[self.name][0]
        place = (self.task, self.model, str(self.stage), title, str(len(self.after)))
        return (*place, self._text(self.before), self._text(self.after))

    def _text(self, values: tuple[float, ...]) -> str:
        if not values:
            return "not measured"
        _, factor, places, unit = _MEASURED[self.name]
        mean = format_fixed(factor * float(np.mean(values)), places)
        spread = f" ± {format_fixed(factor * float(np.std(values, ddof=1)), places)}" if len(values) > 1 else ""
        # The weights before the training may be missing for some seeds.
        fewer = f" ({len(values)} of {len(self.after)} seeds)" if len(values) < len(self.after) else ""
        return f"{mean}{spread}{unit}{fewer}"


def merger_rows(frame: pd.DataFrame, models: Iterable[str]) -> list[MergerRow]:
    """Return the measurements of all mergers, by task, in the order of ``models``, and by stage.

    Args:
        frame: The metrics of the experiment.
        models: The names of the experiment's models.
    """
    order = {name: number for number, name in enumerate(models)}
    measured = frame[(frame["verb"] == "evaluate") & frame["mergers"].notna()].drop_duplicates("record")
    values: dict[tuple[str, str, int, str], tuple[list[float], list[float]]] = {}
    row: Any
    for row in measured.sort_values("seed").itertuples(index=False):
        found = json.loads(row.mergers)
        before = {facts["stage"]: facts for facts in found.get("before", ())}
        for facts in found["after"]:
            for name in _MEASURED:
                if facts.get(name) is not None:
                    place = (row.task, row.model, facts["stage"], name)
                    of_seeds = values.setdefault(place, ([], []))
                    if facts["stage"] in before:
                        of_seeds[0].append(before[facts["stage"]][name])
                    of_seeds[1].append(facts[name])
    places = sorted(values, key=lambda place: (TASKS.index(place[0]), order.get(place[1], len(order)), *place[1:3]))
    return [MergerRow(*place, *map(tuple, values[place])) for place in places]
