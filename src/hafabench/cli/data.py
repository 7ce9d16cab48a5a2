"""Commands for data sets."""

from __future__ import annotations

from pathlib import Path

import click

from hafabench.cli.options import attempt, experiment_option, load, task_argument
from hafabench.config.experiment import DatasetConfig, Experiment
from hafabench.errors import Problem, UserError


@click.group()
def data() -> None:
    """Make, sort, verify and preview data sets."""


@data.command("prepare")
@task_argument
@experiment_option
@click.option(
    "--contents",
    is_flag=True,
    help="Also store digests of the contents of all files, so that `hafabench audit` finds an image that was "
    "exchanged for one of the same size. Data sets of up to 4 GB are always read completely.",
)
def data_prepare(task: str, experiment: Path, contents: bool) -> None:
    """Make the data set of a task if it has a generator.

    Then the data set is verified, and a report is written.
    """
    from hafabench.data.prepare import prepare_dataset
    from hafabench.runs.experiment_file import check_data_folders
    from hafabench.runs.paths import dataset_report

    loaded = load(experiment)
    check_data_folders(loaded)
    with attempt(loaded, "prepare_dataset", task):
        report = prepare_dataset(_dataset(loaded, task), dataset_report(loaded, task), contents=contents)
        for note in report.notes:
            click.echo(f"note: {note}", err=True)


@data.command("verify")
@task_argument
@experiment_option
def data_verify(task: str, experiment: Path) -> None:
    """Verify the data set of a task.

    The command checks folders, counts, annotations, and whether images can be decoded.
    """
    from hafabench.data.verify import verify_dataset

    report = verify_dataset(_dataset(load(experiment), task))
    click.echo(report.summary())


@data.command("preview")
@task_argument
@experiment_option
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="PNG file to write.  [default: reports/EXPERIMENT/preview_TASK.png]",
)
def data_preview(task: str, experiment: Path, output: Path | None) -> None:
    """Draw images of a data set with labels, boxes and masks."""
    from hafabench.data.preview import draw_preview

    loaded = load(experiment)
    output = output or loaded.reports / f"preview_{task}.png"
    draw_preview(_dataset(loaded, task), output)
    click.echo(f"wrote {output}")


@data.command("sort-imagenet")
@click.argument("images", type=click.Path(path_type=Path))
@click.argument("labels", type=click.Path(path_type=Path))
@click.option(
    "--to", "target", type=click.Path(path_type=Path), help="Folder of the class folders.  [default: IMAGES]"
)
@click.option("--link", is_flag=True, help="Make symbolic links in the folder of --to and leave the images.")
def data_sort_imagenet(images: Path, labels: Path, target: Path | None, link: bool) -> None:
    """Sort the validation images of ImageNet into class folders.

    IMAGES is the folder with the downloaded images. LABELS tells their classes. It is the folder of the development
    kit (ILSVRC2012_devkit_t12), LOC_val_solution.csv, or a text file with an image and its synset in each line, or
    with the synset alone in the order of the images. Everything is checked before the first image is moved. Images
    are never copied, replaced or deleted, and the command can be repeated.
    """
    from hafabench.data.sort_imagenet import sort_imagenet

    done = sort_imagenet(images, labels, target, link=link)
    click.echo(f"{done.folder}: {done.moved} images {'linked' if link else 'moved'}, {done.before} were there before")
    if done.missing:
        click.echo(f"note: {done.missing} images that {labels} names were not found", err=True)


def _dataset(experiment: Experiment, task: str) -> DatasetConfig:
    if task not in experiment.config.datasets:
        raise UserError(Problem(str(experiment.file), "datasets", f"no entry for {task}"))
    return experiment.config.datasets[task]
