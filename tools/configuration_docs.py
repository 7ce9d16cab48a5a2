"""Generate `docs/configuration.md` and the JSON Schemas in `configs/schemas/` from the schemas of `hafabench.config`.

``python -m tools.configuration_docs`` writes these files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hafabench.config.claims import ClaimsConfig
from hafabench.config.experiment import ExperimentConfig
from hafabench.config.names import MAX_NAME
from hafabench.config.recipes import RECIPE_TYPES, DenseRecipe, Recipe, RecipeFile, Sourced
from hafabench.config.regression import GateLimits
from hafabench.config.site import Site
from hafabench.config.tables import TablesFile
from hafabench.config.throughput import Rates
from hafabench.formatting.markdown import markdown_table
from tools.checkout import REPOSITORY

PAGE = Path("docs/configuration.md")
SCHEMAS = Path("configs/schemas")
COMMAND = "python -m tools.configuration_docs"

JsonSchema = dict[str, Any]


@dataclass(frozen=True)
class ConfigurationFile:
    """A kind of file that users write.

    Attributes:
        title: Heading in the page.
        name: Name of its JSON Schema, without suffix.
        model: Schema of its content.
        files: Shipped files of this kind, shell patterns below `configs/`.
        introduction: What the file is for.
        example: A minimal file.
    """

    title: str
    name: str
    model: type[BaseModel]
    files: tuple[str, ...]
    introduction: str
    example: str


FILES = (
    ConfigurationFile(
        "Experiment",
        "experiment",
        ExperimentConfig,
        ("digits.yaml", "digits_study.yaml", "regression_digits.yaml", "paper.yaml"),
        """An experiment file names data sets, models, seeds and measurements. Every model of `train` is trained once
with each seed. `configs/digits.yaml` is the embedded experiment of `make demo`, and `configs/paper.yaml` is
that of the paper. An experiment file may be stored in any folder. `hafabench check --experiment FILE` checks it and
every file that it refers to. Commands may be started in any folder. It is the folder in which data sets with a
relative path are sought, and in which `results/` and `reports/` are written.""",
        """experiment: mine
title: My images
scale: full
seeds: [0]
datasets:
  classification:
    name: my_images
    format: imagenet
    root: data/my_images
    num_classes: 10
    images: {train: 5000, val: 1000}
train:
  classification: [pvt_tiny, pvt_tiny_hafa]
