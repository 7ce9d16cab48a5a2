"""The generated page on configuration and the JSON Schemas fit the schemas and the shipped files."""

from __future__ import annotations

import json
import os

import jsonschema
import pytest
import yaml

from hafabench.config.recipes import RecipeFile
from hafabench.config.throughput import Rates
from tests.support.experiments import EXAMPLE
from tools.checkout import REPOSITORY
from tools.configuration_docs import COMMAND, FILES, describe_type, generated, json_schemas, shipped_files

SCHEMAS = {path.name.partition(".")[0]: schema for path, schema in json_schemas().items()}


@pytest.mark.parametrize("path", generated(), ids=str)
def test_generated_files_are_up_to_date(path):
    file = REPOSITORY / path
    assert file.is_file() and file.read_text(encoding="utf-8") == generated()[path], f"run `{COMMAND}`"


def test_there_are_no_other_schemas():
    tracked = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "configs/schemas").iterdir()}
    assert tracked == set(json_schemas())


@pytest.mark.parametrize(("path", "schema"), shipped_files().items(), ids=str)
def test_shipped_files_name_the_json_schema_that_they_fit(path, schema):
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    assert text.splitlines()[0] == f"# yaml-language-server: $schema={os.path.relpath(schema, path.parent)}"
    jsonschema.validate(yaml.safe_load(text), json_schemas()[schema])


def test_every_shipped_yaml_file_has_a_json_schema():
    configs = REPOSITORY / "configs"
    assert {path.relative_to(REPOSITORY) for path in configs.rglob("*.yaml")} == set(shipped_files())


@pytest.mark.parametrize("file", [file for file in FILES if file.model is not Rates], ids=lambda file: file.name)
def test_examples_of_the_page_are_valid(file):
    content = yaml.safe_load(file.example)
    file.model.model_validate(content)
    if file.model is not RecipeFile:
        jsonschema.validate(content, SCHEMAS[file.name])


@pytest.fixture
def experiment():
    return yaml.safe_load(EXAMPLE.read_text())


def fits(content, name: str) -> bool:
    return jsonschema.Draft202012Validator(SCHEMAS[name]).is_valid(content)


def test_json_schemas_accept_old_spellings_and_mark_them_as_deprecated(experiment):
    dataset = experiment["datasets"]["detection"]
    dataset["layout"] = dataset.pop("format")
    assert fits(experiment, "experiment")
    assert SCHEMAS["experiment"]["$defs"]["DatasetConfig"]["properties"]["layout"]["deprecated"]
    del dataset["layout"]
    assert not fits(experiment, "experiment")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(colour="red"),
        lambda c: c["datasets"]["detection"].update(format="voc"),
        lambda c: c["overrides"][0]["set"].update(iterations=3),
        lambda c: c["overrides"][0]["set"].update(lr=-1.0),
    ],
)
def test_json_schemas_refuse_unknown_keys_and_wrong_values(experiment, change):
    assert fits(experiment, "experiment")
    change(experiment)
    assert not fits(experiment, "experiment")


def test_recipe_schemas_know_the_keys_of_their_task():
    recipe = yaml.safe_load((REPOSITORY / "configs/recipes/classification.yaml").read_text())
    assert fits(recipe, "recipe_classification")
    recipe["by_size"]["large"]["token_pruning.teacher"] = {"value": "lvvit_small", "source": "a test"}
    assert fits(recipe, "recipe_classification")
    recipe["by_size"]["large"]["iterations"] = {"value": 3, "source": "a test"}
    assert not fits(recipe, "recipe_classification")


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer", "exclusiveMinimum": 0, "maximum": 5}, "integer > 0 and ≤ 5"),
        ({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}, "list of strings or null"),
        ({"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}]}, "[number, number]"),
        ({"type": "object", "additionalProperties": {"$ref": "#/$defs/Rate"}}, "mapping of mappings"),
        (
            {"type": "object", "additionalProperties": {"type": "integer"}, "propertyNames": {"enum": ["a", "b"]}},
            "mapping from `a` or `b` to integers",
        ),
        ({"enum": ["a", "b", "c"], "type": "string"}, "`a`, `b` or `c`"),
        ({}, "any"),
    ],
)
def test_types_in_words(schema, text):
    assert describe_type(schema) == text


def test_defaults_are_those_of_the_schemas():
    page = json.dumps(generated()[next(iter(generated()))])
    for row in ("`throughput_batch` | integer > 1 or null | `null`", "`max_hours` | number > 0 or string | `24`"):
        assert row in " ".join(page.split())
