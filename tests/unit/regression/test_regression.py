"""The gate catches planted regressions, accepts clean reruns, and refuses records that cannot be compared."""

from __future__ import annotations

import json
from shutil import copyfile, copytree
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from hafabench.cli import cli
from hafabench.config.experiment import load_experiment
from hafabench.config.regression import GateLimits, load_limits
from hafabench.errors import UserError
from hafabench.files import sha256_of
from hafabench.regression.baseline import baseline_findings, replace_baseline
from hafabench.regression.records import read_records
from hafabench.results.predictions import Areas, Hits, write_predictions
from hafabench.results.record import Collapse, ImportSource, predictions_beside, read_record, write_record
from hafabench.runs.records import expected_records
from tests.support.gate_records import (
    HERE,
    LIMITS,
    changed,
    hits,
    judged,
    verdicts,
    write_complexity,
    write_evaluation,
    write_ratio,
)
from tests.support.markdown import table_rows
from tools.checkout import REPOSITORY

TOP1 = "classification/pvt_tiny_hafa/top1"
RATIO = "latency/pvt_tiny/pvt_tiny_hafa/latency_ratio"
PARAMS = "complexity/classification/pvt_tiny_hafa/params"


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "baseline", tmp_path / "candidate"


def write_seeds(folder, values, **changes):
    for seed, value in enumerate(values):
        write_evaluation(folder, "classification", "pvt_tiny_hafa", seed, {"top1": value}, **changes)


def write_hits(folder, kept, **changes):
    write_evaluation(folder, "classification", "pvt_tiny_hafa", 0, kept=kept, **changes)


def test_two_lost_points_are_caught_by_predictions(folders):
    rng = np.random.default_rng(0)
    before = hits(rng, 5000, 0.7)
    write_hits(folders[0], before)
    write_hits(folders[1], changed(before, rng, lost=0.03, won=0.01))
    [change] = judged(*folders).changes
    assert (str(change.key), change.verdict) == (TOP1, "worse")
    assert change.effect.change == pytest.approx(-2.0)
    assert "150 lost, 50 won" in change.effect.method


def test_two_lost_points_are_caught_by_seeds(folders):
    write_seeds(folders[0], [77.4, 77.6, 77.5, 77.7, 77.3])
    write_seeds(folders[1], [75.5, 75.4, 75.5, 75.7, 75.4], trained="again")
    [change] = judged(*folders).changes
    assert change.verdict == "worse"
    assert change.effect.change == pytest.approx(-2.0)
    assert "5 seeds" in change.effect.method


def test_evaluated_foreign_weights_are_compared_image_by_image_and_with_nothing_else(folders):
    rng = np.random.default_rng(0)
    before = hits(rng, 5000, 0.7)
    source = ImportSource(kind="weights", file="a.pth", sha256="a" * 64, read="all", imported="2026-01-02T03:04:05")
    for folder, kept in zip(folders, (before, changed(before, rng, lost=0.03, won=0.01)), strict=True):
        write_hits(folder, before)
        record = read_record(folder / "classification/pvt_tiny_hafa/seed0/evaluate.json")
        place = folder / "imported/evaluate/classification/pvt_tiny_hafa/seed_unknown-aaaaaaaa.json"
        write_predictions(predictions_beside(place), kept)
        changes = {"origin": "imported", "source": source, "predictions_sha256": sha256_of(predictions_beside(place))}
        changes["id"] = "imported/classification/pvt_tiny_hafa/seed_unknown"
        values = {"top1": 100 * kept.top1.mean(), "top5": 100 * kept.top5.mean()}
        metrics = [one.model_copy(update={"seed": None, "value": values[one.name]}) for one in record.metrics]
        write_record(place, record.model_copy(update={**changes, "metrics": metrics}))
        # Numbers that were measured elsewhere are not compared.
        number = changes | {"predictions_sha256": None, "metrics": metrics}
        write_record(place.with_stem("seed_unknown-bbbbbbbb"), record.model_copy(update=number))
    found = {str(change.key): change for change in judged(*folders).changes}
    assert {name: change.verdict for name, change in found.items()} == {
        TOP1: "no change",
        f"imported/{TOP1}": "worse",
    }
    assert "150 lost, 50 won" in found[f"imported/{TOP1}"].effect.method
    with pytest.raises(UserError, match=r"contains records but no history\.jsonl of a baseline"):
        replace_baseline(folders[0], read_records(folders[1]), reason="a test", who="me")
    new = folders[0].with_name("new")
    replace_baseline(new, read_records(folders[1]), reason="a test", who="me")
    assert {change.verdict for change in judged(new, folders[1]).changes} == {"no change"}
    other = place.with_stem("seed_unknown-cccccccc")
    copyfile(predictions_beside(place), predictions_beside(other))
    write_record(
        other, read_record(place).model_copy(update={"source": source.model_copy(update={"sha256": "c" * 64})})
    )
    with pytest.raises(
        UserError, match=r"top1 is given also in .*seed_unknown-aaaaaaaa\.json; expected every number"
    ):
        judged(*folders)
    other.unlink()
    predictions_beside(place).unlink()
    with pytest.raises(UserError, match=r"seed_unknown-aaaaaaaa\.npz: no such file.*import it again"):
        judged(*folders)


