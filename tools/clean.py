"""Remove the results and the generated data of experiments: ``python -m tools.clean configs/digits.yaml``.

Only files are removed that the jobs of the experiment write, and folders that are then empty. Imported numbers and
files of other programs are kept and listed. ``--keep-data`` keeps the data.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
from pathlib import Path

from hafabench.cluster.costs import accounting_file
from hafabench.config.experiment import Experiment, load_experiment
from hafabench.data import manifest
from hafabench.engines.training_state import STATE
from hafabench.errors import UserError
from hafabench.files import IsMade, final_path, remove_made
from hafabench.results.predictions import made_outputs
from hafabench.results.record import EVALUATION, outputs_beside, predictions_beside
from hafabench.runs.experiment_file import check_experiment_file
from hafabench.runs.jobs import JobList
from hafabench.runs.lease import LEASE_FILES
from hafabench.runs.paths import CONFIGURATION, STATE_SUMMARY, experiment_file_path

_WILDCARD = re.compile(r"\\\{\w+\\\}")


def clean(experiment: Experiment, *, keep_data: bool = False) -> list[Path]:
    """Remove the results of an experiment and its generated data.

    Results of runs that the experiment contained earlier are removed too.

    Args:
        experiment: The experiment.
        keep_data: Whether the data is kept.

    Returns:
        The files in the folders of results and data that were kept, because no job of the experiment writes them.

    Raises:
        UserError: If the results belong to another experiment file, or a file cannot be removed.
    """
    check_experiment_file(experiment)
    patterns = list(_patterns(experiment))

    @functools.cache
    def made_outputs_of(run: Path) -> IsMade:
        return made_outputs(predictions_beside(experiment.results / run / EVALUATION))

    def is_result(path: Path) -> bool:
        name = final_path(path)
        if len(name.parts) == 5 and name.parent.name == outputs_beside(Path(EVALUATION)).name:
            # Outputs are removed before the predictions, which tell what belongs to them.
            return made_outputs_of(name.parents[1])(Path(name.name))
        return any(pattern.fullmatch(name.as_posix()) for pattern in patterns)

    kept = remove_made(experiment.results, is_result)
    for dataset in experiment.config.datasets.values() if not keep_data else ():
        is_made = manifest.made_files(dataset.root) if dataset.generator is not None else None
        if is_made is not None:
            kept += remove_made(dataset.root, is_made)
    return kept


def _patterns(experiment: Experiment) -> list[re.Pattern[str]]:
    """Return the patterns of the files that jobs write, as paths relative to the folder of the results."""
    jobs = JobList(experiment)
    results = experiment.results
    files = [experiment_file_path(experiment), accounting_file(experiment)]
    for rule in jobs.rules.values():
        files += [path for path in (*rule.outputs, *rule.logs) if path.is_relative_to(results)]
    patterns = [_WILDCARD.sub("[^/]+", re.escape(str(path.relative_to(results)))) for path in files]
    for run in list(jobs.runs.values())[:1]:
        # The names are the same in the folder of every run.
        own = [run.folder / CONFIGURATION, run.history, run.predictions, run.kept_checkpoint]
        own += [run.work / STATE, run.work / STATE_SUMMARY]
        names = [re.escape(str(path.relative_to(run.folder))) for path in own]
        patterns += [f"[^/]+/[^/]+/seed[0-9]+/({'|'.join(names)}|{LEASE_FILES})"]
    return [re.compile(pattern) for pattern in patterns]


def main() -> int:
    """Run the command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="EXPERIMENT", help="experiment file")
    parser.add_argument("--keep-data", action="store_true", help="keep the data")
    arguments = parser.parse_args()
    try:
        for file in arguments.files:
            for path in clean(load_experiment(file), keep_data=arguments.keep_data):
                print(f"kept: {path}")
    except UserError as error:
        print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
