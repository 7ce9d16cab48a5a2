"""The paper's claims and the verdicts on them, at the limits of every verdict."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import replace

import pytest
from click.testing import CliRunner

from hafabench.cli import cli
from hafabench.config.claims import Convention, RowConvention
from hafabench.config.experiment import load_experiment
from hafabench.config.paper_values import load_paper_values
from hafabench.config.verdicts import VERDICTS
from hafabench.errors import UserError
from hafabench.reporting.claims.measured import judge
from hafabench.reporting.claims.output import to_json, to_text
from hafabench.reporting.claims.paper_claims import paper_claims
from hafabench.reporting.claims.static import StaticClaims
from hafabench.reporting.claims.verdicts import CLAIM_COLUMNS
from hafabench.reporting.csv import render_claims
from hafabench.reporting.frame import collect_experiment, empty_frame
from hafabench.reporting.markdown import claims_page
from hafabench.reporting.report import Report, build_report
from hafabench.reporting.write import write_report
from hafabench.results.counts import Counted, Counts, write_counts
from hafabench.results.decomposition import Amount, Decomposition
from hafabench.runs.paths import counts_record
from hafabench.runs.static_models import counts_fingerprint
from tests.support.experiments import EXAMPLE
from tests.support.markdown import table_rows
from tests.support.messages import missing_facts
from tools.checkout import REPOSITORY
from tools.synthetic_records import evaluation, frame_of, latency, provenance

GOLDEN = REPOSITORY / "tests/golden/data/counts.json"


@pytest.fixture(scope="module")
def experiment():
    return load_experiment(REPOSITORY / "configs/paper.yaml")


@pytest.fixture(scope="module")
def claims(experiment):
    return {claim.locator: claim for claim in paper_claims(experiment, load_paper_values(experiment.paper_values))}


def test_every_printed_figure_and_difference_is_a_claim(claims):
    with (REPOSITORY / "configs/paper_values.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    figures, differences = sum(bool(row["value"]) for row in rows), sum(bool(row["printed_delta"]) for row in rows)
    derived = sum(row["origin"] == "derived" for row in rows)
    assert (figures - derived, derived, differences) == (198, 3, 22)
    collapses = sum(claim.is_collapse for claim in claims.values())
    assert (collapses, len(claims)) == (1, figures + differences + 1)
    assert sum(claim.is_derived for claim in claims.values()) == derived
    # Each derived figure follows from the figure and the difference that are printed for the row below it.
    for name in ("pvt_tiny", "pvt_small", "pvt_large"):
        base, figure = claims[f"latency/{name}/latency_ms"], claims[f"latency/{name}_hafa/latency_ms"]
        change = claims[f"latency/{name}_hafa/latency_ms_delta"]
        assert (base.is_derived, figure.is_derived) == (True, False)
        assert base.printed == pytest.approx(figure.printed - change.printed)
        assert base.text_with_unit == f"{base.text}§ ms"
    assert sum(name.endswith("_delta") for name in claims) == differences
    # 41 + 32 static ones; 9 latencies and 3 differences of them.
    assert Counter(claim.kind for claim in claims.values()) == {"accuracy": 139, "static": 73, "latency": 12}


def test_a_claim_names_what_it_compares(claims):
    gain = claims["table2/pvt_small_hafa/miou_delta"]
    assert (gain.printed, gain.text, gain.unit, gain.kind) == (4.0, "+4.0", "points", "accuracy")
    assert gain.models == ("pvt_small_hafa", "pvt_small")
    figure = claims["table4/pvt_v2_b1_laa_laa_sia/top1"]
    assert (figure.models, figure.unit, figure.text) == (("pvt_v2_b1_hafa",), "%", "79.8")
    change = claims["text4.4/pvt_v2_b1_laa_laa_conv/top1_change"]
    assert change.is_difference
    assert (change.text, change.models) == ("-0.5", ("pvt_v2_b1_laa_laa_conv", "pvt_v2_b1_hafa"))
    static = claims["table1/resnet18/params_m"]
    assert (static.text, static.unit, static.tolerance) == ("11.7", "M", pytest.approx(0.05))


def test_tolerances_and_their_reasons(claims):
    one, two = claims["table1/pvt_tiny/top1"], claims["table1/pvt_tiny_hafa/top1_delta"]
    assert one.tolerance == pytest.approx(0.05 + 0.3)
    assert two.tolerance == pytest.approx(0.05 + 0.3 * 2**0.5)
    # A tenth of the figure itself, for its difference too.
    latency_claim = claims["latency/pvt_tiny_hafa/latency_ms_delta"]
    assert latency_claim.tolerance == pytest.approx(0.05 + 0.7 * 2**0.5)
    assert latency_claim.device == "RTX 3090"
    assert all(claim.reason for claim in claims.values())


def test_reported_baselines_are_shown_beside_the_gain(claims):
    assert "PVT's repository, Semantic FPN: 41.9" in claims["table2/pvt_small/miou"].notes
    gains = [claims[f"table2/pvt_{size}_hafa/miou_delta"].notes[-1] for size in ("tiny", "small", "large")]
    assert [gain.rsplit(" ", 1)[-1] for gain in gains] == ["+3.5", "+1.9", "+0.1"]


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        # 75.1 printed, 0.35 allowed: half a digit and the spread.
        (75.45, 75.1, 75.8, "reproduced"),
        (74.75, 74.7, 74.8, "reproduced"),
        (75.2, 74.0, 76.4, "reproduced"),
        (75.46, 75.3, 75.6, "inconclusive"),
        (75.5, 75.45, 75.55, "inconclusive"),
        (75.5, 75.46, 75.54, "contradicted"),
        (74.5, 74.4, 74.6, "contradicted"),
    ],
)
def test_verdicts_on_a_figure(claims, value, low, high, verdict):
    assert judge(claims["table1/pvt_tiny/top1"], value, low, high)[0] == verdict


@pytest.mark.parametrize(
    ("locator", "value", "low", "high", "verdict"),
    [
        ("table1/pvt_tiny_hafa/top1_delta", 2.4, 1.9, 2.9, "reproduced"),
        # +0.3 is less than two runs of the same model may differ by.
        ("table1/pvt_small_hafa/top1_delta", 0.3, -0.1, 0.7, "inconclusive"),
        ("table1/pvt_small_hafa/top1_delta", -0.9, -1.3, -0.5, "contradicted"),
        ("table1/pvt_small_hafa/top1_delta", 0.3, 0.1, 0.5, "reproduced"),
        ("table1/pvt_small_hafa/top1_delta", 0.2, -0.1, 0.5, "inconclusive"),
        ("table2/pvt_tiny_hafa/miou_delta", 1.0, 0.6, 1.4, "contradicted"),
        ("text4.4/pvt_v2_b1_laa_conv_conv/top1_change", -0.7, -0.9, -0.5, "reproduced"),
    ],
)
def test_verdicts_on_a_difference(claims, locator, value, low, high, verdict):
    assert judge(claims[locator], value, low, high)[0] == verdict


def full(task, model, seed, values, **changes):
    return evaluation(task, model, seed, values, experiment="paper", scale="full", **changes)


def judged(experiment, locator, records, tmp_path):
    return Report(experiment, frame_of(tmp_path, *records), None).ledger.by_locator[locator]


def test_one_run_settles_a_figure(experiment, tmp_path):
    verdict = judged(
        experiment, "table2/pvt_tiny/miou", [full("segmentation", "pvt_tiny", 0, {"miou": 36.4})], tmp_path
    )
    assert (verdict.verdict, verdict.value, verdict.seeds, verdict.origin) == ("reproduced", 36.4, 1, "measured")
    assert "0.70 points, 1.05 allowed" in verdict.because


def test_several_seeds_settle_by_their_interval(experiment, tmp_path):
    values = {0: (75.0, 77.4), 1: (75.1, 77.5), 2: (75.2, 77.6)}
    records = [
        full("classification", model, seed, {"top1": pair[index]})
        for seed, pair in values.items()
        for index, model in enumerate(("pvt_tiny", "pvt_tiny_hafa"))
    ]
    figure = judged(experiment, "table1/pvt_tiny/top1", records, tmp_path)
    assert (figure.verdict, figure.seeds) == ("reproduced", 3)
    assert figure.low < 75.1 < figure.high
    # Paired by seed the difference does not vary at all. Its interval rests on the tolerance.
    gain = judged(experiment, "table1/pvt_tiny_hafa/top1_delta", records, tmp_path)
    assert (gain.verdict, gain.seeds, round(gain.value, 6)) == ("reproduced", 3, 2.4)


def test_a_difference_needs_both_rows(experiment, tmp_path):
    one = [full("classification", "pvt_tiny_hafa", 0, {"top1": 77.5})]
    assert judged(experiment, "table1/pvt_tiny_hafa/top1", one, tmp_path).verdict == "reproduced"
    assert judged(experiment, "table1/pvt_tiny_hafa/top1_delta", one, tmp_path).because == "nothing measured"


def test_measured_and_imported_are_not_subtracted(experiment, tmp_path):
    records = [
        full("classification", "pvt_tiny_hafa", 0, {"top1": 77.5}),
        full("classification", "pvt_tiny", None, {"top1": 75.1}, origin="imported", id="imported/pvt_tiny"),
    ]
    verdict = judged(experiment, "table1/pvt_tiny_hafa/top1_delta", records, tmp_path)
    assert (verdict.verdict, verdict.value) == ("not run", None)
    assert judged(experiment, "table1/pvt_tiny/top1", records, tmp_path).origin == "imported"


def test_embedded_numbers_settle_nothing(tmp_path):
    digits = load_experiment(EXAMPLE)
    records = [evaluation("classification", "pvt_tiny", 0, {"top1": 75.1})]
    verdict = judged(digits, "table1/pvt_tiny/top1", records, tmp_path)
    assert (verdict.verdict, verdict.value) == ("not comparable", 75.1)
    facts = ("data set digits (paper: imagenet1k)", "10 classes (paper: 1,000)", "image_size 64 (paper: 224)")
    facts += ("896 training images (paper: 1,281,167)", "epochs 2 (paper: 300)", "mixup")
    assert missing_facts(verdict.because, *facts) == []


def test_a_latency_is_of_its_device(experiment, tmp_path):
    def timed(device):
        times = {"pvt_v2_b1_hafa": (16.0, 16.5, 17.0)}
        record = latency("table4", times, experiment="paper", scale="full", device=device)
        return judged(experiment, "table4/pvt_v2_b1_laa_laa_sia/latency_ms", [record], tmp_path)

    assert timed("NVIDIA GeForce RTX 3090").verdict == "reproduced"
    other = timed("cpu")
    assert other.verdict == "not comparable"
    assert missing_facts(other.because, "cpu", "RTX 3090") == []


# -- static claims, on counts made up ----------------------------------------------


def counted(experiment, **parameters: int) -> Counts:
    """Counts of classifiers whose linear layers have the given numbers of parameters."""
    models = [
        Counted(
            task="classification",
            model=model,
            amounts=Decomposition((Amount("head", "linear", count),), (Amount("head", "linear", 10**9),)),
        )
        for model, count in parameters.items()
    ]
    return Counts(experiment="paper", fingerprint="f" * 12, cells=models, provenance=provenance())


def static_verdicts(experiment, claims, changes, **parameters: int) -> dict:
    config = experiment.claims_config.model_copy(update=changes)
    found = StaticClaims(list(claims.values()), config, counted(experiment, **parameters))
    return {verdict.claim.locator: verdict for verdict in found.verdicts(found.fits())}


PLAIN = Convention(name="plain", metric="params_m", says="all")
MACS = Convention(name="macs", metric="gflops", says="all")
BARE = {"conventions": (PLAIN, MACS), "stand_ins": ()}
PLAIN_ONLY = BARE | {"row_conventions": ()}


def test_a_count_on_half_a_digit_is_rounded_up(experiment, claims):
    found = static_verdicts(experiment, claims, PLAIN_ONLY, resnet18=11_650_000, resnet50=25_550_000)
    assert found["table1/resnet18/params_m"].verdict == "reproduced"
    assert found["table1/resnet50/params_m"].verdict == "reproduced"
    below = static_verdicts(experiment, claims, PLAIN_ONLY, resnet18=11_649_999, resnet50=25_650_000)
    assert below["table1/resnet18/params_m"].verdict == "contradicted"
    assert below["table1/resnet50/params_m"].verdict == "contradicted"
    # 11.649999 is first rounded to 11.65. This match settles nothing, because no row convention contains it.
    assert list(map(str, below["table1/resnet18/params_m"].matches)) == ["plain, rounded twice"]


def test_a_row_convention_settles_the_rows_that_it_prints(experiment, claims):
    row_convention = RowConvention(
        convention="plain", printed="truncated", rows=("table1/resnet*/params_m",), because="a test"
    )
    # Printed 11.7 and 25.6.
    both = {"resnet18": 11_790_000, "resnet50": 25_690_000}
    found = static_verdicts(experiment, claims, BARE | {"row_conventions": (row_convention,)}, **both)
    assert found["table1/resnet18/params_m"].verdict == "reproduced under a convention"
    assert str(found["table1/resnet18/params_m"].convention) == "plain, truncated"
    assert found["table1/resnet50/params_m"].verdict == "reproduced under a convention"


def test_a_row_convention_that_mostly_fails_settles_nothing(experiment, claims):
    """One row of two may be a coincidence."""
    row_convention = RowConvention(
        convention="plain", printed="truncated", rows=("table1/resnet*/params_m",), because="a test"
    )
    found = static_verdicts(
        experiment, claims, BARE | {"row_conventions": (row_convention,)}, resnet18=11_790_000, resnet50=25_790_000
    )
    verdict = found["table1/resnet18/params_m"]
    assert (verdict.verdict, verdict.convention) == ("contradicted", None)
    assert "only by conventions that do not hold for similar rows (plain, truncated)" in verdict.because


def test_three_in_four_rows_are_enough(experiment, claims):
    rows = ("table1/resnet??/params_m", "table1/deit_t*/params_m", "table1/deit_s*/params_m")
    row_convention = RowConvention(convention="plain", printed="truncated", rows=rows, because="a test")
    counts = {"resnet18": 11_790_000, "resnet50": 25_690_000, "deit_tiny": 5_790_000, "deit_small": 1}
    found = static_verdicts(experiment, claims, BARE | {"row_conventions": (row_convention,)}, **counts)
    verdicts = [found[f"table1/{model}/params_m"].verdict for model in counts]
    assert verdicts == ["reproduced under a convention"] * 3 + ["contradicted"]


def test_claims_without_counts_are_not_run(experiment, claims):
    found = static_verdicts(experiment, claims, PLAIN_ONLY, resnet18=11_700_000)
    assert found["table1/vit_base/params_m"].verdict == "not run"
    nothing = Report(experiment, empty_frame(), None).ledger.static_only()
    assert nothing.totals() == {"not run": 73}


# -- files and the command line ----------------------------------------------


@pytest.fixture
def digits(write_experiment, tmp_path, monkeypatch):
    """The digits experiment in a temporary folder, with its record of counts."""
    monkeypatch.chdir(tmp_path)
    loaded = load_experiment(write_experiment())
    golden = Counts.model_validate(json.loads(GOLDEN.read_text()))
    write_counts(counts_record(loaded), golden.model_copy(update={"fingerprint": counts_fingerprint(loaded)}))
    return loaded


def invoke(*arguments: str):
    return CliRunner().invoke(cli, ["claims", "--experiment", "digits.yaml", *arguments], catch_exceptions=False)


def test_the_terminal_shows_every_claim_and_the_sum(digits):
    lines = invoke().stdout.splitlines()
    assert len(lines) == 224 + 1
    counts = ("73 of 224", "40 reproduced", "24 reproduced under a convention", "9 contradicted", "151 not run")
    kinds = ("198 printed figures", "3 derived", "22 printed differences", "1 collapsed training")
    assert missing_facts(lines[-1], *counts, *kinds) == []
    static = invoke("--static", "--verdict", "contradicted").stdout.splitlines()
    assert len(static) == 9 + 1
    assert static[-1].startswith("73 of 73 claims settled")
    assert all(" contradicted " in line for line in static[:-1])


def test_static_claims_need_no_frame(digits):
    (digits.results / "frame.parquet").write_text("not a frame")
    assert invoke("--static").stdout.splitlines()[-1].startswith("73 of 73 claims settled")
    with pytest.raises(UserError, match="not a readable frame"):
        invoke()


def test_formats_contain_the_same(digits):
    content = json.loads(invoke("--format", "json").stdout)
    rows = list(csv.DictReader(io.StringIO(invoke("--format", "csv").stdout)))
    assert list(rows[0]) == [*CLAIM_COLUMNS, "scale", "experiment"]
    assert [row["locator"] for row in rows] == [claim["locator"] for claim in content["claims"]]
    assert [row["verdict"] for row in rows] == [claim["verdict"] for claim in content["claims"]]
    assert content["verdicts"]["reproduced"] == 40
    hrnet = next(row for row in rows if row["locator"] == "table1/hrnet_w32/gflops")
    assert (hrnet["printed"], hrnet["convention"], hrnet["shortened"]) == ("8.3", "binary giga", "rounded")
    page = invoke("--format", "markdown").stdout
    assert page.count("\n| ") > 224
    for verdict, count in content["verdicts"].items():
        assert [verdict, str(count)] in table_rows(page)


def test_every_claim_is_one_line_of_its_table(digits):
    ledger = Report(digits, empty_frame(), Counts.model_validate(json.loads(GOLDEN.read_text()))).ledger
    page = claims_page(ledger, ledger.verdicts)
    tables = page.split("## Notes")[0].split("\n## ")[1:]
    headings = [f"Table {number}" for number in range(1, 7)] + ["Section 4.1", "Section 4.4"]
    assert [table.splitlines()[0] for table in tables] == headings
    rows = [row for table in tables for row in table_rows(table)]
    assert len(rows) == 224 + len(tables)
    assert {len(row) for row in rows} == {5}


def test_the_readme_states_the_verdicts_on_static_claims(digits):
    ledger = Report(digits, empty_frame(), Counts.model_validate(json.loads(GOLDEN.read_text()))).ledger.static_only()
    totals = ledger.totals()
    readme = " ".join((REPOSITORY / "README.md").read_text().split())
    assert f"prints {len(ledger.verdicts)} parameter counts" in readme
    counted = f"reproduces {totals['reproduced']} of them, and {totals['reproduced under a convention']} more under"
    assert counted in readme
    assert f"contradicts the other {totals['contradicted']} " in readme
    assert ledger.composition == "73 printed figures"


def test_the_report_contains_the_claims(digits):
    collect_experiment(digits)
    write_report(build_report(digits))
    page = (digits.reports / "claims.md").read_text()
    assert "only if data set, input size, schedule and recipe are the paper's" in page
    assert "against 36.6 (PVT's repository, Semantic FPN) it is +3.5" in page
    assert (digits.reports / "claims.csv").read_text() == invoke("--format", "csv").stdout


def test_without_counts_static_claims_are_not_run(digits):
    ledger = Report(digits, empty_frame(), None).ledger
    page = claims_page(ledger, ledger.verdicts)
    assert "hafabench count" in page
    assert {row[3] for row in table_rows(page) if len(row) == 5 and "/" in row[0]} == {"not run"}


def test_stale_counts_are_refused(digits):
    stale = Counts.model_validate(json.loads(GOLDEN.read_text())).model_copy(update={"fingerprint": "0" * 12})
    write_counts(counts_record(digits), stale)
    with pytest.raises(UserError, match="made under another configuration"):
        invoke()


def test_listed_choices_are_those_of_the_ledger():
    from hafabench.cli.claims import FORMATS
    from hafabench.cli.claims import VERDICTS as OFFERED
    from hafabench.reporting.claims.output import FORMATS as RENDERERS

    assert OFFERED == VERDICTS
    assert tuple(RENDERERS) == FORMATS


def test_an_empty_selection_is_no_error(digits):
    ledger = Report(digits, empty_frame(), None).ledger
    assert to_text(ledger, []).startswith("0 of 224 claims settled")
    assert render_claims(ledger, []).count("\n") == 1
    assert json.loads(to_json(ledger, []))["claims"] == []
    assert replace(ledger, verdicts=()).totals() == {}


def test_the_page_on_claims_counts_as_the_ledger_does(digits):
    ledger = Report(digits, empty_frame(), Counts.model_validate(json.loads(GOLDEN.read_text()))).ledger
    text = " ".join((REPOSITORY / "docs/claims.md").read_text().split())
    kinds = Counter(
        "derived" if v.claim.is_derived else "difference" if v.claim.is_beside_figure else "figure"
        for v in ledger.verdicts
        if not v.claim.is_collapse
    )
    assert (
        f"are {kinds['figure']} printed figures, {kinds['difference']} printed differences, this collapse, and 3"
        in text
    )
    totals = ledger.static_only().totals()
    given = totals["reproduced"] + totals["reproduced under a convention"]
    assert f"settle {given} of the {sum(totals.values())} figures" in text
    rows = table_rows((REPOSITORY / "docs/claims.md").read_text())
    contradicted = [row for row in rows if len(row) == 4 and row[0].endswith((", GFLOPs", ", M"))]
    assert len(contradicted) == totals["contradicted"] == 9


def test_a_row_convention_is_judged_in_each_table_separately(digits):
    ledger = Report(digits, empty_frame(), Counts.model_validate(json.loads(GOLDEN.read_text()))).ledger
    assert ledger.by_locator["table6/swin_tiny_hafa/gflops"].verdict == "contradicted"
    assert ledger.by_locator["table1/pvt_tiny_hafa/gflops"].verdict == "reproduced under a convention"
    pooled = [fit for fit in ledger.fits if fit.row_convention.convention == "hook counter + attention"]
    assert [(fit.table, fit.holds) for fit in pooled] == [("table1", True), ("table6", False)]
    assert all(row.startswith(f"{fit.table}/") for fit in pooled for row in fit.rows)