def test_two_lost_points_on_few_images_are_cannot_tell(folders):
    rng = np.random.default_rng(0)
    before = hits(rng, 200, 0.7)
    write_hits(folders[0], before)
    write_hits(folders[1], changed(before, rng, lost=0.05, won=0.03))
    changes = judged(*folders)
    [change] = changes.changes
    assert change.verdict == "cannot tell"
    assert change.effect.detectable > 2
    assert not changes.failed()
    assert changes.failed(strict=True)


def test_a_gain_is_better_and_a_small_certain_change_is_none(folders):
    rng = np.random.default_rng(0)
    before = hits(rng, 20_000, 0.7)
    write_hits(folders[0], before)
    write_hits(folders[1], changed(before, rng, lost=0.0, won=0.02))
    assert verdicts(judged(*folders)) == {TOP1: "better"}
    write_hits(folders[1], changed(before, rng, lost=0.002, won=0.0))
    [change] = judged(*folders).changes
    assert change.effect.high < 0, "the loss is certain"
    assert change.verdict == "no change", "and within the limit of one point"


def test_one_parameter_more_is_caught(folders):
    write_complexity(folders[0], {"pvt_tiny_hafa": {"params": 14_649_000}, "pvt_tiny": {"params": 13_200_000}})
    write_complexity(folders[1], {"pvt_tiny_hafa": {"params": 14_649_001}, "pvt_tiny": {"params": 13_200_000}})
    assert verdicts(judged(*folders)) == {
        PARAMS: "worse",
        "complexity/classification/pvt_tiny/params": "no change",
    }


@pytest.mark.parametrize(
    ("after", "verdict"), [(1.20, "worse"), (1.00, "better"), (1.15, "cannot tell"), (1.105, "no change")]
)
def test_ratios_of_latency(folders, after, verdict):
    write_ratio(folders[0], 1.10)
    write_ratio(folders[1], after)
    assert verdicts(judged(*folders)) == {RATIO: verdict}


def test_on_another_machine_ratios_may_differ_more(folders):
    write_ratio(folders[0], 1.10)
    write_ratio(folders[1], 1.20, machine=HERE.model_copy(update={"cpu": "another one"}))
    [change] = judged(*folders).changes
    assert change.verdict == "no change"
    assert "made on another machine or with another version of torch: wider limit" in change.notes
    write_ratio(folders[1], 1.40, machine=None)
    assert verdicts(judged(*folders)) == {RATIO: "worse"}


def test_timed_beside_other_work_ratios_may_differ_more(folders):
    quiet, busy = (HERE.model_copy(update={"others_percent": share}) for share in (9.0, 47.0))
    write_ratio(folders[0], 1.10, machine=quiet)
    write_ratio(folders[1], 1.20, machine=quiet)
    assert verdicts(judged(*folders)) == {RATIO: "worse"}
    for one, other in ((quiet, busy), (busy, quiet)):
        write_ratio(folders[0], 1.10, machine=one)
        write_ratio(folders[1], 1.20, machine=other)
        [change] = judged(*folders).changes
        assert change.verdict == "no change"
        assert change.notes == ("timed while other processes used 47 % of the CPU time: wider limit",)
    write_ratio(folders[1], 1.40, machine=busy)
    assert verdicts(judged(*folders)) == {RATIO: "worse"}


def test_noisy_ratios_are_cannot_tell(folders):
    write_ratio(folders[0], 1.10, half=0.10)
    write_ratio(folders[1], 1.25, half=0.10)
    assert verdicts(judged(*folders)) == {RATIO: "cannot tell"}


def test_twenty_clean_trainings_raise_no_alarm(tmp_path):
    """Five seeds of two models and a latency ratio, drawn again and again from the same distribution."""
    rng = np.random.default_rng(0)
    for rerun in range(20):
        baseline, candidate = tmp_path / f"{rerun}/baseline", tmp_path / f"{rerun}/candidate"
        for folder in (baseline, candidate):
            write_seeds(folder, rng.normal(77, 0.4, 5), trained=folder.name)
            write_ratio(folder, 1.1 * np.exp(rng.normal(0, 0.01)), half=0.0258)
        changes = judged(baseline, candidate)
        assert {change.verdict for change in changes.changes} <= {"cannot tell", "no change"}


def test_equal_predictions_need_no_statistics(folders):
    kept = hits(np.random.default_rng(0), 50, 0.7)
    write_hits(folders[0], kept)
    write_hits(folders[1], kept, trained="again")
    [change] = judged(*folders).changes
    assert (change.verdict, change.effect.method, change.effect.detectable) == (
        "no change",
        "identical predictions",
        0,
    )


