"""`configs/claims.yaml` fits the paper and the code, and problems are reported with their line."""

from __future__ import annotations

import pytest
import yaml

from hafabench.config.claims import load_claims_config
from hafabench.config.experiment import load_experiment
from hafabench.config.paper_values import load_paper_values
from hafabench.errors import UserError
from hafabench.reporting.claims.paper_claims import paper_claims
from hafabench.runs.static_models import counts_fingerprint, static_rows
from tools.checkout import REPOSITORY

FILE = REPOSITORY / "configs/claims.yaml"


@pytest.fixture
def write_claims(write_experiment, tmp_path):
    """Load the digits experiment with a changed copy of the claims file."""

    def load(change):
        content = yaml.safe_load(FILE.read_text())
        change(content)
        (tmp_path / "claims.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return load_experiment(write_experiment(lambda c: c.update(claims=str(tmp_path / "claims.yaml"))))

    return load


def convention(content, name):
    return next(entry for entry in content["conventions"] if entry["name"] == name)


def test_the_simplest_convention_of_each_metric_comes_first():
    config = load_claims_config(FILE)
    params, operations = config.default_convention("params_m"), config.default_convention("gflops")
    assert (params.name, operations.name) == ("parameters", "multiply-accumulates")
    for plain in (params, operations):
        assert not (plain.leave_out or plain.add or plain.without or plain.build or plain.unit)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: convention(c, "without biases").update(leave_out=["biases"]),
            r"unknown kind 'biases'; expected one",
        ),
        (lambda c: convention(c, "hook counter").update(add={"norms": 2}), r"unknown kind 'norms'"),
        (lambda c: convention(c, "binary giga").update(trainable=True), r"apply to parameters, not to operations"),
        (lambda c: convention(c, "binary giga").update(unitt=3), r"conventions\[17\]\.unitt: unknown key"),
        (lambda c: convention(c, "binary giga").update(name="hook counter"), r"'hook counter' is given twice"),
        (lambda c: c.update(conventions=c["conventions"][:3]), r"expected a convention for gflops"),
        (
            lambda c: c["row_conventions"][0].update(convention="counted"),
            r"unknown convention 'counted'",
        ),
        (lambda c: c["row_conventions"][0].update(printed="up"), r"row_conventions\[0\]\.printed"),
        (lambda c: c["stand_ins"][0].update(base="resnext"), r"stand_ins\[0\]\.base: unknown model 'resnext'"),
        (lambda c: c["stand_ins"][1].update(keep=[0.5, 0.2, -0.1]), r"stand_ins\[1\]\.keep: rate 3 is -0\.1"),
        (lambda c: c["tolerances"][1]["metrics"].append("top1"), r"tolerances\[1\]\.metrics: top1 has a tolerance"),
    ],
)
def test_problems_are_reported_with_their_line(write_claims, change, message):
    with pytest.raises(UserError, match=message) as caught:
        write_claims(change)
    assert all(problem.line for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["row_conventions"][0]["rows"].append("table1/*_haffa/*"),
            r"claims\.yaml:\d+: row_conventions\[0\]\.rows\[2\]: 'table1/\*_haffa/\*' matches nothing",
        ),
        (lambda c: c["notes"][0].update(rows=["table9/*"]), r"notes\[0\]\.rows\[0\]: 'table9/\*' matches nothing"),
        (
            lambda c: c["elsewhere"][0].update(claim="table2/pvt_tiny/mIoU"),
            r"elsewhere\[0\]\.claim: the paper prints no 'table2/pvt_tiny/mIoU'",
        ),
        (lambda c: c["stand_ins"][0].update(claim="table1/x/y"), r"stand_ins\[0\]\.claim: the paper prints no"),
        (lambda c: c.update(tolerances=c["tolerances"][1:]), r"expected a tolerance for top1, which .* contains"),
    ],
)
def test_what_the_paper_does_not_print_is_refused(write_claims, change, message):
    experiment = write_claims(change)
    with pytest.raises(UserError, match=message):
        paper_claims(experiment, load_paper_values(experiment.paper_values))


def test_a_missing_file_is_one_problem(write_experiment):
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such file"):
        load_experiment(write_experiment(lambda c: c.update(claims="nowhere.yaml")))


def test_row_conventions_do_not_change_what_is_counted(write_claims):
    """Conventions are applied to a record of counts. Only a change of the stand-ins needs a new record."""
    before = write_claims(lambda c: None)
    after = write_claims(lambda c: c.update(row_conventions=c["row_conventions"][1:]))
    assert counts_fingerprint(before) == counts_fingerprint(after)
    assert counts_fingerprint(before) != counts_fingerprint(write_claims(lambda c: c.update(stand_ins=[])))


def test_what_is_counted(write_experiment):
    rows = static_rows(load_experiment(write_experiment(base="paper")))
    assert {row.model.name for row in rows if row.build == "deep_stem"} == {"resnet18", "resnet50"}
    assert {row.task for row in rows if not row.counts_operations} == {"detection"}
    names = {(row.task, row.model.name) for row in rows}
    assert {("classification", "hrnet_w32"), ("detection", "pvt_large_hafa")} <= names
    # Not in a table with static columns, though trained.
    assert ("classification", "pvt_tiny_hafa_qkv") not in names
    assert len(rows) == len({(row.task, row.model.name, row.build) for row in rows})


def test_old_spellings_of_keys_are_read(write_claims):
    def respell(content):
        content["readings"] = content.pop("row_conventions")
        for entry in content["conventions"]:
            if "build" in entry:
                entry["variant"] = entry.pop("build")

    def misspell(content):
        respell(content)
        content["readings"][0].update(convention="counted")

    assert write_claims(respell).claims_config == write_claims(lambda c: None).claims_config
    with pytest.raises(UserError, match=r"claims\.yaml:\d+: readings\[0\]\.convention: unknown convention 'counted'"):
        write_claims(misspell)


def test_rows_that_match_nothing_are_reported_under_the_key_that_the_file_uses(write_claims):
    def change(content):
        content["readings"] = content.pop("row_conventions")
        content["readings"][0]["rows"].append("table9/*")

    experiment = write_claims(change)
    with pytest.raises(UserError, match=r"claims\.yaml:\d+: readings\[0\]\.rows\[2\]: 'table9/\*' matches nothing"):
        paper_claims(experiment, load_paper_values(experiment.paper_values))
