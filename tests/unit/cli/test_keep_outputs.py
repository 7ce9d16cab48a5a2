"""Where ``hafabench evaluate --keep-outputs`` writes detections and label maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from hafabench.cli import cli
from hafabench.config.experiment import load_experiment
from hafabench.errors import UserError
from hafabench.files import atomic_folder
from hafabench.models.checkpoints.storage import save_checkpoint
from hafabench.results.predictions import Areas, write_predictions
from hafabench.results.record import Metric, is_output
from hafabench.runs.run import expand

RUN = "segmentation/pvt_tiny/seed0"


@pytest.fixture
def experiment(tmp_path, write_experiment, monkeypatch):
    """An experiment with an evaluation that writes one label map."""
    path = write_experiment()
    monkeypatch.chdir(tmp_path)

    class Engine:
        @staticmethod
        def evaluate(run, checkpoint, fill=None, keep=None, outputs=None):
            keep.parent.mkdir(parents=True, exist_ok=True)
            keep.write_bytes(b"")
            if outputs is not None:
                with atomic_folder(outputs, is_output) as folder:
                    (folder / "0.png").touch()
            return [Metric(task=run.task, model=run.model.name, seed=0, name="miou", value=1.0, unit="%")]

    monkeypatch.setattr("hafabench.engines.evaluation.engine_for", lambda task: Engine)
    monkeypatch.setattr("hafabench.engines.engine.engine_for", lambda task: Engine)
    for module in ("engines.evaluation", "imports.weights"):
        monkeypatch.setattr(f"hafabench.{module}.compared_digest", lambda *_: "0" * 64)
    monkeypatch.setattr("hafabench.models.checkpoints.foreign.ForeignWeights.read", "its model")
    return load_experiment(path)


@pytest.mark.parametrize("keep", [True, False])
def test_outputs_of_a_run_are_beside_its_record(experiment, keep):
    """Those of an earlier evaluation are removed."""
    run = expand(experiment)[RUN]
    save_checkpoint(run.checkpoint, {"state_dict": {}, "meta": {"run": run.id, "fingerprint": run.fingerprint}})
    (run.record.parent / "outputs").mkdir()
    (run.record.parent / "outputs" / "old.png").touch()
    command = ["evaluate", RUN, "-e", str(experiment.file), *(["--keep-outputs"] if keep else [])]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert run.record.exists()
    assert [path.name for path in run.record.parent.glob("outputs/*")] == (["0.png"] if keep else [])
    assert ("outputs" in done.output) is keep


@pytest.mark.parametrize("keep", [True, False])
def test_a_file_of_the_user_among_outputs_is_kept(experiment, keep):
    run = expand(experiment)[RUN]
    save_checkpoint(run.checkpoint, {"state_dict": {}, "meta": {"run": run.id, "fingerprint": run.fingerprint}})
    run.outputs.mkdir()
    (run.outputs / "notes.txt").write_text("mine")
    command = ["evaluate", RUN, "-e", str(experiment.file), *(["--keep-outputs"] if keep else [])]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == (1 if keep else 0)
    assert not keep or "did not make notes.txt" in str(done.exception)
    assert [path.name for path in run.outputs.iterdir()] == ["notes.txt"]


def test_a_picture_of_the_user_among_label_maps_is_kept(experiment):
    run = expand(experiment)[RUN]
    save_checkpoint(run.checkpoint, {"state_dict": {}, "meta": {"run": run.id, "fingerprint": run.fingerprint}})
    areas = np.zeros((2, 3), dtype=np.int64)
    write_predictions(run.predictions, Areas(np.array(["0.jpg", "a.b.jpg"]), areas, areas, areas))
    run.outputs.mkdir()
    for name in ("0.png", "a.b.png", "mine.png"):
        (run.outputs / name).touch()
    done = CliRunner().invoke(cli, ["evaluate", RUN, "-e", str(experiment.file)])
    assert done.exit_code == 0, done.output
    assert [path.name for path in run.outputs.iterdir()] == ["mine.png"]


def test_outputs_of_other_weights_are_beside_the_imported_record_and_replaced_with_it(experiment):
    folder = Path("results/digits/imported/evaluate/segmentation/pvt_tiny")
    for value in range(2):
        torch.save({"x": torch.full((1,), float(value))}, f"{value}.pth")
        command = ["evaluate", RUN, "-e", str(experiment.file), "--weights", f"{value}.pth", "--replace"]
        done = CliRunner().invoke(cli, [*command, "--keep-outputs"])
        assert done.exit_code == 0, (done.output, done.exception)
        (record,) = folder.glob("*.json")
        (outputs,) = (path for path in folder.iterdir() if path.is_dir())
        assert outputs.name == f"{record.stem}-outputs"
        assert [path.name for path in outputs.iterdir()] == ["0.png"]


def test_a_classification_has_no_outputs(experiment):
    command = ["evaluate", "classification/pvt_tiny/seed0", "-e", str(experiment.file), "--keep-outputs"]
    done = CliRunner().invoke(cli, command)
    assert isinstance(done.exception, UserError)
    assert "--keep-outputs" in str(done.exception)