def test_the_level_is_shared_out_among_comparisons_with_an_error(folders):
    rng = np.random.default_rng(0)
    for folder in folders:
        write_hits(folder, hits(rng, 500, 0.7))
        write_ratio(folder, 1.1)
        write_complexity(folder, {"pvt_tiny_hafa": {"params": 1}})
    # The ratio is compared a second time, with the variation of the baseline.
    assert judged(*folders).level == LIMITS.false_alarms / 3


def test_with_few_seeds_the_images_decide_and_a_note_is_added(folders):
    rng = np.random.default_rng(0)
    before = hits(rng, 500, 0.7)
    write_hits(folders[0], before)
    write_hits(folders[1], changed(before, rng, 0.2, 0.01), trained="again")
    [change] = judged(*folders).changes
    assert change.verdict == "worse"
    assert any("retrained" in note for note in change.notes)


def test_without_predictions_or_seeds_the_verdict_is_cannot_tell(folders):
    write_seeds(folders[0], [70.0])
    write_seeds(folders[1], [10.0])
    [change] = judged(*folders).changes
    assert change.verdict == "cannot tell"
    assert "1 seeds (expected 3 or more) and no predictions" in change.effect.method


def test_missing_metrics_fail_the_gate_and_new_ones_do_not(folders):
    write_seeds(folders[0], [70.0] * 3)
    write_complexity(folders[0], {"pvt_tiny_hafa": {"params": 1}})
    write_complexity(folders[1], {"pvt_tiny_hafa": {"params": 1}, "mine": {"params": 2}})
    changes = judged(*folders)
    assert verdicts(changes) == {
        TOP1: "missing",
        "complexity/classification/mine/params": "new",
        PARAMS: "no change",
    }
    assert changes.failed()


@pytest.mark.parametrize("left", [[1.0, 1.0], [70.0, 71.0], [70.1, 71.0, 72.1, 73.1]], ids=len)
def test_lost_seeds_are_missing(folders, left):
    write_seeds(folders[0], [70.0, 71.0, 72.0, 73.0, 74.0])
    write_seeds(folders[1], left)
    changes = judged(*folders)
    assert verdicts(changes) == {TOP1: "missing"}
    assert f"the candidate lacks {5 - len(left)} of the baseline's 5 seeds" in changes.changes[0].notes
    assert changes.failed()


def test_seeds_that_only_the_candidate_has_are_not_compared(folders):
    write_seeds(folders[0], [70.0, 71.0, 72.0])
    write_seeds(folders[1], [70.1, 71.0, 72.1, 1.0, 2.0])
    [change] = judged(*folders).changes
    assert change.candidate == pytest.approx(71.07, abs=0.01)
    assert "not compared: seeds 3, 4, which only the candidate has" in change.notes


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ([70.0, 71.0, 72.0, 73.0, 74.0], [70.1, 71.2, 71.9, 73.0, 10.0], "worse"),
        ([70.0, 71.0, 72.0], [20.0, 21.0, 22.0], "worse"),
        ([70.0, 70.0, 70.0], [60.0, 60.0, 60.0], "worse"),
        ([70.0, 70.0, 70.0], [66.0, 70.0, 70.0], "cannot tell"),
        ([70.0, 71.0, 72.0], [70.0, 71.0, 67.0], "cannot tell"),
        ([70.0, 71.0, 72.0], [70.1, 70.9, 99.0], "cannot tell"),
    ],
)
def test_a_candidate_that_varies_more_than_the_baseline_hides_no_loss(folders, before, after, verdict):
    write_seeds(folders[0], before)
    write_seeds(folders[1], after, trained="again")
    [change] = judged(*folders).changes
    assert change.verdict == verdict
    assert (verdict == "worse") == any("varies more than the baseline" in note for note in change.notes)


@pytest.mark.parametrize("seeds", [1, 3], ids="seeds-{}".format)
def test_lost_predictions_are_missing(folders, seeds):
    kept = hits(np.random.default_rng(0), 100, 0.7)
    for seed in range(seeds):
        write_evaluation(folders[0], "classification", "pvt_tiny_hafa", seed, kept=kept)
        write_evaluation(folders[1], "classification", "pvt_tiny_hafa", seed, {"top1": 100 * kept.top1.mean()})
    changes = judged(*folders)
    assert verdicts(changes)[TOP1] == "missing"
    [change] = [change for change in changes.changes if str(change.key) == TOP1]
    assert "the baseline has predictions for this metric, and the candidate does not" in change.notes


@pytest.mark.parametrize(
    ("value", "interval", "verdict"),
    [
        (1.1, None, "missing"),
        (3.0, None, "worse"),
        (3.0, (0.1, 90.0), "worse"),
        (3.0, (1e-300, 1e9), "worse"),
        (0.5, (1e-300, 1e9), "cannot tell"),
        (1.12, (0.5, 2.0), "cannot tell"),
    ],
)
def test_a_missing_or_huge_interval_hides_no_slow_model(folders, value, interval, verdict):
    write_ratio(folders[0], 1.1)
    write_ratio(folders[1], value)
    path = folders[1] / "latency/pvt_tiny.json"
    record = read_record(path)
    about = {"interval": interval, "confidence": None if interval is None else 0.99}
    write_record(path, record.model_copy(update={"metrics": [record.metrics[0].model_copy(update=about)]}))
    assert verdicts(judged(*folders)) == {RATIO: verdict}


