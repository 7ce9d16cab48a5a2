"""Where the files of an experiment are stored, under its results and reports folders."""

from __future__ import annotations

from pathlib import Path

from hafabench.config.experiment import Experiment
from hafabench.results.record import EVALUATION as EVALUATION

# In the folder of an experiment's results.
EXPERIMENT_FILE = "experiment.json"
# Files in the folder of a run.
CONFIGURATION = "config.json"
CHECKPOINT = "checkpoint.pth"
# In the work folder of a run: the fingerprint and the step of the training state.
STATE_SUMMARY = "state.json"
TRAIN_LOG = "train.log"
EVALUATE_LOG = "evaluate.log"


def experiment_file_path(experiment: Experiment) -> Path:
    """The path of the file that stores which experiment file the results belong to."""
    return experiment.results / EXPERIMENT_FILE


def dataset_report(experiment: Experiment, task: str) -> Path:
    """The path of the report on a task's verified data set."""
    return experiment.results / "data" / f"{task}.json"


def complexity_record(experiment: Experiment, task: str) -> Path:
    """The path of a task's complexity record."""
    return experiment.results / "complexity" / f"{task}.json"


def latency_record(experiment: Experiment, group: str) -> Path:
    """The path of a latency group's record."""
    return experiment.results / "latency" / f"{group}.json"


def imported_folder(experiment: Experiment, verb: str, task: str, model: str) -> Path:
    """The folder of a model's imported records.

    Args:
        experiment: The experiment.
        verb: The verb of the records.
        task: The task of the records.
        model: The name of the model.
    """
    return experiment.results / "imported" / verb / task / model


def counts_record(experiment: Experiment) -> Path:
    """The path of the record of what counting conventions add up."""
    return experiment.results / "counts.json"


def frame_files(experiment: Experiment) -> tuple[Path, Path]:
    """The paths of the frame of all records, as Parquet and as CSV."""
    return experiment.results / "frame.parquet", experiment.results / "frame.csv"


def report_files(experiment: Experiment) -> tuple[Path, ...]:
    """The paths of everything that the report consists of."""
    tables = (
        f"tables/{layout.id}.{suffix}" for layout in experiment.table_layouts for suffix in ("md", "tex", "csv")
    )
    texts = ("report.html", "paper.tex", "tables.md", "comparisons.md", "comparisons.csv", "claims.md", "claims.csv")
    figures = (f"figures/{name}.svg" for name in ("learning_curves", "accuracy_vs_complexity", "comparisons"))
    return tuple(experiment.reports / name for name in (*tables, *texts, *figures))


def picture_index(experiment: Experiment) -> Path:
    """The path of the index of an experiment's pictures, which are stored beside it."""
    return experiment.reports / "figures" / "pictures.json"
