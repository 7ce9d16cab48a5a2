"""What decides a verdict: the paper's protocol, the number of seeds, the device, and the origin of the numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import yaml

from hafabench.config.experiment import load_experiment
from hafabench.config.paper_values import load_paper_values
from hafabench.config.recipes import TASKS
from hafabench.errors import UserError
from hafabench.reporting.claims.comparability import is_device
from hafabench.reporting.claims.measured import judge
from hafabench.reporting.claims.output import to_text
from hafabench.reporting.claims.paper_claims import paper_claims
from hafabench.reporting.csv import render_table
from hafabench.reporting.latex import render_table as render_latex
from hafabench.reporting.markdown import claims_page, tables_page
from hafabench.reporting.report import Report
from hafabench.results.record import Collapse
from hafabench.runs.protocol import load_protocol
from hafabench.runs.run import expand
from hafabench.stats.moderated import moderated_difference, moderated_interval
from tests.support.messages import missing_facts
from tools.checkout import REPOSITORY
from tools.synthetic_records import evaluation, frame_of, latency


@pytest.fixture(scope="module")
def paper():
    return load_experiment(REPOSITORY / "configs/paper.yaml")


@pytest.fixture(scope="module")
def claims(paper):
    return {claim.locator: claim for claim in paper_claims(paper, load_paper_values(paper.paper_values))}


@pytest.fixture
def changed(write_experiment):
    """A function that loads a changed copy of the paper's experiment with classification only."""

    def load(change, models=("pvt_tiny",), tasks=("classification",)):
        def edit(content):
            content["train"] = {task: list(models) for task in tasks}
            content["latency"] = []
            change(content)

        return load_experiment(write_experiment(edit, base="paper"))

    return load


def top1(model, seed, value, scale="full", **changes):
    return evaluation("classification", model, seed, {"top1": value}, experiment="paper", scale=scale, **changes)


def ledger(experiment, folder, *records):
    return Report(experiment, frame_of(folder, *records), None).ledger


def verdict_on(experiment, folder, locator, *records):
    return ledger(experiment, folder, *records).by_locator[locator]


# -- the protocol ----------------------------------------------


def photographs(content):
    dataset = content["datasets"]["classification"]
    dataset |= {"name": "photographs", "num_classes": 3, "images": {"train": 1024, "val": 20}}
    small = {"image_size": 32, "epochs": 1, "warmup_epochs": 0}
    content["overrides"] = [{"runs": "classification/*", "why": "a test", "set": small}]


@pytest.mark.parametrize("scale", ["full", "custom"])
def test_own_data_size_and_schedule_are_not_compared_at_any_scale(changed, tmp_path, scale):
    own = changed(lambda content: (photographs(content), content.update(scale=scale)))
    verdict = verdict_on(own, tmp_path, "table1/pvt_tiny/top1", top1("pvt_tiny", 0, 41.0, scale))
    assert (verdict.verdict, verdict.value, verdict.is_settled) == ("not comparable", 41.0, False)
    facts = ("data set photographs (paper: imagenet1k)", "3 classes (paper: 1,000)", "image_size 32 (paper: 224)")
    facts += ("1,024 training images (paper: 1,281,167)", "20 validation images (paper: 50,000)")
    facts += ("epochs 1 (paper: 300)", "warmup_epochs 0 (paper: 5)")
    assert missing_facts(verdict.because, *facts) == []


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda c: c["datasets"]["classification"].update(name="imagenet100"), "imagenet100 (paper: imagenet1k)"),
        (lambda c: c["datasets"]["classification"].update(num_classes=100), "100 classes (paper: 1,000)"),
        (lambda c: c["datasets"]["classification"]["images"].update(val=49_999), "49,999 validation images"),
        (lambda c: c["datasets"]["classification"]["images"].update(train=1_281_166), "1,281,166 training images"),
        (lambda c: c.update(overrides=[override(image_size=192)]), "image_size 192 (paper: 224)"),
        (lambda c: c.update(overrides=[override(epochs=100)]), "epochs 100 (paper: 300)"),
        (lambda c: c.update(overrides=[override(batch_size=512)]), "batch_size 512 (paper: 1024)"),
        (lambda c: c.update(overrides=[override(lr=0.01, mixup=0.0)]), "other recipe values: lr, mixup"),
    ],
)
def test_each_difference_from_the_protocol_is_named(changed, tmp_path, change, fact):
    verdict = verdict_on(changed(change), tmp_path, "table1/pvt_tiny/top1", top1("pvt_tiny", 0, 75.1))
    assert (verdict.verdict, missing_facts(verdict.because, fact)) == ("not comparable", [])


