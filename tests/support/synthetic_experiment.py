"""The results of a whole experiment made up: a record for everything that it expects, and a history for each run."""

from __future__ import annotations

import json
import random

from hafabench.config.experiment import Experiment
from hafabench.config.recipes import TASKS
from hafabench.reporting.frame import collect_experiment
from hafabench.results.predictions import PREDICTIONS_OF
from hafabench.results.record import write_record
from hafabench.runs.fingerprints import complexity_fingerprint, complexity_models, latency_fingerprint
from hafabench.runs.paths import complexity_record, latency_record
from hafabench.runs.run import expand
from tools.synthetic_records import complexity, evaluation, latency


def fill_results(experiment: Experiment, share: float = 1.0) -> None:
    """Write records and histories of the first ``share`` of the runs, of all counts and timings, and the frame.

    The numbers are random, the same ones every time; models with HAFA's mergers are somewhat better.
    """
    chance = random.Random(0)
    about = {"experiment": experiment.name, "scale": experiment.config.scale}
    runs = list(expand(experiment).values())
    for run in runs[: round(share * len(runs))]:
        level = 40 + 8 * run.model.has_mergers + len(run.model.name) % 5
        values = {name: level + chance.gauss(0, 1.5) for name in PREDICTIONS_OF[run.task].metrics}
        if run.task == "classification":
            values["top5"] = (values["top5"] + 100) / 2
        digests = {"checkpoint_sha256": f"{chance.getrandbits(256):064x}", "dataset_digest": f"{1:064x}"}
        training = {"steps": 60, "seconds": 40.0 + 5 * chance.random()}
        record = evaluation(
            run.task,
            run.model.name,
            run.seed,
            values,
            id=run.id,
            fingerprint=run.fingerprint,
            training=training,
            **digests,
            **about,
        )
        write_record(run.record, record)
        losses = [2.3 / (1 + step / 20) + chance.gauss(0, 0.05) for step in range(1, 61)]
        lines = [{"step": step, "loss": loss, "lr": 1e-3} for step, loss in enumerate(losses, start=1)]
        run.history.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for task in TASKS:
        counts = {
            model.name: {"params": round(1e7 * (1 + chance.random())), "gmacs": 1 + chance.random()}
            for model in complexity_models(experiment, task)
        }
        for of_model in counts.values():
            of_model["params_trainable"] = of_model["params_with_dead_weights"] = of_model["params"]
        record = complexity(
            task, counts, "counted on a whim", fingerprint=complexity_fingerprint(experiment, task), **about
        )
        write_record(complexity_record(experiment, task), record)
    for group in experiment.config.latency:
        names = [group.baseline, *group.models]
        times = {name: (10.0 + i, 11.0 + i, 12.5 + i) for i, name in enumerate(names)}
        record = latency(
            group.name, times, baseline=group.baseline, fingerprint=latency_fingerprint(experiment, group), **about
        )
        write_record(latency_record(experiment, group.name), record)
    collect_experiment(experiment)
