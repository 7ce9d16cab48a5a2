"""Imported numbers: formats, marked records, refusals, and separation from measured numbers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from hafabench.cli import cli
from hafabench.config.experiment import Experiment, load_experiment
from hafabench.errors import UserError
from hafabench.imports.read import read_import
from hafabench.imports.store import store_import
from hafabench.reporting import csv as cells_csv
from hafabench.reporting import latex, markdown
from hafabench.reporting.frame import collect_experiment
from hafabench.reporting.report import Report
from hafabench.results.record import read_record, write_record
from hafabench.runs.run import expand
from tests.support.messages import missing_facts
from tools.synthetic_records import evaluation

SUMMARY = """epoch,train_loss,eval_loss,eval_top1,eval_top5,lr
0,6.9,6.5,10.5,30.0,0.001
1,5.0,4.8,62.25,85.0,0.001
2,4.0,4.5,61.5,86.0,0.0005
"""
ARGUMENTS = {"model": "resnet18", "seed": 42, "epochs": 3, "num_classes": 10, "lr": 0.001, "model_ema": False}
SCALARS = [
    {"lr": 1e-4, "loss": 1.5, "epoch": 1, "iter": 50, "step": 50},
    {"coco/bbox_mAP": 0.301, "coco/bbox_mAP_50": 0.5, "coco/bbox_mAP_s": -1.0, "coco/segm_mAP": 0.28, "step": 11},
    {"lr": 1e-5, "loss": 1.1, "epoch": 12, "iter": 600, "step": 600},
    {"coco/bbox_mAP": 0.3, "coco/bbox_mAP_50": 0.52, "coco/bbox_mAP_s": -1.0, "coco/segm_mAP": 0.29, "step": 12},
]
PLAIN = "task,model,seed,metric,value,unit\n"


@pytest.fixture
def experiment(write_experiment, monkeypatch, tmp_path) -> Experiment:
    path = write_experiment()
    monkeypatch.chdir(tmp_path)
    return load_experiment(path)


def summary(text: str = SUMMARY, **arguments) -> Path:
    Path("summary.csv").write_text(text)
    Path("args.yaml").write_text(json.dumps(ARGUMENTS | arguments))
    return Path("summary.csv")


def lines(name: str, entries: list[dict]) -> Path:
    Path(name).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return Path(name)


def plain(body: str, heading: str = PLAIN) -> Path:
    Path("numbers.csv").write_text(heading + body)
    return Path("numbers.csv")


def values(imported) -> dict[str, float]:
    return {found.metric.name: found.metric.value for found in imported.metrics}


def stored(experiment: Experiment, file: Path, *, replace: bool = False, **options) -> list:
    return store_import(experiment, read_import(file, experiment, **options), replace=replace)


# timm.


def test_timm_imports_its_last_epoch_and_arguments(experiment):
    (made,) = stored(experiment, summary())
    record = read_record(made.path)
    assert made.path == Path("results/digits/imported/evaluate/classification/resnet18") / made.path.name
    assert {m.name: (m.value, m.unit, m.seed) for m in record.metrics} == {
        "top1": (61.5, "%", 42),
        "top5": (86.0, "%", 42),
    }
    assert record.origin == "imported"
    assert record.source.read == "epoch 2, the last of 3 evaluated (line 4)"
    assert record.source.sha256 == hashlib.sha256(SUMMARY.encode()).hexdigest()
    assert record.source.also == {"args.yaml": hashlib.sha256(json.dumps(ARGUMENTS).encode()).hexdigest()}
    assert record.training["configuration"]["lr"] == 0.001
    unknown = ("git_commit", "device", "threads", "host", "started", "duration_s", "python", "dataset_digest")
    assert all(getattr(record.provenance, name) is None for name in unknown)


@pytest.mark.parametrize(
    ("epoch", "top1", "read"),
    [("best", 62.25, "epoch 1, the best by top1 of 3"), ("0", 10.5, "epoch 0, chosen by number of 3")],
)
def test_another_epoch_is_taken_by_name_only(experiment, epoch, top1, read):
    found = read_import(summary(), experiment, epoch=epoch)
    assert values(found)["top1"] == top1
    assert found.metrics[0].part.startswith(read)


def test_timm_resumed_counts_the_later_of_two_equal_epochs(experiment):
    # Resumed after epoch 1, whose line was written twice, with the heading again.
    head, *rows = SUMMARY.splitlines(keepends=True)
    text = head + rows[0] + rows[1] + head + rows[1].replace("62.25", "70.0") + rows[2]
    found = read_import(summary(text), experiment, epoch="best")
    assert (values(found)["top1"], found.metrics[0].part) == (
        70.0,
        "epoch 1, the best by top1 of 3 evaluated (line 5)",
    )


@pytest.mark.parametrize(
    ("text", "arguments", "options", "says"),
    [
        (SUMMARY, {"epochs": 300}, {}, "summary.csv:4: its last epoch is 2, but args.yaml has 300 epochs"),
        (SUMMARY, {"num_classes": None}, {}, "args.yaml: num_classes: trained for 1000 classes, .* data set has 10"),
        (SUMMARY, {"model": "resnet19"}, {}, "unknown model 'resnet19'; did you mean resnet18"),
        (SUMMARY, {}, {"epoch": "7"}, "no epoch '7' was evaluated; expected last, best, or one of ... 0, 1, 2"),
        (SUMMARY.replace("61.5", "nan"), {}, {}, "summary.csv:4: eval_top1: top1 is nan, expected a finite number"),
        (SUMMARY.replace("61.5", "high"), {}, {}, "summary.csv:4: eval_top1: expected a number, found 'high'"),
        (SUMMARY.replace("61.5", "615"), {}, {}, "summary.csv:4: eval_top1: top1 is 615 %, expected 0 to 100 %"),
        (SUMMARY.replace("eval_top1", "top"), {}, {}, "summary.csv:1: expected timm's columns epoch and eval_top1"),
        (SUMMARY, {}, {"task": "detection"}, "timm's summaries are about classification, not detection"),
    ],
)
def test_timm_refused(experiment, text, arguments, options, says):
    with pytest.raises(UserError, match=says) as caught:
        read_import(summary(text, **arguments), experiment, **options)
    assert len(caught.value.problems) == 1


def test_timm_without_its_arguments_needs_a_model_and_leaves_the_seed_unknown(experiment):
    file = summary()
    Path("args.yaml").unlink()
    with pytest.raises(UserError, match=r"args\.yaml .*; give --model"):
        read_import(file, experiment)
    (made,) = stored(experiment, file, model="resnet18")
    assert made.record.metrics[0].seed is None
    assert made.record.training is None


# OpenMMLab.


def test_mmengine_scalars(experiment):
    found = read_import(lines("scalars.json", SCALARS), experiment, model="pvt_tiny")
    # -1 is COCO's word for a size that the data does not have.
    assert values(found) == pytest.approx({"box_ap": 30.0, "box_ap50": 52.0, "mask_ap": 29.0})
    assert {imported.metric.task for imported in found.metrics} == {"detection"}
    assert found.metrics[0].part == "step 12, the last of 2 evaluated (line 4)"
    best = read_import(lines("scalars.json", SCALARS), experiment, model="pvt_tiny", epoch="best")
    assert values(best)["box_ap"] == pytest.approx(30.1)


def test_segmentation_is_in_percent_since_mmengine_and_a_fraction_before(experiment):
    new = lines("scalars.json", [{"aAcc": 80.0, "mIoU": 41.5, "mAcc": 52.0, "step": 40000}])
    assert values(read_import(new, experiment, model="pvt_tiny"))["miou"] == 41.5
    old = lines(
        "run.log.json",
        [
            {"env_info": "...", "seed": 7, "exp_name": "fpn_pvt_tiny.py"},
            {"mode": "train", "epoch": 1, "iter": 50, "loss": 1.0},
            {"mode": "val", "epoch": 20, "iter": 250, "aAcc": 0.8, "mIoU": 0.415, "mAcc": 0.52},
        ],
    )
    found = read_import(old, experiment, model="pvt_tiny")
    assert values(found)["miou"] == 41.5
    assert (found.metrics[0].metric.seed, found.metrics[0].part[:8]) == (7, "epoch 20")
    assert found.training == {"seed": 7, "exp_name": "fpn_pvt_tiny.py"}


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        (None, {"model": None}, "scalars.json: these logs do not contain the model's name; give --model"),
        (None, {"task": "segmentation"}, "scalars.json: no validation of segmentation, only of detection"),
        ('{"loss": 1.0, "step": 1}\n', {}, "scalars.json: no line contains the metrics of a validation"),
        ('{"mIoU": NaN, "step": 1}\n', {}, "scalars.json:1: miou: miou is nan, expected a finite number"),
        ('{"mIoU": "40", "step": 1}\n', {}, "scalars.json:1: mIoU: expected a number, found '40'"),
        ('{"mIoU": 40}\n', {}, "scalars.json:1: a validation without its step or epoch"),
        ('{"a/mIoU": 4, "b/mIoU": 5, "step": 1}\n', {}, "scalars.json:1: b/mIoU: a second value of miou"),
        ('{"loss": \n{"mIoU": 40, "step": 1}\n', {}, "scalars.json:1: not a JSON object"),
        ("[1]\n", {}, "scalars.json:1: expected a JSON object"),
        ('{"mIoU": 40, "step": true}\n', {}, "scalars.json:1: a validation without its step or epoch"),
        (f'{{"mIoU": 1{"0" * 400}, "step": 1}}\n', {}, "scalars.json:1: mIoU: the number is too large"),
        (f'{{"mIoU": 1{"0" * 5000}, "step": 1}}\n', {}, "scalars.json:1: not a JSON object"),
        ("[" * 100000 + "\n", {}, "scalars.json:1: not a JSON object"),
        ("", {}, "scalars.json: the file is empty"),
        ("\n\n", {}, "scalars.json: the file is empty"),
    ],
)
def test_mmengine_refused(experiment, text, options, says):
    file = lines("scalars.json", SCALARS)
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_import(file, experiment, **({"model": "pvt_tiny"} | options))
    assert str(caught.value).startswith(says)
    assert len(caught.value.problems) == 1


# Text from other systems.

ENCODINGS = {
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "Windows": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "old Macs": lambda text: text.replace("\n", "\r").encode(),
    "no last end of line": lambda text: text.rstrip("\n").encode(),
    "empty lines": lambda text: text.replace("\n", "\n\n").encode(),
}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_text_of_other_systems_is_read(experiment, encode):
    log = lines("scalars.json", SCALARS)
    numbers = plain("classification,resnet18,0,top1,62.5,%\n")
    for file, options in ((summary(), {}), (log, {"model": "pvt_tiny"}), (numbers, {})):
        expected = values(read_import(file, experiment, **options))
        file.write_bytes(encode(file.read_text()))
        assert values(read_import(file, experiment, **options)) == expected
    arguments = summary().with_name("args.yaml")
    arguments.write_bytes(b"\xef\xbb\xbf" + arguments.read_bytes())
    assert read_import(summary(), experiment).training["epochs"] == 3


@pytest.mark.parametrize("name", ["summary.csv", "scalars.json", "numbers.csv"])
@pytest.mark.parametrize(
    ("encode", "facts"),
    [
        (lambda text: text.encode("utf-16"), ["UTF-16", "save the file with the encoding UTF-8"]),
        (lambda text: text.encode("utf-16-le"), [":1: ", "NUL", "UTF-8"]),
        (lambda text: text.encode("utf-32"), ["UTF-32", "UTF-8"]),
        (lambda text: b"\n\xe9" + text.encode(), [":2: ", "0xE9", "UTF-8"]),
        (lambda text: b"", ["empty"]),
        (lambda text: b"\xef\xbb\xbf", ["empty"]),
    ],
    ids=["UTF-16", "UTF-16 without mark", "UTF-32", "latin-1", "empty", "only a mark"],
)
def test_other_text_is_refused_in_one_sentence(experiment, name, encode, facts):
    summary()
    lines("scalars.json", SCALARS)
    plain("classification,resnet18,0,top1,62.5,%\n")
    file = Path(name)
    file.write_bytes(encode(file.read_text()))
    with pytest.raises(UserError) as caught:
        read_import(file, experiment, model="resnet18" if name != "numbers.csv" else None)
    assert missing_facts(caught.value, name, *facts) == []
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (SUMMARY.replace(",", ";").replace(".", ","), ["semicolons", "commas"]),
        (SUMMARY.replace(",", "\t"), ["tabs"]),
        (SUMMARY.replace("62.25", '"62,25"'), [":3: ", "eval_top1", "decimal point", "62,25"]),
        (SUMMARY.replace("62.25", "62,25"), [":3: ", "7 fields under 6 columns", "decimal point"]),
        (SUMMARY.replace("62.25", "6_2"), [":3: ", "eval_top1", "6_2"]),
        (SUMMARY.replace("\n1,", "\n1.5,"), [":3: ", "epoch", "1.5"]),
        (SUMMARY.replace("\n1,", "\n-1,"), [":3: ", "epoch", "-1"]),
        (SUMMARY.splitlines()[0] + "\n", ["no epoch was evaluated"]),
    ],
    ids=str,
)
def test_numbers_that_are_written_otherwise_are_refused_in_one_sentence(experiment, text, facts):
    with pytest.raises(UserError) as caught:
        read_import(summary(text), experiment, kind="timm")
    assert missing_facts(caught.value, "summary.csv", *facts) == []
    assert len(caught.value.problems) == 1


def test_decimal_commas_of_a_plain_csv_are_refused(experiment):
    with pytest.raises(UserError) as caught:
        read_import(plain("classification,resnet18,0,top1,62,5,%\n"), experiment)
    assert missing_facts(caught.value, "numbers.csv:2: expected 6 fields, found 7", "decimal point") == []
    with pytest.raises(UserError) as caught:
        read_import(plain('classification,resnet18,0,top1,"62,5",%\n'), experiment)
    assert missing_facts(caught.value, "numbers.csv:2: value", "decimal point", "62,5") == []


# A plain CSV.


def test_plain_csv(experiment):
    heading = "task,model,seed,metric,value,unit,epoch,device,commit,note\n"
    body = (
        "segmentation,pvt_tiny,3,miou,0.405,fraction,last,A100,abc123,single scale\n"
        "classification,deit_tiny_patch16_224,,top1,72.2,%,,,,\n"
        "classification,dynamicvit_lvs_0.5,,params,26.9,M,,,,\n"
    )
    first, second, third = (read_record(made.path) for made in stored(experiment, plain(body, heading)))
    (metric,) = first.metrics
    assert (metric.value, metric.unit, metric.seed, metric.convention) == (40.5, "%", 3, "single scale")
    assert (first.provenance.device, first.provenance.git_commit) == ("A100", "abc123")
    assert first.source.read == "line 2, epoch last"
    # timm's name of a model is understood; what the file leaves empty stays unknown.
    assert (second.metrics[0].model, second.metrics[0].seed, second.provenance.device) == ("deit_tiny", None, None)
    assert (third.verb, third.metrics[0].value, third.metrics[0].unit) == ("complexity", 26.9e6, "1")


def test_all_problems_of_a_csv_are_reported_at_once_with_their_lines(experiment):
    file = plain(
        "segmentation,pvt_tinny,0,miou,40,%\n"
        "counting,pvt_tiny,0,miou,40,%\n"
        "segmentation,pvt_tiny,0,mIou,40,%\n"
        "segmentation,pvt_tiny,0,miou,nan,%\n"
        "segmentation,pvt_tiny,0,miou,140,%\n"
        "segmentation,pvt_tiny,0,miou,40,points\n"
        "segmentation,pvt_tiny,first,miou,40,%\n"
        "segmentation,pvt_tiny,0,miou,,%\n"
        "segmentation,pvt_tiny,0\n"
        "classification,pvt_tiny,0,latency_ms,5,ms\n"
    )
    with pytest.raises(UserError) as caught:
        read_import(file, experiment)
    expected = [
        "unknown model 'pvt_tinny'; did you mean pvt_tiny",
        "unknown task 'counting'; expected one of classification",
        "unknown metric 'mIou' of segmentation; expected miou",
        "miou is nan, expected a finite number",
        "miou is 140 %, expected 0 to 100 %",
        "unknown unit 'points' of miou; expected '%' or 'fraction'",
        "expected a whole number or nothing as seed, found 'first'",
        "value: expected a number, found ''",
        "expected 6 fields",
        "latencies are not imported",
    ]
    for number, (problem, says) in enumerate(zip(caught.value.problems, expected, strict=True), start=2):
        assert str(problem).startswith(f"numbers.csv:{number}: {says}")


@pytest.mark.parametrize(
    ("heading", "body", "says"),
    [
        ("task,model,metric,value\n", "", "numbers.csv:1: no column unit; expected task, model, metric, value, unit"),
        (PLAIN.replace("seed", "sed"), "", "numbers.csv:1: unknown column 'sed'"),
        (PLAIN, "", "numbers.csv: no line below the header"),
    ],
)
def test_csv_with_other_columns(experiment, heading, body, says):
    with pytest.raises(UserError) as caught:
        read_import(plain(body, heading), experiment)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize("name", ["absent.csv", "notes.txt", "binary.json"])
def test_files_that_are_no_import(experiment, name):
    Path("notes.txt").write_text("40.1")
    Path("binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=f"^{name}: "):
        read_import(Path(name), experiment, model="pvt_tiny")


# What never mixes.


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            "segmentation,pvt_tiny,0,miou,40,%\nsegmentation,pvt_tiny,0,miou,41,%\n",
            ":3: miou of pvt_tiny is given twice",
        ),
        ("segmentation,pvt_tiny,0,miou,40,%\nsegmentation,pvt_tiny,,miou,41,%\n", "with and without a seed"),
    ],
)
def test_numbers_that_may_be_the_same_training_twice(experiment, body, says):
    with pytest.raises(UserError, match=says):
        stored(experiment, plain(body))
    assert not Path("results").exists()


def test_a_number_is_imported_once_unless_replaced(experiment):
    (first,) = stored(experiment, plain("segmentation,pvt_tiny,0,miou,40,%\n"))
    before = first.path.read_text()
    # The same file again changes nothing of meaning; another seed joins.
    stored(experiment, plain("segmentation,pvt_tiny,0,miou,40,%\n"))
    stored(experiment, plain("segmentation,pvt_tiny,1,miou,42,%\n"))
    changed = plain("segmentation,pvt_tiny,0,miou,50,%\n")
    with pytest.raises(UserError, match="contains miou; --replace"):
        stored(experiment, changed)
    without_seed = Path("other.csv")
    without_seed.write_text(PLAIN + "segmentation,pvt_tiny,,miou,41,%\n")
    with pytest.raises(UserError, match="--replace"):
        stored(experiment, without_seed)
    assert json.loads(first.path.read_text())["metrics"] == json.loads(before)["metrics"]
    (second,) = stored(experiment, changed, replace=True)
    assert second.replaced == (first.path,)
    frame, _ = collect_experiment(experiment)
    assert sorted(zip(frame["seed"], frame["value"], strict=True)) == [(0, 50.0), (1, 42.0)]


def test_replacing_never_loses_another_number(experiment):
    stored(experiment, plain("segmentation,pvt_tiny,0,miou,40,%\nsegmentation,pvt_tiny,0,mean_acc,50,%\n"))
    with pytest.raises(UserError, match="also contains mean_acc, which the new import does not"):
        stored(experiment, plain("segmentation,pvt_tiny,0,miou,41,%\n"), replace=True)


def test_imported_and_measured_numbers_share_no_cell_and_no_difference(experiment):
    runs = expand(experiment)
    for model, value in (("pvt_tiny", 90.0), ("pvt_tiny_hafa", 92.0)):
        run = runs[f"classification/{model}/seed0"]
        write_record(run.record, evaluation(run.task, model, 0, {"top1": value}, fingerprint=run.fingerprint))
    made = stored(
        experiment,
        plain(
            "classification,pvt_tiny,1,top1,10,%\n"
            "classification,pvt_small,0,top1,50,%\n"
            "classification,pvt_small,1,top1,52,%\n"
            "classification,pvt_small_hafa,0,top1,60,%\n"
        ),
    )
    assert [item.is_measured for item in made] == [True, False, False, False]
    frame, _ = collect_experiment(experiment)
    table = Report(experiment, frame, None).tables["table1"]
    at = [column.key for column in table.columns].index("top1")
    cells = {row.model: row.cells[at] for row in table.rows}
    # The measured cell is what it was before the import.
    assert (cells["pvt_tiny"].value, cells["pvt_tiny"].n, cells["pvt_tiny"].mark) == (90.0, 1, "measured")
    assert cells["pvt_tiny_hafa"].delta == pytest.approx(2.0)
    assert (cells["pvt_small"].value, cells["pvt_small"].n, cells["pvt_small"].mark) == (51.0, 2, "imported")
    assert "51.0 ± 1.4†" in markdown.render_table(table)
    in_latex = next(line for line in latex.render_table(table).splitlines() if "PVT-Small &" in line)
    assert r"$^\dagger$" in in_latex
    assert r"$^\dagger$" not in next(line for line in latex.render_table(table).splitlines() if "PVT-Tiny &" in line)
    assert ",imported," in cells_csv.render_table(table)
    assert "device cpu;" in table.notes[-1]
    assert any(note.startswith("†: imported:") for note in table.notes)


def test_measured_here_and_imported_of_the_same_model_give_no_difference(experiment):
    run = expand(experiment)["classification/pvt_tiny/seed0"]
    write_record(run.record, evaluation(run.task, "pvt_tiny", 0, {"top1": 90.0}, fingerprint=run.fingerprint))
    stored(experiment, plain("classification,pvt_tiny_hafa,0,top1,95,%\n"))
    frame, _ = collect_experiment(experiment)
    table = Report(experiment, frame, None).tables["table1"]
    (cell,) = (row.cells[2] for row in table.rows if row.model == "pvt_tiny_hafa")
    assert (cell.ours(1), cell.delta) == (("95.0†", ""), None)


def test_imported_numbers_go_stale_with_the_data_and_not_with_recipes(experiment, write_experiment):
    stored(experiment, plain("segmentation,pvt_tiny,0,miou,40,%\n"))

    def relearn(content):
        content["overrides"][2]["set"]["iterations"] = 64

    collect_experiment(load_experiment(write_experiment(relearn)))

    def redraw(content):
        content["datasets"]["segmentation"]["images"] = {"train": 160, "val": 41}

    with pytest.raises(UserError, match=r"imported for other data or sizes: .* import it again or delete it"):
        collect_experiment(load_experiment(write_experiment(redraw)))


def test_a_record_in_the_place_of_the_other_origin_is_refused(experiment):
    (made,) = stored(experiment, plain("segmentation,pvt_tiny,0,miou,40,%\n"))
    run = expand(experiment)["segmentation/pvt_tiny/seed0"]
    write_record(run.record, made.record)
    made.path.unlink()
    with pytest.raises(UserError, match="origin: expected 'measured' at this path, found 'imported'"):
        collect_experiment(experiment)


# Records.


@pytest.mark.parametrize("name", ["device", "threads", "host", "started", "duration_s", "python", "peak_memory_mb"])
def test_a_measured_record_still_knows_where_it_was_made(tmp_path, name):
    path = tmp_path / "evaluate.json"
    write_record(path, evaluation("classification", "pvt_tiny", 0, {"top1": 90.0}))
    content = json.loads(path.read_text())
    content["provenance"][name] = None
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"a measured record needs {name}"):
        read_record(path)
    del content["provenance"][name]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"provenance.{name}: required key is missing"):
        read_record(path)


def test_a_record_of_before_imports_is_still_read(tmp_path):
    path = tmp_path / "evaluate.json"
    record = evaluation("classification", "pvt_tiny", 0, {"top1": 90.0})
    write_record(path, record)
    content = json.loads(path.read_text())
    del content["source"], content["content_sha256"]
    path.write_text(json.dumps(content))
    assert read_record(path) == record


def test_an_imported_record_names_its_source(tmp_path):
    path = tmp_path / "evaluate.json"
    write_record(path, evaluation("classification", "pvt_tiny", 0, {"top1": 90.0}))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"origin": "imported"}))
    with pytest.raises(UserError, match="an imported record needs a source"):
        read_record(path)


# The verb.


def test_the_command_writes_the_record_and_reports_it(experiment):
    done = CliRunner().invoke(cli, ["import", str(summary()), "-e", str(experiment.file), "--epoch", "best"])
    assert done.exit_code == 0, done.output
    assert "imported/classification/resnet18/seed42 top1 62.25 %" in done.output
    (path,) = Path("results/digits/imported").rglob("*.json")
    assert f"epoch 1, the best by top1 of 3 evaluated (line 3) -> {path}" in done.output
    again = CliRunner().invoke(cli, ["import", "summary.csv", "-e", str(experiment.file)])
    assert isinstance(again.exception, UserError)
    replaced = CliRunner().invoke(cli, ["import", "summary.csv", "-e", str(experiment.file), "--replace"])
    assert replaced.exit_code == 0
    assert read_record(path).metrics[0].value == 61.5