def override(**values):
    return {"runs": "classification/*", "why": "a test", "set": values}


@pytest.mark.parametrize(
    "change",
    [
        lambda c: None,
        lambda c: c.update(scale="custom", gpus=4),
        lambda c: c.update(seeds=[3]),
        lambda c: c["datasets"]["classification"].update(root="elsewhere"),
        lambda c: c.update(overrides=[override(workers=1, eval_batch_size=7, log_every=1, checkpoint_every=9)]),
    ],
)
def test_the_protocol_does_not_depend_on_scale_folder_seeds_or_operation(changed, tmp_path, change):
    own = changed(change)
    record = top1("pvt_tiny", own.config.seeds[0], 75.0, own.config.scale)
    assert verdict_on(own, tmp_path, "table1/pvt_tiny/top1", record).verdict == "reproduced"


def test_a_dense_run_also_needs_a_start_that_follows_the_protocol(changed, tmp_path):
    own = changed(lambda c: c.update(overrides=[override(epochs=30)]), tasks=("classification", "segmentation"))
    record = evaluation("segmentation", "pvt_tiny", 0, {"miou": 35.7}, experiment="paper", scale="full")
    verdict = verdict_on(own, tmp_path, "table2/pvt_tiny/miou", record)
    assert verdict.verdict == "not comparable"
    assert missing_facts(verdict.because, "classification/pvt_tiny differs: epochs 30 (paper: 300)") == []


def test_the_size_of_the_evaluation_is_part_of_the_protocol(changed, tmp_path):
    other = {"runs": "segmentation/*", "why": "a test", "set": {"size_divisor": None}}
    own = changed(lambda c: c.update(overrides=[other]), tasks=("classification", "segmentation"))
    record = evaluation("segmentation", "pvt_tiny", 0, {"miou": 35.7}, experiment="paper", scale="full")
    report = Report(own, frame_of(tmp_path, record), None)
    because = report.ledger.by_locator["table2/pvt_tiny/miou"].because
    assert missing_facts(because, "size_divisor none (paper: 32)") == []
    assert report.other_tasks == ("segmentation",)


def test_the_departure_of_a_start_is_one_sentence_for_all_seeds(paper, tmp_path):
    values = dict.fromkeys(("top1", "top5"), 82.0)
    records = [
        evaluation("classification", "dynamicvit_lvs_0.5", seed, values, experiment="paper", scale="full")
        for seed in (0, 1, 2)
    ]
    because = verdict_on(paper, tmp_path, "table6/dynamicvit_lvs_0.5/top1", *records).because
    assert because.count("token labels") == 1
    assert (
        missing_facts(because, "the recipe of its start classification/lvvit_small differs: it is trained without")
        == []
    )


def test_the_page_of_claims_names_the_claims_file_of_the_experiment(changed, tmp_path):
    content = yaml.safe_load((REPOSITORY / "configs/claims.yaml").read_text())
    del content["protocol"]
    (tmp_path / "own_claims.yaml").write_text(yaml.safe_dump(content))
    found = ledger(changed(lambda c: c.update(claims="own_claims.yaml")), tmp_path)
    page = claims_page(found, found.verdicts)
    assert f"`{tmp_path}/own_claims.yaml`" in page
    assert "configs/claims.yaml" not in page


