"""Whether measured figures can be compared with the printed ones: data, input size, schedule, recipe and device."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hafabench.config.experiment import Experiment
from hafabench.config.recipes import Task
from hafabench.reporting.claims.paper_claims import Claim
from hafabench.runs.protocol import NO_PROTOCOL, Differences, PaperProtocol, load_protocol
from hafabench.runs.run import Run

# Words of a device's name that the vendor's own tools sometimes leave out.
_VENDOR_WORDS = {"nvidia", "geforce"}


class Comparability:
    """What makes the figures of an experiment incomparable with the paper's.

    Args:
        experiment: The experiment.
        runs: Its runs by id.

    Raises:
        UserError: If the experiment with the paper's protocol cannot be loaded.
    """

    def __init__(self, experiment: Experiment, runs: Mapping[str, Run]):
        self._experiment = experiment
        self._protocol: PaperProtocol | None = load_protocol(experiment.claims_config, experiment.claims_file)
        self._runs: dict[tuple[str, str], dict[int, Run]] = {}
        for run in runs.values():
            self._runs.setdefault((run.task, run.model.name), {})[run.seed] = run
        self._known: dict[str, Differences] = {}

    def of_run(self, run: Run) -> Differences:
        """Return where a run differs from the paper's protocol."""
        if self._protocol is None:
            return Differences((NO_PROTOCOL,))
        if run.id not in self._known:
            self._known[run.id] = self._protocol.differences(run)
        return self._known[run.id]

    def differs_in_setting(self, task: Task) -> bool:
        """Whether some run of a task has another data set, input size or schedule than the paper's."""
        runs = [run for (of_task, _), of_model in self._runs.items() if of_task == task for run in of_model.values()]
        return any(self.of_run(run).setting for run in runs)

    def reasons(self, claim: Claim, found: Sequence[Sequence[Any]]) -> tuple[str, ...]:
        """Return why figures cannot be compared with a printed one, one clause each; empty if they can.

        Args:
            claim: The claim.
            found: The metrics of the claim's model and, for a difference, of the baseline.
        """
        clauses: dict[str, None] = {}
        for metric in (metric for of_model in found for metric in of_model):
            device = metric.device or "an unknown device"
            if claim.device and not is_device(device, claim.device):
                clauses[f"measured on {device}; the printed figure is taken to be from an {claim.device}"] = None
            clauses |= dict.fromkeys(self._differences(claim, metric).all)
        return tuple(clauses)

    def _differences(self, claim: Claim, metric: Any) -> Differences:
        if self._protocol is None:
            return Differences((NO_PROTOCOL,))
        if claim.kind == "latency":
            groups = (g for g in self._experiment.config.latency if g.name == metric.id.removeprefix("latency/"))
            group = next(groups, None)
            return self._protocol.latency_differences(group, metric.model) if group else Differences()
        task = claim.column.task
        of_model = self._runs.get((task, metric.model), {})
        run = of_model.get(metric.seed) or next(iter(of_model.values()), None)
        if metric.origin == "imported":
            return self._protocol.imported_differences(self._experiment, task, run)
        # A measured figure has a run; a frame of another experiment file is refused when it is collected.
        return (
            self.of_run(run) if run is not None else self._protocol.imported_differences(self._experiment, task, None)
        )


def is_device(name: str, expected: str) -> bool:
    """Return whether a device has the expected name, as a whole: an RTX 3090 Ti is not an RTX 3090.

    Upper and lower case, spaces, trademark signs and the words NVIDIA and GeForce are ignored.
    """
    return _words(name) == _words(expected)


def _words(name: str) -> list[str]:
    words = re.sub(r"\((?:r|tm)\)|[®™]", " ", name.casefold()).split()
    return [word for word in words if word not in _VENDOR_WORDS]
