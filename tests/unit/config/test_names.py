"""One rule for the names of experiments, models, data sets, measurements and rows of tables."""

from __future__ import annotations

import re

import pytest
import yaml

from hafabench.config.catalog import CATALOG
from hafabench.config.experiment import load_experiment
from hafabench.config.names import NAME_PATTERN, name_problem, same_folded
from hafabench.config.tables import load_table_layouts
from hafabench.errors import UserError

BAD = {
    "empty": "",
    "blank": " ",
    "space": "my model",
    "parent": "..",
    "escaped": "../../../escaped",
    "absolute": "/tmp/escaped",
    "slash": "a/b",
    "backslash": "a\\b",
    "dots": "a..b",
    "hidden": ".a",
    "last dot": "a.",
    "option": "-a",
    "long": "a" * 101,
    "very long": "a" * 100_000,
    "letter": "é",
    "digit": "\u0663",
    "newline": "a\n",
    "tab": "a\tb",
    "command": "$(id)",
    "backtick": "`id`",
    "ampersand": "a&b",
    "semicolon": "a;b",
    "quote": "a'b",
    "double quote": 'a"b',
    "wildcard": "{model}",
    "glob": "a*",
    "tilde": "~a",
    "device": "aux",
    "device with suffix": "Con.x",
}
GOOD = ["a", "A1", "_", "pvt_tiny", "my-model", "a--b", "dynamicvit_lvs_0.5", "1.2.3", "a" * 100, "console"]


@pytest.mark.parametrize("name", GOOD)
def test_names(name):
    assert name_problem(name) is None
    assert re.fullmatch(NAME_PATTERN, name)


@pytest.mark.parametrize("name", BAD.values(), ids=BAD.keys())
def test_other_texts_are_no_names(name):
    problem = name_problem(name)
    assert problem is not None
    assert len(problem) < 300
    assert problem.isprintable()


def test_models_of_the_catalog_have_names():
    assert [name for name in CATALOG if name_problem(name)] == []
    assert same_folded(CATALOG) == []


def named(content, where, name):
    match where:
        case "experiment":
            content["experiment"] = name
        case "model":
            content["models"] = {name: {"base": "pvt_tiny"}}
        case "data set":
            content["datasets"]["classification"]["name"] = name
        case "measurement":
            content["latency"][0]["name"] = name


@pytest.mark.parametrize("where", ["experiment", "model", "data set", "measurement"])
@pytest.mark.parametrize("name", ["../../../escaped", "$(touch x)", "a" * 300, "", "-a"], ids=len)
def test_an_experiment_with_another_name_is_refused(where, name, write_experiment):
    path = write_experiment(lambda content: named(content, where, name))
    with pytest.raises(UserError) as caught:
        load_experiment(path)
    (problem,) = caught.value.problems
    assert re.match(rf"{re.escape(str(path))}:\d+: ", str(problem))
    assert name_problem(name) in str(problem)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda table: table["rows"][0].update(row="a/b"), "tables[0].rows[0].row: expected a name"),
        (
            lambda table: table["columns"][0].update(latency="../{group}"),
            "latency '../{group}' of column 'Params (M)'",
        ),
        (lambda table: table["columns"][0].update(latency="{group.x}"), "latency '{group.x}' of column 'Params (M)'"),
        (lambda table: table["columns"][0].update(latency="{"), "latency '{' of column 'Params (M)'"),
    ],
    ids=["row", "path", "attribute", "brace"],
)
def test_a_table_with_another_name_is_refused(change, expected, tmp_path):
    row = {"model": "pvt_tiny", "label": "PVT", "group": "tiny"}
    column = {"key": "params_m", "header": "Params (M)", "task": "classification"}
    table = {"id": "table1", "title": "Title", "columns": [column], "rows": [row]}
    change(table)
    path = tmp_path / "tables.yaml"
    path.write_text(yaml.safe_dump({"tables": [table]}))
    with pytest.raises(UserError, match=re.escape(expected)):
        load_table_layouts(path)


def test_a_table_with_an_identifier_of_another_is_refused(tmp_path, repository):
    content = yaml.safe_load((repository / "configs/tables.yaml").read_text())
    content["tables"].append(content["tables"][0])
    path = tmp_path / "tables.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="expected different identifiers, found table1 twice"):
        load_table_layouts(path)