def test_an_inconclusive_latency_does_not_ask_for_seeds(claims):
    text = judge(claims["latency/pvt_tiny_hafa/latency_ms"], 8.0, 7.0, 9.0)
    assert text[0] == "inconclusive" and "seeds" not in text[1]
    verdict, because = judge(claims["table1/pvt_tiny/top1"], 75.6, 75.0, 76.2)
    assert (verdict, missing_facts(because, "differs by 0.50 points", "more seeds are needed")) == (
        "inconclusive",
        [],
    )


def test_a_difference_over_fewer_seeds_is_named_beside_the_outcome_of_a_seed(paper, tmp_path):
    rows = [top1("pvt_tiny", seed, 75.1) for seed in (0, 1, 2)] + [
        top1("pvt_tiny_hafa", seed, 77.5) for seed in (0, 1)
    ]
    lost = evaluation("classification", "pvt_tiny_hafa", 2, {"top1": 0.0}, experiment="paper", scale="full")
    collapse = Collapse(run="classification/pvt_tiny_hafa/seed2", step=7, reason="the loss is nan")
    rows.append(lost.model_copy(update={"metrics": [], "collapse": collapse}))
    own = replace(paper, config=paper.config.model_copy(update={"seeds": (0, 1, 2)}))
    table = Report(own, frame_of(tmp_path, *rows), None).tables["table1"]
    (cell,) = [row.cells[-1] for row in table.rows if row.model == "pvt_tiny_hafa"]
    assert cell.ours(1) == ("77.5 ± 0.0, seed 2 collapsed", "(+2.4¶)")
    assert "difference of PVT-Tiny(HAFA), Top-1 (%): seeds 0, 1" in " ".join(table.notes)


@pytest.mark.parametrize(
    ("locator", "model", "fact"),
    [
        ("table1/hrnet_w32/top1", "hrnet_w32", "HRNet"),
        ("table1/resnext101_64x4d/top1", "resnext101_64x4d", "0.3 and the gradient clipping of PVT-Large"),
        ("table1/vit_base/top1", "vit_base", "PVT-Large"),
        ("table1/deit_base/top1", "deit_base", "PVT-Large"),
        ("table6/dynamicvit_lvs_0.5/top1", "dynamicvit_lvs_0.5", "token labels"),
        ("table2/resnet18/miou", "resnet18", "SGD"),
    ],
)
def test_rows_with_a_knowingly_different_recipe_say_so(paper, tmp_path, claims, locator, model, fact):
    claim = claims[locator]
    values = {claim.column.metric_name: claim.printed}
    record = evaluation(claim.column.task, model, 0, values, experiment="paper", scale="full")
    verdict = verdict_on(paper, tmp_path, locator, record)
    assert (verdict.verdict, missing_facts(verdict.because, fact)) == ("not comparable", [])


@pytest.mark.parametrize("locator", ["table1/deit_tiny/top1", "table1/pvt_large/top1", "table3/resnet18/box_ap"])
def test_other_rows_are_compared(paper, tmp_path, claims, locator):
    claim = claims[locator]
    values = {claim.column.metric_name: claim.printed}
    record = evaluation(claim.column.task, claim.row.model, 0, values, experiment="paper", scale="full")
    assert verdict_on(paper, tmp_path, locator, record).verdict == "reproduced"


def test_edited_files_are_no_longer_the_protocol(paper, tmp_path):
    """A protocol whose files were edited in place for other data describes nothing of the paper."""
    protocol = load_protocol(paper.claims_config, paper.claims_file)
    assert protocol.edited == {}, "state the new fingerprints in configs/claims.yaml, if the paper's protocol changed"
    config = paper.config.model_copy(deep=True)
    config.datasets["classification"].images["train"] = 100_000
    edited = replace(protocol, experiment=replace(paper, config=config))
    assert {task: edited.fingerprint(task) for task in TASKS} != protocol.fingerprints
    differences = edited.differences(next(iter(expand(edited.experiment).values())))
    assert missing_facts("; ".join(differences.setting), "paper.yaml", "edited") == []