overrides:
  - runs: classification/*
    why: a smaller data set
    set: {epochs: 100, batch_size: 256}
complexity:
  image_size: {classification: [224, 224]}
  num_classes: {classification: 1000}
""",
    ),
    ConfigurationFile(
        "Recipes",
        "recipe",
        RecipeFile,
        (),
        """`configs/recipes/<task>.yaml` contains the hyperparameters of a task. Every value has a source. Values of
`by_family` and `by_size` replace those of `defaults`, and `overrides` of the experiment replace both. A key
of a nested section is written with a dot: `token_pruning.teacher`. The example leaves out most of the keys.

`batch_size` counts the images of a step on all GPUs together, so another number of GPUs changes neither the step nor
the learning rate. Gradients are not accumulated. Classification scales `lr`, `warmup_lr` and `min_lr` linearly from
`lr_batch_size` to `batch_size`. Segmentation and detection use `lr` as it is written: with half the batch size, set
half the rate. `hafabench check` warns about models whose ratio of rate and batch size is not that of the recipe.""",
        """task: classification
defaults:
  optimizer: {value: adamw, source: paper section 4.1}
  lr: {value: 1.0e-3, source: paper section 4.1}
  epochs: {value: 300, source: paper section 4.1}
by_size:
  large:
    drop_path: {value: 0.3, source: published code}
""",
    ),
    ConfigurationFile(
        "Tables",
        "tables",
        TablesFile,
        ("tables.yaml",),
        """`configs/tables.yaml` contains the columns and rows of the tables. A cell shows the paper's value from
`configs/paper_values.csv` and the value from the records of the experiment.""",
        """tables:
  - id: table1
    title: Image classification
    columns:
      - {key: params_m, header: Params (M), task: classification}
      - {key: top1, header: Top-1 (%), task: classification, delta: true}
    rows:
      - {model: pvt_tiny, label: PVT-Tiny, group: tiny}
      - {model: pvt_tiny_hafa, label: PVT-Tiny(HAFA), group: tiny, baseline: pvt_tiny}
""",
    ),
    ConfigurationFile(
        "Claims",
        "claims",
        ClaimsConfig,
        ("claims.yaml",),
        """`configs/claims.yaml` determines how `hafabench claims` checks the paper's printed values: by which
conventions parameters and multiply-accumulates may have been counted, and how far a measured value may be
from the printed one. [The claims page](claims.md) describes the results.""",
        """conventions:
  - {name: parameters, metric: params_m, says: all parameters that the model uses}
  - {name: multiply-accumulates, metric: gflops, says: all multiply-accumulates}
row_conventions:
  - convention: parameters
    printed: truncated
    rows: [table1/*_hafa/params_m]
    because: the authors' own rows
tolerances:
  - {metrics: [top1], within: 0.3, because: three standard deviations over seeds}
""",
    ),
    ConfigurationFile(
        "Regression gate",
        "regression",
        GateLimits,
        ("regression.yaml",),
        """`configs/regression.yaml` contains the largest changes that `hafabench regress` accepts. [The page on the
gate](regression.md) describes its statistics.""",
        """metrics:
  top1: {absolute: 1.0, elsewhere: {absolute: 3.0}}
  latency_ratio: {relative: 0.05}
""",
    ),
    ConfigurationFile(
        "Site",
        "site",
        Site,
        ("site.yaml",),
        """`configs/site.yaml` describes a Slurm cluster for `snakemake --profile slurm`. Every key is optional. The
environment variable `HAFABENCH_SITE` names another file. [The page on clusters](cluster.md) uses it.""",
        """account: vision
gpu: {partition: a100, gpus: 4, max_hours: 48}
cpu: {partition: serial}
""",
    ),
    ConfigurationFile(
        "Throughput",
        "throughput",
        Rates,
        ("throughput.yaml",),
        """`throughput.yaml` contains the rates from which `hafabench plan` and the workflow estimate run times and
memory. Every rate has a source. It is read from the folder of the tables file that an experiment names, otherwise
from that of the experiment file, or else from the files of this project. The example shows some of the required
keys.""",
        """gpu: {value: NVIDIA RTX 3090, source: timm's published benchmarks}
gpus: {value: 8, source: paper section 4.1}
images_per_s:
  resnet50: {value: 1218.0, source: "timm, RTX 3090"}
""",
    ),
)


def json_schemas() -> dict[Path, JsonSchema]:
    """Return the JSON Schema of every kind of file, by its path."""
    schemas = {file.name: schema_of(file.model) for file in FILES if file.model is not RecipeFile}
    _check_override_keys(schemas["experiment"])
    schemas |= {f"recipe_{task}": _recipe_schema(task) for task in RECIPE_TYPES}
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {SCHEMAS / f"{name}.schema.json": {**dialect, **schema} for name, schema in schemas.items()}


def shipped_files() -> dict[Path, Path]:
    """Return the JSON Schema of every shipped YAML file."""
    files = {Path("configs") / name: SCHEMAS / f"{file.name}.schema.json" for file in FILES for name in file.files}
    return files | {
        Path("configs/recipes") / f"{task}.yaml": SCHEMAS / f"recipe_{task}.schema.json" for task in RECIPE_TYPES
    }


def schema_of(model: type[BaseModel]) -> JsonSchema:
    """Return the JSON Schema of a model, without the titles that pydantic derives from the names of keys."""
    schema: JsonSchema = _without_titles(model.model_json_schema())
    return schema


def _without_titles(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_titles(item) for item in node]
    if not isinstance(node, dict):
        return node
    # A key called "title" of a file has a schema, whereas a title is a text.
    return {k: _without_titles(v) for k, v in node.items() if not (k == "title" and isinstance(v, str))}


def _recipe_keys(task: str) -> dict[str, JsonSchema]:
    """Return the schema of the value of every recipe key. Keys of nested sections have a dot."""
    kind = RECIPE_TYPES[task]
    keys = {key: value for key, value in schema_of(kind)["properties"].items() if key not in kind.sections}
    for section, model in kind.sections.items():
        keys |= {f"{section}.{key}": value for key, value in schema_of(model)["properties"].items()}
    return keys


def _recipe_schema(task: str) -> JsonSchema:
    schema, sourced = schema_of(RecipeFile), schema_of(Sourced)
    values = {
        key: {**sourced, "properties": {**sourced["properties"], "value": value}, "description": value["description"]}
        for key, value in _recipe_keys(task).items()
    }
    del schema["$defs"]["Sourced"]
    schema["$defs"]["Values"] = {"type": "object", "properties": values, "additionalProperties": False}
    layer = {"$ref": "#/$defs/Values"}
    properties = schema["properties"]
    properties["task"] = {"const": task, "description": properties["task"]["description"]}
    properties["defaults"] |= {"additionalProperties": True, "$ref": "#/$defs/Values"}
    for name in ("by_family", "by_size"):
        properties[name]["additionalProperties"] = layer
    return schema


def _check_override_keys(schema: JsonSchema) -> None:
    """Let the JSON Schema of experiments check the keys and values of overrides."""
    schema["$defs"]["Override"]["allOf"] = [
        {
            "if": {"properties": {"runs": {"pattern": f"^{task}/"}}},
            "then": {"properties": {"set": {"properties": _recipe_keys(task), "additionalProperties": False}}},
        }
        for task in RECIPE_TYPES
    ]


def page() -> str:
    """Return the text of `docs/configuration.md`."""
    parts = [
        f"""<!-- Generated by `{COMMAND}` from src/hafabench/config. Edit the descriptions there. -->

# Configuration

All files are YAML, read by the core schema of YAML 1.2: `24:00:00`, `12:30`, dates, `yes` and `no` are text, and
`064` is 64. hafabench refuses unknown keys and reports every problem of a file at once, with its line. Snakemake
reads the experiment file as well, before hafabench does. It may end with a traceback on a file that is not valid
YAML, of which `hafabench check` names the line.

A *name* consists of at most {MAX_NAME} ASCII letters, digits, `_`, `-` and single dots, and begins with a letter, a
digit or `_`. Two names that differ only in case are refused where both would be names of files.

The first line of each file in `configs/` names its JSON Schema. Editors (for example VS Code with the YAML extension)
use it to complete and check keys:

```yaml
# yaml-language-server: $schema=schemas/experiment.schema.json
```"""
    ]
    for file in FILES:
        example = f"```yaml\n{file.example}```"
        parts += [f"## {file.title}", file.introduction, example]
        parts += [part for section in _sections(file) for part in section.render()]
    return "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class Section:
    """A table of keys.

    Attributes:
        heading: Heading; empty for the keys at the top level of a file.
        description: Text below the heading.
        schema: JSON Schema with the keys.
        keys: Keys of the schema to list.
    """

    heading: str
    description: str
    schema: JsonSchema
    keys: tuple[str, ...]

    def render(self) -> Iterator[str]:
        """Return heading, description and table as Markdown."""
        if self.heading:
            yield f"### {self.heading}"
            yield re.sub(r"``([^`]+)``", r"`\1`", self.description)
        rows = [self._row(key, self.schema["properties"][key]) for key in self.keys]
        yield markdown_table(("key", "type", "default", "description"), rows, "llll", is_markdown=True)

    def _row(self, key: str, about: JsonSchema) -> tuple[str, ...]:
        old = [
            name
            for name, other in self.schema["properties"].items()
            if other.get("deprecated") and other["description"] == f"Old spelling of `{key}`."
        ]
        alternatives = [set(entry["required"]) for entry in self.schema.get("anyOf", ())]
        required = key in self.schema.get("required", ()) or {key} in alternatives
        default = "required" if required else _default(about)
        spelling = "".join(f" Old spelling: `{name}`." for name in old)
        return f"`{key}`", describe_type(about), default, about["description"] + spelling


def _default(about: JsonSchema) -> str:
    default = about.get("default")
    if isinstance(default, dict | list) or "default" not in about:
        # The default of a section is a section with the defaults of its keys.
        return "see below" if default and "$ref" in json.dumps(about) else "optional"
    return f"`{json.dumps(default).strip(chr(34))}`"


def _sections(file: ConfigurationFile) -> list[Section]:
    if file.model is RecipeFile:
        return _recipe_sections()
    schema = schema_of(file.model)
    places = _places(schema)
    sections = [_section("", schema)]
    for name, paths in places.items():
        shown = ", ".join(f"`{path}`" for path in paths[:2]) + (" and others" if len(paths) > 2 else "")
        sections.append(_section(shown, schema["$defs"][name]))
    return sections


def _section(heading: str, schema: JsonSchema) -> Section:
    keys = tuple(key for key, about in schema["properties"].items() if not about.get("deprecated"))
    return Section(heading, schema.get("description", ""), schema, keys)


def _recipe_sections() -> list[Section]:
    file = schema_of(RecipeFile)
    sections = [_section("", file), _section("`defaults.<key>`", file["$defs"]["Sourced"])]
    sections.append(_section("`departures[]`", file["$defs"]["Departure"]))
    shared = tuple(Recipe.model_fields)
    dense = tuple(key for key in DenseRecipe.model_fields if key not in shared)
    for heading, model, keys in [
        ("Every task", Recipe, shared),
        ("Segmentation and detection", DenseRecipe, dense),
        *((task.capitalize(), kind, ()) for task, kind in RECIPE_TYPES.items()),
    ]:
        schema = schema_of(model)
        own = keys or tuple(key for key in model.model_fields if key not in (*shared, *dense, *model.sections))
        sections.append(Section(heading, schema["description"], schema, own))
        for name, section in model.sections.items() if model in RECIPE_TYPES.values() else ():
            sections.append(_section(f"`{name}.<key>`", schema_of(section)))
    return sections


def _places(schema: JsonSchema) -> dict[str, list[str]]:
    """Return the paths at which each nested section occurs, in the order of the file."""
    places: dict[str, list[str]] = {}

    def visit(properties: Mapping[str, JsonSchema], prefix: str) -> None:
        for key, about in properties.items():
            if about.get("deprecated"):
                continue
            for suffix, name in _references(about):
                first = name not in places
                places.setdefault(name, []).append(f"{prefix}{key}{suffix}")
                if first:
                    visit(schema["$defs"][name]["properties"], f"{prefix}{key}{suffix}.")

    visit(schema["properties"], "")
    return places


def _references(about: JsonSchema) -> Iterator[tuple[str, str]]:
    """Yield the nested sections of a key's value, each with the suffix of its path."""
    if "$ref" in about:
        yield "", about["$ref"].rpartition("/")[2]
    for option in about.get("anyOf", ()):
        yield from _references(option)
    for values, mark in ((about.get("items"), "[]"), (_values(about), ".<key>")):
        if isinstance(values, dict):
            yield from ((mark + suffix, name) for suffix, name in _references(values))


def _values(about: JsonSchema) -> Any:
    """Return the schema of the values of a mapping, whose keys may have to match a pattern."""
    return next(iter(about.get("patternProperties", {}).values()), about.get("additionalProperties"))


def describe_type(about: JsonSchema) -> str:
    """Return the type of a key's value in words: ``integer > 0``, ``list of strings``."""
    if "anyOf" in about:
        return " or ".join(describe_type(option) for option in about["anyOf"])
    if "const" in about:
        return f"`{about['const']}`"
    if "enum" in about:
        return _alternatives(about["enum"])
    kind = about.get("type")
    if kind == "array":
        if "prefixItems" in about:
            return f"[{', '.join(describe_type(item) for item in about['prefixItems'])}]"
        return f"list of {_plural(describe_type(about['items']))}"
    if kind == "object" or "$ref" in about:
        values, keys = _values(about), about.get("propertyNames", {}).get("enum")
        if not isinstance(values, dict) or not values:
            return "mapping"
        return f"mapping {f'from {_alternatives(keys)} to' if keys else 'of'} {_plural(describe_type(values))}"
    if kind in ("integer", "number"):
        return f"{kind}{_bounds(about)}"
    if kind == "string":
        if about.get("format") == "name":
            return "name"
        pattern = f" matching `{about['pattern']}`" if "pattern" in about else ""
        return ("path" if about.get("format") == "path" else "string") + pattern
    return {"boolean": "`true` or `false`", "null": "null"}.get(str(kind), "any")


def _alternatives(values: list[str]) -> str:
    *others, last = (f"`{value}`" for value in values)
    return f"{', '.join(others)} or {last}" if others else last


def _plural(name: str) -> str:
    return re.sub(r"^(integer|number|string|name|path|mapping|list)\b", r"\1s", name)


def _bounds(about: JsonSchema) -> str:
    names = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    bounds = [f"{sign} {about[name]:.12g}" for name, sign in names.items() if name in about]
    return " " + " and ".join(bounds) if bounds else ""


def generated() -> dict[Path, str]:
    """Return the text of every generated file, by its path below the root of the checkout."""
    schemas = {path: json.dumps(schema, indent=1) + "\n" for path, schema in json_schemas().items()}
    return {PAGE: page(), **schemas}


def main() -> None:
    """Write the generated files."""
    for path, text in generated().items():
        (REPOSITORY / path).parent.mkdir(exist_ok=True)
        (REPOSITORY / path).write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
