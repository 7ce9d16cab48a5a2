"""Origins of numbers for every kind of cell, with and without records, and the commands that reproduce them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from hafabench.cli import cli
from hafabench.cluster.costs import accounting_file
from hafabench.config.experiment import Experiment, load_experiment
from hafabench.config.paper_values import load_paper_values
from hafabench.errors import UserError
from hafabench.explain.explain import Explainer, explain
from hafabench.explain.locate import locate, places
from hafabench.explain.render import to_json, to_markdown, to_text
from hafabench.files import sha256_of
from hafabench.imports.read import read_import
from hafabench.imports.store import store_import
from hafabench.reporting.claims.paper_claims import paper_claims
from hafabench.results.record import write_record
from hafabench.runs.fingerprints import complexity_fingerprint, latency_fingerprint
from hafabench.runs.paths import complexity_record, latency_record
from hafabench.runs.run import expand
from tests.support.messages import missing_facts
from tests.support.opened_files import files_read
from tests.support.synthetic_experiment import fill_results
from tools.checkout import REPOSITORY
from tools.synthetic_records import COMMIT, complexity, evaluation, latency

SHIPPED = ("digits", "digits_study", "paper", "regression_digits")
DATASET = "d" * 64
TRAINING = {"steps": 32, "seconds": 75.5, "images_per_s": 1.7, "resumes": 2, "processes": 1, "device": "cpu"}


@pytest.fixture
def experiment(write_experiment, monkeypatch, tmp_path) -> Experiment:
    path = write_experiment(lambda content: content.update(seeds=[0, 1]))
    monkeypatch.chdir(tmp_path)
    return load_experiment(path)


def trained(experiment: Experiment, run_id: str, value: float, **changes) -> Path:
    """The record of a run, its checkpoint and its log, as the workflow leaves them."""
    run = expand(experiment)[run_id]
    run.folder.mkdir(parents=True, exist_ok=True)
    run.checkpoint.write_bytes(run.id.encode())
    (run.folder / "train.log").write_text("done\n")
    name = {"classification": "top1", "segmentation": "miou", "detection": "box_ap"}[run.task]
    fields = {
        "fingerprint": run.fingerprint,
        "checkpoint_sha256": sha256_of(run.checkpoint),
        "dataset_digest": DATASET,
        "training": TRAINING,
    }
    write_record(run.record, evaluation(run.task, run.model.name, run.seed, {name: value}, **(fields | changes)))
    return run.record


def plain(body: str) -> Path:
    Path("numbers.csv").write_text("task,model,seed,metric,value,unit\n" + body)
    return Path("numbers.csv")


def text_of(experiment: Experiment, locator: str) -> str:
    """As printed, line breaks within texts undone."""
    return re.sub(r"\n {8,}", " ", to_text(explain(experiment, locator)))


# Locators.


def test_every_claim_has_a_place_by_its_own_locator(experiment):
    locators = [claim.locator for claim in paper_claims(experiment, load_paper_values(experiment.paper_values))]
    assert len(locators) > 200
    assert set(locators) <= set(places(experiment))


def test_a_row_goes_by_its_model_too(experiment):
    place = locate(experiment, "table4/pvt_v2_b1_hafa/top1")
    assert place.locator == "table4/pvt_v2_b1_laa_laa_sia/top1"
    assert locate(experiment, "table2/pvt_tiny_hafa/miou/delta").locator == "table2/pvt_tiny_hafa/miou_delta"


@pytest.mark.parametrize(
    ("locator", "says"),
    [
        ("table2/pvt_smal_hafa/miou", "names no cell .*for instance table2/pvt_small_hafa/miou, "),
        ("table2/pvt_tiny", "names several cells .*for instance table2/pvt_tiny/params_m, table2/pvt_tiny/gflops"),
        ("table2/pvt_tiny/miou_delta", "names no cell .*, table2/pvt_tiny/miou$"),
        ("", "names no cell of the tables; expected table/row/column, for instance table1/"),
    ],
)
def test_unknown_locators_are_refused_with_the_nearest(experiment, locator, says):
    with pytest.raises(UserError, match=says) as caught:
        explain(experiment, locator)
    assert len(caught.value.problems) == 1


# Cells.


def test_trained_cell(experiment):
    for seed, value in ((0, 40.25), (1, 42.25)):
        trained(experiment, f"segmentation/pvt_tiny/seed{seed}", 30.0 + seed)
        trained(experiment, f"segmentation/pvt_tiny_hafa/seed{seed}", value)
    found = explain(experiment, "table2/pvt_tiny_hafa/miou")
    assert found.value.printed == "41.3 ± 1.4"
    assert (found.value.mean, found.value.n, found.value.delta, found.value.mark) == (41.25, 2, 10.75, "measured")
    assert found.value.by_seed == {"pvt_tiny_hafa": {"0": 40.25, "1": 42.25}}
    assert (found.value.paper, found.value.paper_delta, found.value.paper_printed) == (40.1, 4.4, "40.1 (+4.4)")
    assert [(v.printed, v.verdict) for v in found.verdicts] == [
        ("40.1", "not comparable"),
        ("+4.4", "not comparable"),
    ]
    first = found.origins[0]
    run = expand(experiment)["segmentation/pvt_tiny_hafa/seed0"]
    assert (first.record, first.commit, first.device, first.host) == (
        run.record,
        COMMIT[:10],
        "cpu, 1 thread",
        "node1",
    )
    assert (first.dataset_digest, first.training, first.fingerprint) == (DATASET, TRAINING, run.fingerprint)
    assert (first.checkpoint.path, first.checkpoint.state) == (run.checkpoint, "unchanged")
    assert first.logs == (run.folder / "train.log",)
    assert [run.state for run in found.runs] == ["done", "done"]
    assert found.cost is None

    text = text_of(experiment, "table2/pvt_tiny_hafa/miou")
    assert "EMBEDDED DATA" in text
    assert "seeds    0: 40.25, 1: 42.25" in text
    assert "32 steps, 1 min 16 s, 1.7 images/s, 2 resumes, on cpu" in text
    assert f"sha256 {sha256_of(run.checkpoint)}" in text
    # Both seeds share a configuration, which is shown once.
    assert text.count("Configuration of ") == 1


@pytest.mark.parametrize("done", [True, False])
def test_every_record_is_read_once(experiment, done):
    for seed in (0, 1) if done else (0,):
        for model in ("pvt_tiny", "pvt_tiny_hafa"):
            trained(experiment, f"segmentation/{model}/seed{seed}", 30.0 + seed)
    with files_read("results") as read:
        explain(experiment, "table2/pvt_tiny_hafa/miou_delta")
    records = {str(run.record) for run in expand(experiment).values() if run.record.is_file()}
    assert {path for path in read if path.endswith("evaluate.json")} == records
    assert set(read.values()) == {1}, read


def test_only_the_cells_own_records_have_to_be_readable(experiment):
    own = trained(experiment, "segmentation/pvt_tiny/seed0", 30.0)
    trained(experiment, "segmentation/resnet18/seed0", 30.0).write_text("not a record")
    assert explain(experiment, "table2/pvt_tiny/miou").value.mean == 30.0
    own.write_text("not a record")
    with pytest.raises(UserError, match=str(own)):
        explain(experiment, "table2/pvt_tiny/miou")


def test_a_changed_checkpoint_is_reported(experiment):
    trained(experiment, "segmentation/pvt_tiny/seed0", 30.0)
    checkpoint = expand(experiment)["segmentation/pvt_tiny/seed0"].checkpoint
    checkpoint.write_bytes(b"another")
    (origin,) = explain(experiment, "table2/pvt_tiny/miou").origins
    assert origin.checkpoint.state == "changed since"
    checkpoint.unlink()
    (origin,) = explain(experiment, "table2/pvt_tiny/miou").origins
    assert origin.checkpoint.state == "deleted"


def test_configuration_against_the_recipe(experiment):
    (run, _) = explain(experiment, "table2/resnet18/miou").runs
    settings = {setting.key: setting for setting in run.settings}
    changed = settings["iterations"]
    assert (changed.value, changed.recipe, changed.differs) == (32, 40000, True)
    assert changed.source == "paper section 4.2"
    assert changed.why == "digits.yaml: budget and size of the embedded experiment"
    # A family's own recipe counts as the recipe: mmseg's SGD for ResNets is no departure from it.
    kept = settings["optimizer"]
    assert (kept.value, kept.recipe, kept.differs, kept.why) == ("sgd", "sgd", False, None)
    assert set(settings) == set(expand(experiment)[run.id].recipe.model_dump())
    paper = load_experiment(REPOSITORY / "configs/paper.yaml")
    full = explain(paper, "table2/pvt_small_hafa/miou").runs[0]
    assert not any(setting.differs for setting in full.settings if not setting.operational)


def test_difference(experiment):
    for seed in (0, 1):
        trained(experiment, f"segmentation/pvt_tiny/seed{seed}", 30.0 + seed)
        trained(experiment, f"segmentation/pvt_tiny_hafa/seed{seed}", 33.0 + 2 * seed)
    found = explain(experiment, "table2/pvt_tiny_hafa/miou_delta")
    assert found.what == "Table 2: PVT-Tiny(HAFA), mIoU (%), difference from PVT-Tiny"
    assert found.value.delta == pytest.approx(3.5)
    assert found.value.delta_interval is not None
    assert set(found.value.by_seed) == {"pvt_tiny", "pvt_tiny_hafa"}
    assert [origin.id for origin in found.origins] == [
        f"segmentation/{model}/seed{seed}" for model in ("pvt_tiny_hafa", "pvt_tiny") for seed in (0, 1)
    ]
    assert found.remake.command.count("evaluate.json") == 4


def test_cell_that_was_not_run(experiment):
    found = explain(experiment, "table2/pvt_tiny_hafa/miou")
    assert (found.value.mark, found.value.mean, found.origins) == ("not run", None, [])
    # Two seeds, each with its classification run.
    assert "for 6 jobs (4 trainings)" in found.cost
    assert [run.state for run in found.runs] == ["missing", "missing"]
    assert "--forcerun" not in found.remake.command
    text = text_of(experiment, "table2/pvt_tiny_hafa/miou")
    assert "here     not run in this experiment" in text
    assert "To produce it\n" in text


def test_cell_that_another_experiment_has(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    found = explain(load_experiment(Path("configs/digits.yaml")), "table2/pvt_large_hafa/miou")
    assert found.remake is None
    here, elsewhere = found.notes
    assert missing_facts(here, "configs/digits.yaml", "pvt_large_hafa", "train.segmentation") == []
    assert "hafabench explain table2/pvt_large_hafa/miou --experiment configs/paper.yaml" in elsewhere


def test_stale_run_is_not_the_cells_value(experiment):
    trained(experiment, "segmentation/pvt_tiny/seed0", 30.0, fingerprint="f" * 12)
    found = explain(experiment, "table2/pvt_tiny/miou")
    assert (found.value.mark, found.origins) == ("stale", [])
    assert [run.state for run in found.runs] == ["stale", "missing"]
    text = text_of(experiment, "table2/pvt_tiny/miou")
    assert "seed0: stale (its configuration was not stored)" in text
    assert "here     no number\n" in text and "not run in this experiment" not in text


def test_seeds_are_rounded_half_up(experiment):
    for seed, value in enumerate((82.345, 0.10005)):
        trained(experiment, f"segmentation/pvt_tiny/seed{seed}", value)
    assert "seeds    0: 82.35, 1: 0.1001\n" in text_of(experiment, "table2/pvt_tiny/miou")


def test_the_cost_of_one_training_is_in_the_singular(write_experiment, monkeypatch, tmp_path):
    path = write_experiment(lambda content: content.update(seeds=[0]))
    monkeypatch.chdir(tmp_path)
    assert "for 2 jobs (1 training)," in explain(load_experiment(path), "table1/pvt_tiny/top1").cost


def test_counted_cell(experiment):
    mark = complexity_fingerprint(experiment, "classification")
    record = complexity("classification", {"pvt_tiny": {"params": 13229288, "gmacs": 1.9}}, "all of them")
    path = complexity_record(experiment, "classification")
    write_record(path, record.model_copy(update={"fingerprint": mark}))
    found = explain(experiment, "table1/pvt_tiny/params_m")
    (origin,) = found.origins
    assert (found.value.printed, found.value.mark, found.value.by_seed) == ("13.2", "counted", {})
    assert (origin.record, origin.how, origin.value) == (path, "all of them", 13229288)
    assert (found.runs, origin.checkpoint) == ([], None)
    words = shlex.split(found.remake.command)
    assert words[:4] == ["snakemake", str(path), "--forcerun", str(path)]
    assert found.remake.by_hand[0].startswith("hafabench complexity --task classification --format record")


def test_timed_cell(experiment):
    (group,) = experiment.config.latency
    record = latency("table4", {"pvt_v2_b1_hafa": (59.0, 60.0, 62.5)})
    mark = latency_fingerprint(experiment, group)
    write_record(latency_record(experiment, group.name), record.model_copy(update={"fingerprint": mark}))
    found = explain(experiment, "table4/pvt_v2_b1_laa_laa_sia/latency_ms")
    assert found.value.printed == "60.0 [59.0, 62.5]"
    assert found.origins[0].how == "20 repeats or images"
    assert found.remake.by_hand == (f"hafabench latency table4 --experiment {experiment.file}",)


def test_latency_that_the_experiment_does_not_measure(experiment):
    found = explain(experiment, "latency/pvt_tiny_hafa/latency_ms")
    assert found.remake is None
    (note,) = found.notes
    assert missing_facts(note, experiment.file, "'pvt_tiny'", "latency") == []


def test_imported_cell(experiment):
    file = plain("segmentation,pvt_large,,miou,42.1,%\n")
    store_import(experiment, read_import(file, experiment))
    found = explain(experiment, "table2/pvt_large/miou")
    (origin,) = found.origins
    assert (found.value.printed, found.value.mark) == ("42.1†", "imported")
    assert found.value.by_seed == {"pvt_large": {"unknown": 42.1}}
    assert (origin.source["file"], origin.source["read"]) == ("numbers.csv", "line 2")
    assert (origin.commit, origin.device, origin.started, origin.training) == (None, None, None, None)
    assert found.remake.command == origin.command
    text = text_of(experiment, "table2/pvt_large/miou")
    assert f"imported  numbers.csv (sha256 {sha256_of(file)[:16]}…)" in text
    assert "device    unknown" in text


def test_an_import_beside_a_measured_number_is_distinguished(experiment):
    trained(experiment, "segmentation/pvt_tiny/seed0", 30.0)
    store_import(experiment, read_import(plain("segmentation,pvt_tiny,,miou,35.7,%\n"), experiment))
    found = explain(experiment, "table2/pvt_tiny/miou")
    assert (found.value.mean, found.value.mark) == (30.0, "measured")
    assert [(origin.value, origin.shown) for origin in found.origins] == [(30.0, True), (35.7, False)]
    assert "seed_unknown: 35.7 %: imported, not shown" in text_of(experiment, "table2/pvt_tiny/miou")


def test_accounting_of_the_cells_own_jobs(experiment):
    turn = {
        "job_id": "7",
        "state": "COMPLETED",
        "exit_code": 0,
        "elapsed_s": 7200,
        "gpus": 4,
        "cpus": 8,
        "cpu_s": None,
        "peak_memory_mb": None,
        "gpu_use": None,
        "nodes": "gpu3",
        "submitted": None,
        "started": "2026-01-02T03:04:05",
        "ended": None,
    }
    jobs = [
        {"rule": "train_run", "subject": f"segmentation/{model}/seed0", "turns": [turn]}
        for model in ("pvt_tiny", "resnet18")
    ]
    accounting_file(experiment).parent.mkdir(parents=True)
    content = {"schema": "hafabench.accounting/1", "experiment": "digits", "backend": "sacct", "updated": "now"}
    accounting_file(experiment).write_text(json.dumps(content | {"cells": jobs}))
    (entry,) = explain(experiment, "table2/pvt_tiny/miou").accounting
    assert (entry["job"], entry["gpu_hours"], entry["nodes"]) == (
        "train_run segmentation/pvt_tiny/seed0",
        8.0,
        ["gpu3"],
    )
    assert "COMPLETED, 2.00 h, 8.00 GPU-hours" in text_of(experiment, "table2/pvt_tiny/miou")


# Formats and the verb.


def test_json_contains_every_setting_and_can_be_read_back(experiment):
    trained(experiment, "segmentation/pvt_tiny/seed0", 30.0)
    content = json.loads(to_json(explain(experiment, "table2/pvt_tiny/miou")))
    assert content["locator"] == "table2/pvt_tiny/miou"
    assert content["origins"][0]["training"]["resumes"] == 2
    settings = {setting["key"]: setting for setting in content["runs"][0]["settings"]}
    assert settings["iterations"] == {
        "key": "iterations",
        "value": 32,
        "recipe": 40000,
        "source": "paper section 4.2",
        "why": "digits.yaml: budget and size of the embedded experiment",
        "operational": False,
        "differs": True,
    }


def test_markdown_escapes_text_of_the_user(experiment):
    text = to_markdown(explain(experiment, "table2/pvt_tiny_hafa/miou"))
    assert text.startswith(
        "# Table 2: PVT-Tiny(HAFA), mIoU (%)\n\n`table2/pvt_tiny_hafa/miou` of experiment digits\n"
    )
    assert r"pvt\_tiny" in text
    assert "\n```\nsnakemake results/digits/segmentation/pvt_tiny_hafa/seed0/evaluate.json " in text


@pytest.mark.parametrize("name", SHIPPED)
def test_every_cell_of_every_experiment_can_be_explained(name, tmp_path, monkeypatch):
    experiment = load_experiment(REPOSITORY / "configs" / f"{name}.yaml")
    monkeypatch.chdir(tmp_path)
    explainer = Explainer(experiment)
    for locator in places(experiment):
        found = explainer.explain(locator)
        assert found.remake is not None or found.notes, f"{locator}: neither a way to make it nor a reason"
        assert locator in to_text(found)
        assert json.loads(to_json(found))["locator"] == locator


@pytest.mark.parametrize(
    "name", ["paper", *(pytest.param(name, marks=pytest.mark.slow) for name in SHIPPED if name != "paper")]
)
def test_cells_with_records_can_be_explained(name, tmp_path, monkeypatch):
    experiment = load_experiment(REPOSITORY / "configs" / f"{name}.yaml")
    monkeypatch.chdir(tmp_path)
    fill_results(experiment)
    # One cell of each column, and the rows of models that drop tokens, whose recipes have a section.
    last = {(p.table_layout.id, p.column.key, p.is_difference): locator for locator, p in places(experiment).items()}
    dropping = [
        locator for locator, p in places(experiment).items() if experiment.models[p.row.model].keep is not None
    ]
    explainer = Explainer(experiment)
    for locator in [*last.values(), *dropping][slice(None) if name != "paper" else slice(-8, None)]:
        found = explainer.explain(locator)
        assert locator in to_text(found)
        assert json.loads(to_json(found))["value"]["printed"] == found.value.printed
        assert "token_pruning.teacher" in to_text(found) or "dynamic" not in locator or not found.runs


@pytest.mark.parametrize("style", ["text", "markdown", "json"])
def test_the_verb(experiment, style):
    arguments = ["explain", "table2/pvt_tiny_hafa/miou", "-e", str(experiment.file), "--format", style]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert "results/digits/segmentation/pvt_tiny_hafa/seed0/evaluate.json" in done.output


def test_verbs_by_hand_are_verbs(experiment):
    trained(experiment, "segmentation/pvt_tiny/seed0", 30.0)
    trained(experiment, "segmentation/pvt_tiny/seed1", 30.0)
    for locator in ("table2/pvt_tiny/miou", "table2/pvt_tiny_hafa/miou", "table1/pvt_tiny/gflops"):
        for line in explain(experiment, locator).remake.by_hand:
            program, *words = shlex.split(line)
            if program == "rm":
                assert all(Path(path).is_file() for path in words)
                continue
            command, name = cli, "hafabench"
            while hasattr(command, "get_command"):
                name, *words = words
                command = command.get_command(None, name)
            # Parses the arguments and refuses unknown ones; nothing runs.
            command.make_context(name, words)