def test_without_a_protocol_nothing_measured_is_compared(paper, tmp_path):
    bare = replace(paper, claims_config=paper.claims_config.model_copy(update={"protocol": None}))
    verdict = verdict_on(bare, tmp_path, "table1/pvt_tiny/top1", top1("pvt_tiny", 0, 75.1))
    assert (verdict.verdict, "claims file" in verdict.because) == ("not comparable", True)


def test_a_departure_of_no_model_is_refused(tmp_path, write_experiment):
    text = (REPOSITORY / "configs/recipes/segmentation.yaml").read_text()
    folder = tmp_path / "recipes"
    folder.mkdir()
    for task in TASKS:
        (folder / f"{task}.yaml").write_text((REPOSITORY / f"configs/recipes/{task}.yaml").read_text())
    (folder / "segmentation.yaml").write_text(text.replace("resnext*", "resnaxt*"))
    with pytest.raises(UserError, match=r"departures\[0\].models\[1\]: 'resnaxt\*' matches no known model"):
        load_experiment(write_experiment(lambda content: content.update(recipes=str(folder))))


def test_tables_of_other_data_carry_the_warning_at_full_scale_too(changed, tmp_path):
    own = changed(photographs)
    report = Report(own, frame_of(tmp_path, top1("pvt_tiny", 0, 41.0)), None)
    assert report.tables["table1"].kinds[-1] == "custom"
    assert "not comparable" in report.tables["table1"].warning
    assert "not comparable" in report.warning
    assert "not the paper's" in " ".join(report.tables["table1"].notes)
    faithful = changed(lambda content: None)
    report = Report(faithful, frame_of(tmp_path / "other", top1("pvt_tiny", 0, 75.1)), None)
    assert (report.warning, report.tables["table1"].warning) == ("", "")


# -- seeds ----------------------------------------------


def rates(claim, mean, sd, seeds, trials=2000):
    """How often ``seeds`` runs with this true mean reproduce, and contradict, a claim."""
    random = np.random.default_rng(seeds)
    found = []
    for values in random.normal(mean, sd, (trials, seeds)).tolist():
        found.append(judge(claim, float(np.mean(values)), *moderated_interval(values, claim.assumed_sd))[0])
    return found.count("reproduced") / trials, found.count("contradicted") / trials


NOISE = 0.03
"""Three standard errors of a difference between two rates of 2000 trials, at most."""


@pytest.mark.parametrize("sd", [0.05, 0.1, 0.2])
def test_more_seeds_reproduce_a_true_figure_at_least_as_often(claims, sd):
    found = [rates(claims["table1/pvt_tiny/top1"], 75.1, sd, seeds) for seeds in (1, 2, 3, 4, 8)]
    reproduced = [rate for rate, _ in found]
    assert all(later > earlier - NOISE for earlier, later in pairwise(reproduced))
    assert min(reproduced) > 0.9
    assert max(contradicted for _, contradicted in found) < 0.01


def test_a_true_gain_is_reproduced_more_often_with_more_seeds(claims):
    claim = claims["table1/pvt_large_hafa/top1_delta"]  # +0.5
    found = [rates(claim, 0.5, 0.1 * 2**0.5, seeds)[0] for seeds in (1, 2, 3, 4, 8)]
    assert all(later > earlier - NOISE for earlier, later in pairwise(found))
    assert found[-1] > 0.99