def collapse(folder, seed):
    run = f"classification/pvt_tiny_hafa/seed{seed}"
    write_evaluation(folder, "classification", "pvt_tiny_hafa", seed, {"top1": 0.0})
    record = read_record(folder / run / "evaluate.json")
    outcome = Collapse(run=run, step=7, reason="the loss is nan")
    write_record(folder / run / "evaluate.json", record.model_copy(update={"metrics": [], "collapse": outcome}))


def test_a_training_that_collapsed_is_worse(folders):
    write_seeds(folders[0], [70.0, 71.0, 72.0, 73.0])
    write_seeds(folders[1], [70.0, 71.0, 72.0])
    collapse(folders[1], 3)
    [change] = judged(*folders).changes
    assert change.verdict == "worse"
    assert "seed 3: training collapsed at step 7 (the loss is nan)" in change.notes


def test_a_model_whose_trainings_all_collapsed_is_missing(folders):
    write_seeds(folders[0], [70.0])
    collapse(folders[1], 0)
    changes = judged(*folders)
    assert verdicts(changes) == {TOP1: "missing"}
    assert changes.changes[0].notes == ("seed 0: training collapsed at step 7 (the loss is nan)",)


def test_sides_that_cannot_be_compared_are_refused(folders):
    kept = hits(np.random.default_rng(0), 50, 0.7)
    write_hits(folders[0], kept, dataset_digest="1" * 64)
    write_ratio(folders[0], 1.1)
    write_hits(folders[1], kept, dataset_digest="2" * 64, fingerprint="e" * 12)
    write_ratio(folders[1], 1.1, fingerprint="f" * 12)
    with pytest.raises(UserError) as caught:
        judged(*folders)
    assert "evaluated on other data" in str(caught.value)
    assert "timed under another protocol" in str(caught.value)
    write_ratio(folders[1], 1.1)
    write_hits(folders[1], Hits(kept.images[::-1], kept.top1, kept.top5), dataset_digest="1" * 64)
    with pytest.raises(UserError, match="other images, or in another order"):
        judged(*folders)
    write_hits(folders[1], kept, dataset_digest="1" * 64)
    (folders[1] / "classification/pvt_tiny_hafa/seed0/predictions.npz").write_bytes(b"changed")
    with pytest.raises(UserError, match="not the predictions that the record beside it was made with"):
        judged(*folders)


def test_another_experiment_is_refused(folders):
    write_seeds(folders[0], [70.0] * 3)
    write_seeds(folders[1], [70.0] * 3, experiment="another")
    with pytest.raises(UserError, match=r"experiment: another, but .* contains records of digits; .* --update"):
        judged(*folders)


@pytest.mark.parametrize("digest", ["dataset_digest", "listing_digest"])
def test_a_candidate_of_unknown_data_is_refused(folders, digest):
    kept = hits(np.random.default_rng(0), 50, 0.7)
    write_hits(folders[0], kept, **{digest: "1" * 64})
    write_hits(folders[1], kept)
    with pytest.raises(UserError, match="does not say on which data it was evaluated"):
        judged(*folders)
    write_hits(folders[1], kept, listing_digest="1" * 64)
    assert verdicts(judged(*folders))[TOP1] == "no change"


def edit(path, change):
    """Change the content of a record as an earlier version stored it, without the SHA-256 of the content."""
    content = json.loads(path.read_text())
    content.pop("content_sha256", None)
    change(content)
    path.write_text(json.dumps(content))


def top1_of(**changes):
    return lambda content: content["metrics"][0].update(changes)


EDITS = {
    "a lower value": (top1_of(value=1.0), "top1 of pvt_tiny_hafa is 1 %, but 70 % by its predictions"),
    "a value above 100": (top1_of(value=101.0), "top1 of pvt_tiny_hafa is 101 %"),
    "a negative value": (top1_of(value=-5.0), "top1 of pvt_tiny_hafa is -5 %"),
    "no finite value": (top1_of(value=float("nan")), "metrics[0].value: "),
    "true": (top1_of(value=True), "metrics[0].value: "),
    "another unit": (top1_of(value=0.7, unit="fraction"), "metrics[0].unit: expected '%' for top1, found 'fraction'"),
    "another seed": (top1_of(seed=1), "metrics[0].seed: expected 0 at this path, found 1"),
    "another model": (top1_of(model="pvt_tiny"), "metrics[0].model: expected 'pvt_tiny_hafa' at this path"),
    "another task": (top1_of(task="detection"), "metrics[0].name: unknown metric 'top1' of detection"),
    "a misspelt name": (top1_of(name="topl"), "metrics[0].name: unknown metric 'topl'"),
    "another id": (
        lambda content: content.update(id="classification/pvt_tiny_hafa/seed1"),
        "id: expected 'classification/pvt_tiny_hafa/seed0' at this path",
    ),
}


