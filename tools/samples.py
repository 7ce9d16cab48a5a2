"""Copy between the generated folders of an experiment and its tracked sample in `docs/samples`.

``python -m tools.samples keep digits`` replaces the sample report by the present one. A sample that also contains
records (that of the embedded study) gets the present records too. ``python -m tools.samples restore digits_study``
copies the records of a sample to `results` and its pictures to `reports`, where `hafabench collect` and
`hafabench report` read them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from hafabench.config.experiment import Experiment, load_experiment
from hafabench.errors import UserError
from hafabench.files import IsMade, atomic_folder
from hafabench.runs.paths import EXPERIMENT_FILE, picture_index, report_files
from tools.checkout import REPOSITORY

SAMPLES = Path("docs/samples")
# The records and histories that the report needs; weights, predictions, logs and the frame are not part of a sample.
_RECORDS = ("*.json", "history.jsonl")


def keep(experiment: Experiment, samples: Path) -> list[Path]:
    """Replace the experiment's sample by its present report and, if the sample has any, its present records.

    Returns:
        The folders that were replaced.

    Raises:
        UserError: If the experiment has no complete report.
    """
    missing = [str(path) for path in report_files(experiment) if not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: no such file; make the report of {experiment.name} first")
    sample = samples / experiment.name
    figures = picture_index(experiment).parent
    report = [*report_files(experiment), *(path for path in figures.rglob("*") if path.is_file())]
    names = {path.relative_to(experiment.reports) for path in report_files(experiment)}
    folders = {name.parts[0] for name in names if len(name.parts) > 1}
    _replace(sample / "report", experiment.reports, report, lambda path: path in names or path.parts[0] in folders)
    if not (sample / "results").is_dir():
        return [sample / "report"]
    records = [path for path in record_files(experiment.results) if "work" not in path.parts]
    _replace(sample / "results", experiment.results, records, lambda path: any(map(path.match, _RECORDS)))
    return [sample / "report", sample / "results"]


def restore(experiment: Experiment, samples: Path) -> Path:
    """Copy the sample's records to the experiment's results folder, which must not contain any, and its pictures.

    Returns:
        The results folder.

    Raises:
        UserError: If the sample has no records, or the experiment already has some.
    """
    source = samples / experiment.name / "results"
    if not source.is_dir():
        raise UserError(f"{source}: no such folder; the sample of {experiment.name} has no records")
    if any(record_files(experiment.results)):
        raise UserError(f"{experiment.results}: this folder already contains records; move or delete it first")
    for path in record_files(source):
        target = experiment.results / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    # Pictures are drawn with weights, which are not part of a sample.
    figures = picture_index(experiment).parent
    shutil.copytree(samples / experiment.name / "report" / figures.name, figures, dirs_exist_ok=True)
    return experiment.results


def record_files(folder: Path) -> list[Path]:
    """Return the records, configurations and histories in the folder of an experiment's results."""
    found = {path for pattern in _RECORDS for path in folder.rglob(pattern)}
    return sorted(found - {folder / EXPERIMENT_FILE})


def _replace(folder: Path, source: Path, files: list[Path], is_made: IsMade) -> None:
    with atomic_folder(folder, is_made) as new:
        for path in files:
            target = new / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def main() -> int:
    """Run the command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["keep", "restore"])
    parser.add_argument("experiment", help="name of an experiment in configs/")
    arguments = parser.parse_args()
    try:
        experiment = load_experiment(REPOSITORY / "configs" / f"{arguments.experiment}.yaml")
        if arguments.action == "keep":
            print(*keep(experiment, REPOSITORY / SAMPLES), sep="\n")
        else:
            print(restore(experiment, REPOSITORY / SAMPLES))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
