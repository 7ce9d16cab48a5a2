"""The experiment file that the results of an experiment belong to.

Folders of results are named by the key ``experiment`` of the experiment file. The first command that writes results
stores the path of its file in the folder. A second file of the same name is refused, because its jobs would replace
these results. A file that was edited, moved, renamed or copied is still the same experiment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from hafabench.config.experiment import DatasetConfig, Experiment, load_experiment
from hafabench.config.json_file import read_json_object
from hafabench.config.yaml_file import YamlFile
from hafabench.errors import Problem, UserError
from hafabench.files import write_text
from hafabench.runs.paths import EXPERIMENT_FILE, experiment_file_path

_SCHEMA = "hafabench.experiment_file/1"
# Keys of an experiment file that name other files. The content of these files is compared instead.
_FILES = {"recipes", "tables", "paper_values", "claims"}


def check_experiment_file(experiment: Experiment) -> None:
    """Check that the results of an experiment, if there are any, do not belong to another experiment file.

    Raises:
        UserError: If the file that made them still exists, has the same name in it, and is another experiment.
    """
    stored = stored_experiment_file(experiment)
    if stored is None or not _is_other(stored, experiment):
        return
    place = experiment_file_path(experiment)
    message = (
        f"{experiment.results} belongs to {stored}, another experiment of the same name {experiment.name!r}; "
        f"give one of the two another name. If {experiment.file} replaces it, move or delete {stored}, or delete "
        f"{place}"
    )
    raise UserError(Problem(str(experiment.file), "experiment", message))


def check_data_folders(experiment: Experiment) -> None:
    """Check that no other experiment with results generates other data in a folder of this experiment's data.

    Each would replace the data of the other. Experiments may share the same data.

    Raises:
        UserError: If one does. The message names both data sets.
    """
    problems = [
        Problem(
            str(experiment.file),
            f"datasets.{task}.root",
            f"{ours.root} is also for other generated data, or contains its folder or is in it: "
            f"datasets.{other}.root of {file} is {theirs.root}; expected another folder",
        )
        for file, datasets in _other_datasets(experiment)
        for other, theirs in datasets.items()
        for task, ours in experiment.config.datasets.items()
        if _replace_each_other(ours, theirs)
    ]
    if problems:
        raise UserError(problems)


def _replace_each_other(ours: DatasetConfig, theirs: DatasetConfig) -> bool:
    if ours.generator is None or theirs.generator is None:
        return False
    our_root, their_root = (Path(os.path.realpath(dataset.root)) for dataset in (ours, theirs))
    if our_root == their_root:
        # The name does not change the data.
        return {**ours.identity(), "name": ""} != {**theirs.identity(), "name": ""}
    return our_root in their_root.parents or their_root in our_root.parents


def _other_datasets(experiment: Experiment) -> Iterator[tuple[Path, dict[str, DatasetConfig]]]:
    """Yield the file and the data sets of every other experiment that has results; only these keys are read."""
    for path in sorted(experiment.results.parent.glob(f"*/{EXPERIMENT_FILE}")):
        file = _stored_path(path)
        if path == experiment_file_path(experiment) or file is None or not file.is_file():
            continue
        try:
            content = YamlFile(file).content
            datasets = {task: DatasetConfig.model_validate(found) for task, found in content["datasets"].items()}
        except (UserError, ValidationError, KeyError, AttributeError):
            # `hafabench check` reports what is wrong with it.
            continue
        if str(content.get("experiment")).casefold() == path.parent.name.casefold():
            yield file, datasets


def store_experiment_file(experiment: Experiment) -> None:
    """Store the path of the experiment file, relative to the working directory, beside the results.

    Raises:
        UserError: As in `check_experiment_file`, or if the file cannot be written.
    """
    check_experiment_file(experiment)
    stored = stored_experiment_file(experiment)
    if stored is None or not (stored.exists() and _has_name_of(stored, experiment)):
        content = {"schema": _SCHEMA, "file": os.path.relpath(experiment.file)}
        write_text(experiment_file_path(experiment), json.dumps(content) + "\n")


def stored_experiment_file(experiment: Experiment) -> Path | None:
    """Return the path of the file that the results of an experiment belong to; None if it is not stored."""
    return _stored_path(experiment_file_path(experiment))


def _stored_path(path: Path) -> Path | None:
    content = read_json_object(path) or {}
    file = content.get("file")
    return Path(file) if content.get("schema") == _SCHEMA and isinstance(file, str) and file else None


def _is_other(stored: Path, experiment: Experiment) -> bool:
    try:
        if not stored.is_file() or stored.samefile(experiment.file) or not _has_name_of(stored, experiment):
            return False
        return _content(load_experiment(stored)) != _content(experiment)
    except UserError:
        # It is being edited.
        return True
    except (OSError, ValueError):
        return False


def _has_name_of(stored: Path, experiment: Experiment) -> bool:
    """Whether an experiment file, which may have errors, has the name of an experiment.

    Names that differ in case only are one folder on some file systems.
    """
    try:
        name = YamlFile(stored).content.get("experiment")
    except UserError:
        return False
    return isinstance(name, str) and name.casefold() == experiment.name.casefold()


def _content(experiment: Experiment) -> tuple[Experiment, bytes]:
    """Return the experiment without the places of its files, and the paper's values."""
    nowhere = Path()
    config = experiment.config.model_copy(update=dict.fromkeys(_FILES))
    content = replace(
        experiment, config=config, file=nowhere, tables_file=nowhere, paper_values=nowhere, claims_file=nowhere
    )
    return content, experiment.paper_values.read_bytes()