@pytest.mark.parametrize("side", [0, 1], ids=["baseline", "candidate"])
@pytest.mark.parametrize("edited", EDITS)
def test_an_edited_record_is_refused(folders, edited, side):
    kept = hits(np.random.default_rng(0), 10, 0.7)
    kept = Hits(kept.images, np.arange(10) < 7, np.arange(10) < 9)
    for folder in folders:
        write_hits(folder, kept)
    change, message = EDITS[edited]
    edit(folders[side] / "classification/pvt_tiny_hafa/seed0/evaluate.json", change)
    done = invoke(folders)
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("interval", "confidence"),
    [
        ([0, 1.2], 0.99),
        ([-1, 1.2], 0.99),
        ([1.2, 1.0], 0.99),
        ([1.2, 1.3], 0.99),
        ([None, None], 0.99),
        ([None, 1.2], 0.99),
        ([float("nan"), 1.2], 0.99),
        ([1.0, float("inf")], 0.99),
        ([True, 1.2], 0.99),
        (["1.0", "1.2"], 0.99),
        ([1.0], 0.99),
        (1.1, 0.99),
        ([1.0, 1.2], 0),
        ([1.0, 1.2], 1),
        ([1.0, 1.2], float("nan")),
        ([1.0, 1.2], "0.99"),
    ],
)
def test_an_impossible_interval_is_an_error(folders, interval, confidence):
    for folder in folders:
        write_ratio(folder, 1.1)
    path = folders[1] / "latency/pvt_tiny.json"
    edit(path, lambda content: content["metrics"][0].update(interval=interval, confidence=confidence))
    done = invoke(folders)
    assert done.exit_code == 2
    assert done.output.startswith(f"error: {path}: metrics[0].")


def test_predictions_of_another_task_are_refused(folders):
    kept = hits(np.random.default_rng(0), 10, 0.7)
    for folder in folders:
        write_hits(folder, kept)
    path = folders[1] / "classification/pvt_tiny_hafa/seed0/evaluate.json"
    ones = np.ones((10, 3), dtype=np.int64)
    write_predictions(predictions_beside(path), Areas(kept.images, ones, ones, ones))
    edit(path, lambda content: content.update(predictions_sha256=sha256_of(predictions_beside(path))))
    with pytest.raises(UserError, match="the predictions beside the record are none of classification"):
        judged(*folders)


def test_a_seed_that_is_a_copy_of_another_is_refused(folders):
    write_seeds(folders[0], [70.0, 71.0])
    write_seeds(folders[1], [70.0])
    source = folders[1] / "classification/pvt_tiny_hafa/seed0"
    copy = source.with_name("seed1")
    copytree(source, copy)
    with pytest.raises(UserError, match="id: expected 'classification/pvt_tiny_hafa/seed1' at this path"):
        judged(*folders)

    def pretend(content):
        content["id"] = "classification/pvt_tiny_hafa/seed1"
        content["metrics"][0]["seed"] = 1

    edit(copy / "evaluate.json", pretend)
    with pytest.raises(UserError, match="it describes the same training and evaluation as"):
        judged(*folders)
    copy.rename(copy.with_name("seed01"))
    with pytest.raises(UserError, match=r"seed01/evaluate\.json: no record is stored at such a path"):
        judged(*folders)


def test_a_record_that_is_a_folder_is_refused(folders):
    write_ratio(folders[0], 1.1)
    (folders[1] / "latency/pvt_tiny.json").mkdir(parents=True)
    assert invoke(folders).exit_code == 2
    output = invoke(folders).output
    assert output.startswith(f"error: {folders[1] / 'latency/pvt_tiny.json'}: ")
    assert output.endswith("; remove it, and `hafabench latency pvt_tiny` makes it again\n")


def test_a_number_that_is_given_twice_is_refused(folders):
    write_ratio(folders[1], 1.1)
    path = folders[1] / "latency/pvt_tiny.json"
    record = read_record(path)
    write_record(path, record.model_copy(update={"metrics": record.metrics * 2}))
    with pytest.raises(UserError, match=f"{RATIO} is given twice"):
        read_records(folders[1])


def test_the_same_data_set_with_other_bytes_is_compared_and_reported(folders):
    kept = hits(np.random.default_rng(0), 50, 0.7)
    for folder, digest in zip(folders, "12", strict=True):
        write_hits(folder, kept, dataset_digest=digest * 64)
    [change] = judged(*folders).changes
    assert change.verdict == "no change"
    assert any(note.startswith("the images differ in their bytes") for note in change.notes)


def test_limits_are_validated_with_their_lines(tmp_path):
    path = tmp_path / "limits.yaml"
    path.write_text("false_alarms: 2\nmetrics:\n  top1:\n    better: more\n    absolut: 1\n")
    with pytest.raises(UserError) as caught:
        load_limits(path)
    lines = str(caught.value).splitlines()
    assert any(f"{path}:1: false_alarms" in line for line in lines)
    assert any(f"{path}:4: metrics.top1.better" in line for line in lines)
    assert any(f"{path}:5: metrics.top1.absolut: unknown key" in line for line in lines)