@pytest.mark.parametrize("error", [0.5, 0.7, -0.7, 1.0])
def test_more_seeds_contradict_a_wrong_figure_more_often(claims, error):
    found = [rates(claims["table1/pvt_tiny/top1"], 75.1 + error, 0.1, seeds) for seeds in (1, 2, 3, 4, 8)]
    reproduced, contradicted = zip(*found, strict=True)
    assert all(later > earlier - NOISE for earlier, later in pairwise(contradicted))
    assert all(later < earlier + NOISE for earlier, later in pairwise(reproduced))
    assert contradicted[-1] > 0.85


def test_the_verdict_of_records_follows_the_same_rule(paper, tmp_path):
    """Two seeds 0.1 apart around the printed figure are as good as one."""
    for number, values in enumerate([(75.1,), (75.0, 75.2), (75.0, 75.1, 75.2), (75.0, 75.0)]):
        records = [top1("pvt_tiny", seed, value) for seed, value in enumerate(values)]
        verdict = verdict_on(paper, tmp_path / str(number), "table1/pvt_tiny/top1", *records)
        assert (verdict.verdict, verdict.seeds) == ("reproduced", len(values))
        assert verdict.low < verdict.value < verdict.high


def test_an_interval_narrows_with_values_and_widens_with_their_spread():
    widths = [high - low for low, high in (moderated_interval([1.0] * n, 0.1) for n in (1, 2, 4, 8))]
    assert widths == sorted(widths, reverse=True)
    calm, wild = moderated_interval([0.9, 1.1] * 4, 0.1), moderated_interval([0.0, 2.0] * 4, 0.1)
    assert wild[1] - wild[0] > calm[1] - calm[0]
    low, high = moderated_difference([1.0, 1.2], [0.5], 0.1)
    assert (low + high) / 2 == pytest.approx(0.6)


def with_a_failed_baseline_seed():
    values = {"pvt_tiny_hafa": {0: 77.0, 1: 78.0, 2: 77.5}, "pvt_tiny": {0: 75.0, 2: 74.8}}
    return [top1(model, seed, value) for model, of_model in values.items() for seed, value in of_model.items()]


def test_a_difference_is_over_the_common_seeds_everywhere_and_its_cell_is_marked(paper, tmp_path):
    report = Report(paper, frame_of(tmp_path, *with_a_failed_baseline_seed()), None)
    table = report.tables["table1"]
    cells = {row.model: row.cells[-1] for row in table.rows}
    cell = cells["pvt_tiny_hafa"]
    assert (cell.n, cell.delta_seeds, cell.delta) == (3, (0, 2), pytest.approx(2.35))
    assert report.ledger.by_locator["table1/pvt_tiny_hafa/top1_delta"].value == pytest.approx(2.35)
    assert cell.ours(1) == ("77.5 ± 0.5", "(+2.4¶)")
    assert cells["pvt_tiny"].ours(1)[0].endswith("¶")
    note = next(note for note in table.notes if note.startswith("¶: "))
    assert missing_facts(note, "PVT-Tiny, Top-1 (%): seeds 0, 2", "difference of PVT-Tiny(HAFA)") == []
    assert "(+2.4¶)" in tables_page(report)
    assert r"\textsuperscript{\P}" in render_latex(table)
    assert ",2\n" in render_table(table)


def test_complete_seeds_are_not_marked(paper, tmp_path):
    both = [record for record in with_a_failed_baseline_seed() if record.metrics[0].seed != 1]
    report = Report(paper, frame_of(tmp_path, *both), None)
    assert "¶" not in tables_page(report)


def test_models_without_a_common_seed_have_no_difference(paper, tmp_path):
    records = [top1("pvt_tiny_hafa", 0, 77.5), top1("pvt_tiny", 1, 75.1)]
    report = Report(paper, frame_of(tmp_path, *records), None)
    cell = next(row for row in report.tables["table1"].rows if row.model == "pvt_tiny_hafa").cells[-1]
    assert cell.delta is None
    verdict = report.ledger.by_locator["table1/pvt_tiny_hafa/top1_delta"]
    assert (verdict.verdict, "no seed in common" in verdict.because) == ("not run", True)