@pytest.mark.parametrize("key", ["absolute", "elsewhere.relative"])
@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e400", "-1", "true", "'1'", "much", "[1]", "1e308"])
def test_a_limit_that_is_no_number_or_that_nothing_exceeds_is_one_error(folders, tmp_path, key, value):
    for folder in folders:
        write_ratio(folder, 1.1)
    path = tmp_path / "limits.yaml"
    limit = f"{{{key}: {value}}}" if "." not in key else f"{{elsewhere: {{{key.split('.')[1]}: {value}}}}}"
    path.write_text(f"metrics:\n  latency_ratio: {{}}\n  top1: {limit}\n")
    done = invoke(folders, "--limits", str(path))
    assert done.exit_code == 2
    assert done.output.startswith(f"error: {path}:3: metrics.top1.{key}: ")
    assert len(done.output.splitlines()) == 1


@pytest.mark.parametrize(
    "line",
    [
        "false_alarms: 0",
        "false_alarms: 1.0e-300",
        "false_alarms: .nan",
        "min_seeds: 3.5",
        "min_seeds: 2000000",
        "resamples: 1000000000",
        "disturbed: '10'",
        "disturbed: 101",
        "min_seed: 3",
    ],
)
def test_a_wrong_setting_of_the_gate_is_one_error(tmp_path, line):
    path = tmp_path / "limits.yaml"
    path.write_text(f"metrics: {{top1: {{}}}}\n{line}\n")
    with pytest.raises(UserError, match=f"^{path}:2: {line.split(':')[0]}: .*$"):
        load_limits(path)


def test_limits_that_no_metric_of_their_kind_has_are_refused(folders):
    for folder in folders:
        write_seeds(folder, [70.0] * 3)
        write_ratio(folder, 1.1)
        write_complexity(folder, {"pvt_tiny_hafa": {"params": 1}})
    ratio = {"latency_ratio": {"relative": 0.05}}
    for name, recorded in (("top1_ema", "top1"), ("throughput_ratio", "latency_ratio"), ("gmacs", "params")):
        judged_too = ratio if name == "top1_ema" else {}
        limits = GateLimits.model_validate({"metrics": {name: {}, "miou": {}} | judged_too})
        with pytest.raises(UserError, match=f"the limits name {name}, which neither .* at least one of {recorded}"):
            judged(*folders, limits)
    changes = judged(*folders, GateLimits.model_validate({"metrics": ratio | {"throughput_ratio": {}, "miou": {}}}))
    assert changes.notes == ("the limits name throughput_ratio, which neither the baseline nor the candidate has",)


def test_the_tracked_limits_are_valid_and_larger_elsewhere():
    limits = load_limits(REPOSITORY / "configs/regression.yaml")
    assert isinstance(limits, GateLimits)
    for name, metric in limits.metrics.items():
        here, elsewhere = (metric.tolerance(50.0, elsewhere=away) for away in (False, True))
        assert elsewhere >= here >= 0, name
    assert limits.metrics["params"].tolerance(1e7, elsewhere=True) == 0


def invoke(folders, *options):
    arguments = ["regress", "--baseline", str(folders[0]), "--candidate", str(folders[1])]
    limits = str(REPOSITORY / "configs/regression.yaml")
    return CliRunner().invoke(cli, [*arguments, "--limits", limits, *options])


def test_exit_codes_and_reports(folders, tmp_path):
    markdown, junit = tmp_path / "out/gate.md", tmp_path / "out/gate.xml"
    write_ratio(folders[0], 1.10)
    write_complexity(folders[0], {"pvt_tiny_hafa": {"params": 14_649_000}})
    write_ratio(folders[1], 1.15)
    write_complexity(folders[1], {"pvt_tiny_hafa": {"params": 14_649_000}})
    done = invoke(folders)
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "1 cannot tell, 1 no change")
    assert invoke(folders, "--strict").exit_code == 1
    write_complexity(folders[1], {"pvt_tiny_hafa": {"params": 14_649_001}})
    done = invoke(folders, "--markdown", str(markdown), "--junit", str(junit))
    assert done.exit_code == 1
    assert done.output.splitlines()[0].startswith(f"worse       {PARAMS}: 14649000 -> 14649001, +1 [+1, +1], limit 0")
    assert markdown.read_text().startswith("### Regression gate: failed\n\n1 worse, 1 cannot tell.\n")
    assert ["❌ worse", PARAMS.replace("_", "\\_"), "14649000", "14649001", "+1"] in [
        row[:5] for row in table_rows(markdown.read_text())
    ]
    suite = ElementTree.parse(junit).getroot()[0]
    assert {key: suite.get(key) for key in ("tests", "failures", "skipped")} == {
        "tests": "2",
        "failures": "1",
        "skipped": "1",
    }
    assert suite.find("testcase/failure").get("message").startswith(f"worse: {PARAMS}")


def test_reports_of_an_earlier_comparison_do_not_stay_if_there_is_none(folders, tmp_path):
    markdown, junit = tmp_path / "gate.md", tmp_path / "gate.xml"
    for folder in folders:
        write_ratio(folder, 1.10)
    assert invoke(folders, "--markdown", str(markdown), "--junit", str(junit)).exit_code == 0
    (folders[1] / "latency/pvt_tiny.json").write_text("{}")
    assert invoke(folders, "--markdown", str(markdown), "--junit", str(junit)).exit_code == 2
    assert markdown.read_text().startswith("### Regression gate: not compared\n\n- ")
    suite = ElementTree.parse(junit).getroot()[0]
    assert (suite.get("errors"), suite.get("tests")) == ("1", "1")
    assert "latency/pvt_tiny.json: schema: expected" in suite.find("testcase/error").get("message")


def test_texts_of_records_are_data_in_the_reports(folders, tmp_path):
    markdown, junit = tmp_path / "gate.md", tmp_path / "gate.xml"
    write_complexity(folders[0], {"pvt_tiny": {"params": 1}})
    model = "a\n\n# b|`c`\x0c<img src=x>"
    write_complexity(folders[1], {"pvt_tiny": {"params": 2}, model: {"params": 1}})
    path = folders[1] / "complexity/classification.json"
    write_record(path, read_record(path).model_copy(update={"warnings": ["one\n# two <b>"]}))
    done = invoke(folders, "--markdown", str(markdown), "--junit", str(junit))
    assert done.exit_code == 1
    assert not [line for line in done.output.splitlines() if line.startswith("#")]
    lines = markdown.read_text().splitlines()
    assert [line for line in lines if line.startswith("#")] == ["### Regression gate: failed"]
    assert not any("<img" in line.replace("\\<", "") or "<b>" in line.replace("\\<", "") for line in lines)
    assert len(ElementTree.parse(junit).getroot()[0]) == 2


@pytest.mark.parametrize("options", [(), ("--reason", "why"), ("--limits", "nowhere.yaml")])
def test_wrong_usage_has_its_own_exit_code(folders, options):
    write_ratio(folders[0], 1.10)
    done = invoke(folders, *options)
    assert done.exit_code == 2
    assert done.output.startswith("error: ")


def test_an_error_of_this_program_is_not_reported_as_worse(folders, monkeypatch):
    monkeypatch.setattr("hafabench.regression.changes.find_changes", lambda *sides: 1 / 0)
    write_ratio(folders[0], 1.1)
    write_ratio(folders[1], 1.1)
    done = invoke(folders)
    assert done.exit_code == 2
    assert "ZeroDivisionError" in done.output


def test_moving_the_baseline_keeps_its_history(folders):
    rng = np.random.default_rng(0)
    write_hits(folders[1], hits(rng, 50, 0.7))
    write_ratio(folders[1], 1.10)
    assert invoke(folders, "--update", "--reason", " ").exit_code == 2
    assert not folders[0].exists()
    assert invoke(folders, "--update", "--reason", "the first one").exit_code == 0
    assert invoke(folders).exit_code == 0
    write_ratio(folders[1], 1.30)
    assert invoke(folders).exit_code == 1
    assert invoke(folders, "--update", "--reason", "worth it").exit_code == 0
    assert invoke(folders).exit_code == 0
    first, second = map(json.loads, (folders[0] / "history.jsonl").read_text().splitlines())
    assert (first["reason"], first["changes"], second["reason"]) == ("the first one", {}, "worth it")
    assert second["changes"] == {RATIO: [1.1, 1.3]}
    assert second["commits"] == ["0123456789abcdef0123456789abcdef01234567"]
    assert second["who"]


def test_a_new_baseline_that_decides_nothing_is_named(folders):
    write_seeds(folders[1], [70.0])
    write_ratio(folders[1], 1.10, half=0.2)
    done = invoke(folders, "--update", "--reason", "the first one")
    assert done.exit_code == 0
    assert f"even without any change the gate cannot tell for {TOP1}, {RATIO}; predictions, more" in done.output
    write_hits(folders[1], hits(np.random.default_rng(0), 50, 0.7))
    write_ratio(folders[1], 1.10)
    assert "cannot tell" not in invoke(folders, "--update", "--reason", "the second one").output


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name",
    [
        "mine.txt",
        "classification/pvt_tiny/seed0/checkpoint.pth",
        "complexity/notes.json",
        "history.jsonl",
        "latency/predictions.npz",
    ],
)
@pytest.mark.parametrize("is_baseline", [True, False])
def test_only_a_baseline_is_replaced(folders, name, is_baseline):
    baseline, candidate = folders
    write_ratio(candidate, 1.10)
    if is_baseline:
        assert invoke(folders, "--update", "--reason", "the first one").exit_code == 0
    (baseline / name).parent.mkdir(parents=True, exist_ok=True)
    (baseline / name).write_text('{"step": 1}\n')
    before = snapshot(baseline)
    done = invoke(folders, "--update", "--reason", "again")
    assert done.exit_code == 2
    assert name in done.output
    assert snapshot(baseline) == before