# -- devices ----------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected", "same"),
    [
        ("NVIDIA GeForce RTX 3090", "RTX 3090", True),
        ("GeForce RTX 3090", "RTX 3090", True),
        ("nvidia geforce rtx  3090", "RTX 3090", True),
        ("NVIDIA(R) GeForce RTX(TM) 3090", "RTX 3090", True),
        ("NVIDIA GeForce RTX 3090 Ti", "RTX 3090", False),
        ("NVIDIA GeForce RTX 3090 Laptop GPU", "RTX 3090", False),
        ("NVIDIA GeForce RTX 30900", "RTX 3090", False),
        ("NVIDIA GeForce GTX 3090", "RTX 3090", False),
        ("2 x NVIDIA GeForce RTX 3090", "RTX 3090", False),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-40GB", False),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "NVIDIA A100-SXM4-40GB", False),
        ("cpu", "RTX 3090", False),
        ("", "RTX 3090", False),
    ],
)
def test_a_device_is_known_by_its_whole_name(name, expected, same):
    assert is_device(name, expected) is same


@pytest.mark.parametrize(
    ("device", "verdict"),
    [("NVIDIA GeForce RTX 3090", "reproduced"), ("NVIDIA GeForce RTX 3090 Ti", "not comparable")],
)
def test_a_latency_of_another_device_is_not_compared(paper, tmp_path, device, verdict):
    times = {"pvt_v2_b1_hafa": (16.0, 16.3, 16.6)}
    record = latency("table4", times, experiment="paper", scale="full", device=device)
    found = verdict_on(paper, tmp_path, "table4/pvt_v2_b1_laa_laa_sia/latency_ms", record)
    assert found.verdict == verdict


def test_a_latency_of_another_input_is_not_compared(changed, tmp_path):
    def smaller(content):
        group = {"name": "table4", "baseline": "pvt_v2_b1", "models": ["pvt_v2_b1_hafa"], "repeats": 9}
        content["latency"] = [{**group, "image_size": 192, "batch_size": 8}]

    times = {"pvt_v2_b1_hafa": (16.0, 16.3, 16.6)}
    record = latency("table4", times, experiment="paper", scale="full", device="NVIDIA GeForce RTX 3090")
    found = verdict_on(changed(smaller), tmp_path, "table4/pvt_v2_b1_laa_laa_sia/latency_ms", record)
    assert found.verdict == "not comparable"
    assert missing_facts(found.because, "image_size 192 (paper: 224)", "batch_size 8 (paper: 1)") == []


# -- tallies ----------------------------------------------


def test_imported_numbers_are_tallied_separately(paper, tmp_path):
    records = [
        top1("pvt_tiny", 0, 75.1),
        top1("pvt_small", None, 79.8, origin="imported", id="imported/pvt_small"),
        top1("pvt_large", None, 60.0, origin="imported", id="imported/pvt_large"),
    ]
    found = ledger(paper, tmp_path, *records)
    totals = found.totals()
    assert totals["reproduced"] == found.settled == 1
    assert (totals["reproduced, imported numbers"], totals["contradicted, imported numbers"]) == (1, 1)
    assert sum(totals.values()) == len(found.verdicts)
    assert to_text(found, found.verdicts).splitlines()[-1].startswith("1 of 224 claims settled")
    assert "reproduced, imported numbers" in claims_page(found, found.verdicts)


def test_imported_numbers_of_other_data_are_not_compared(changed, tmp_path):
    record = top1("pvt_tiny", None, 75.1, origin="imported", id="imported/pvt_tiny")
    verdict = verdict_on(changed(photographs), tmp_path, "table1/pvt_tiny/top1", record)
    assert verdict.verdict == "not comparable"
    assert missing_facts(verdict.because, "photographs", "image_size 32") == []
    assert not re.search("epochs", verdict.because)