def test_exchanged_and_nested_folders_are_refused(folders):
    baseline, candidate = folders
    write_ratio(candidate, 1.10)
    assert invoke(folders, "--update", "--reason", "the first one").exit_code == 0
    before = snapshot(baseline), snapshot(candidate)
    link = candidate.with_name("link")
    link.symlink_to(baseline)
    for pair, message in (
        ((candidate, baseline), "were the two folders exchanged?"),
        ((baseline, baseline), "it is both baseline and candidate"),
        ((link, baseline), "it is both baseline and candidate"),
        ((candidate / "baseline", candidate), "one of baseline and candidate"),
    ):
        done = invoke(pair, "--update", "--reason", "again")
        assert (done.exit_code, message in done.output) == (2, True), done.output
        if "one of" not in message:
            done = invoke(pair)
            assert (done.exit_code, message in done.output) == (2, True), done.output
    assert (snapshot(baseline), snapshot(candidate)) == before


def edit_record(baseline):
    path = baseline / "latency/pvt_tiny.json"
    path.write_text(path.read_text().replace("1.1,", "1.2,", 1))


def edit_record_and_manifest(baseline):
    path, manifest = baseline / "latency/pvt_tiny.json", baseline / "manifest.json"
    before = sha256_of(path)
    edit_record(baseline)
    manifest.write_text(manifest.read_text().replace(before, sha256_of(path)))


BREAKS = {
    "an edited record": (edit_record, "latency/pvt_tiny.json: it was changed after it became part"),
    "an edited manifest": (edit_record_and_manifest, "manifest.json: it is not the one that history.jsonl is about"),
    "a lost record": (
        lambda baseline: (baseline / "classification/pvt_tiny_hafa/seed0/evaluate.json").unlink(),
        "seed0/evaluate.json: it is missing, but manifest.json lists it",
    ),
    "lost predictions": (
        lambda baseline: (baseline / "classification/pvt_tiny_hafa/seed0/predictions.npz").unlink(),
        "seed0/predictions.npz: it is missing, but manifest.json lists it",
    ),
    "a record more": (
        lambda baseline: write_complexity(baseline, {"pvt_tiny": {"params": 1}}),
        "complexity/classification.json: manifest.json does not list it",
    ),
    "a lost manifest": (lambda baseline: (baseline / "manifest.json").unlink(), "manifest.json: it is missing"),
    "a manifest that is a folder": (
        lambda baseline: ((baseline / "manifest.json").unlink(), (baseline / "manifest.json").mkdir()),
        "manifest.json: it is missing",
    ),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_baseline_that_was_changed_by_hand_is_refused_and_can_be_replaced(folders, broken):
    baseline, candidate = folders
    write_hits(candidate, hits(np.random.default_rng(0), 50, 0.7))
    write_ratio(candidate, 1.10)
    assert baseline_findings(candidate) is None
    assert invoke(folders, "--update", "--reason", "the first one").exit_code == 0
    assert baseline_findings(baseline) == []
    change, message = BREAKS[broken]
    change(baseline)
    done = invoke(folders)
    assert done.exit_code == 2
    assert message in done.output
    assert "or replace it with --update" in done.output
    [finding] = baseline_findings(baseline)
    assert (finding.link, message in str(finding)) == ("baseline", True)
    if "folder" not in broken:
        assert invoke(folders, "--update", "--reason", "the second one").exit_code == 0
        assert invoke(folders).exit_code == 0
        second = json.loads((baseline / "history.jsonl").read_text().splitlines()[1])
        assert second["changes"] == {}
        assert second["note"].startswith("the files of the baseline before were changed or lost")


def test_the_tracked_baseline_is_whole_and_belongs_to_its_experiment():
    """A change of the experiment requires a new baseline: otherwise `make regression` would refuse to compare."""
    baseline = REPOSITORY / "results/baseline"
    assert baseline_findings(baseline) == []
    changes = judged(baseline, baseline, load_limits(REPOSITORY / "configs/regression.yaml"))
    assert not changes.failed()
    assert changes.count("no change") + changes.count("cannot tell") == len(changes.changes)
    judged_metrics = {change.key.metric for change in changes.changes}
    assert judged_metrics >= {"top1", "miou", "box_ap", "mask_ap", "latency_ratio", "params", "gmacs"}
    experiment = load_experiment(REPOSITORY / "configs/regression_digits.yaml")
    tracked = {record.id: record.fingerprint for record in read_records(baseline).records.values()}
    for path, fingerprint in expected_records(experiment).items():
        name = path.relative_to(experiment.results).as_posix().removesuffix("/evaluate.json").removesuffix(".json")
        # Counts follow the tables, which may grow: what is new there is no regression.
        assert name.startswith("complexity/") or tracked[name] == fingerprint, name
    assert json.loads((baseline / "history.jsonl").read_text().splitlines()[-1])["reason"]
