"""The reader of YAML files: what values mean, and that no file ends in a traceback or in another number."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from hafabench.config.claims import load_claims_config
from hafabench.config.experiment import load_experiment
from hafabench.config.recipes import load_recipe
from hafabench.config.regression import load_limits
from hafabench.config.site import load_site
from hafabench.config.throughput import Rates
from hafabench.config.yaml_file import YamlFile
from hafabench.errors import UserError
from tests.support.experiments import EXAMPLE
from tools.checkout import REPOSITORY


@pytest.fixture
def read(tmp_path):
    def read(content: str | bytes) -> YamlFile:
        path = tmp_path / "file.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return YamlFile(path)

    return read


def refusal(read, content: str | bytes) -> str:
    with pytest.raises(UserError) as caught:
        read(content)
    (problem,) = caught.value.problems
    assert "\n" not in str(problem)
    return str(problem).partition("file.yaml")[2]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("064", 64),
        ("08", 8),
        ("0o17", 15),
        ("0x10", 16),
        ("+1", 1),
        ("-0", 0),
        ("1e3", 1000.0),
        ("1.5E-3", 0.0015),
        (".5", 0.5),
        ("1.", 1.0),
        ("24:00:00", "24:00:00"),
        ("12:30", "12:30"),
        ("1:30.5", "1:30.5"),
        ("0b11", "0b11"),
        ("2026-11-28", "2026-11-28"),
        *((word, word) for word in ("yes", "no", "on", "off", "NO", "Y", "n", "1_000", "NaN", "inf", "<")),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("'064'", "064"),
        ("!!str 064", "064"),
    ],
)
def test_plain_scalars_mean_what_the_core_schema_says(read, written, value):
    found = read(f"a: {written}").content["a"]
    assert (found, type(found)) == (value, type(value))


def test_keys_are_text(read):
    assert read("064: a\non: b\n1: c\ntrue: d").content == {"064": "a", "on": "b", "1": "c", "true": "d"}


def test_anchors_and_merges_keep_their_meaning(read):
    text = "x: &x {p: 1, q: 2}\ny: {<<: *x, q: 3}\nz: {<<: [*x, {p: 9, r: 1}]}\nlist: [*x, *x]\n"
    assert read(text).content == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: 1\nb: &b [*b]", ":2: b[0]: an alias must not refer to a node that contains it"),
        ("a: &a {b: {c: *a}}", ":1: a.b.c: an alias must not refer to a node that contains it"),
        ("a: &a {<<: *a}", ":1: a: an alias must not refer to a node that contains it"),
        ("a: 0x_", ":1: a: expected a text in quotes, found 0x_"),
        ("a: =", ":1: a: expected a text in quotes, found ="),
        ("a: 1\nb: 2026-13-45", ":2: b: expected a date or a text in quotes, found 2026-13-45"),
        ("a: 1\nb: 2\na: 3", ":3: a: key given twice"),
        ("a: {b: 1, 'b': 2}", ":1: a.b: key given twice"),
        ("a: 1\n\tb: 2", ":2: not valid YAML: "),
        ("a: 1\nb: c\0d", ":2: not UTF-8 text: it contains NUL bytes"),
        ("a: 1\nb: c\x07d", ":2: contains the control character U+0007; expected text"),
        ('a: 1\nb: "c\\0d"', ":2: b: contains the control character U+0000; expected text"),
        ('a: "\\e[31m"', ":1: a: contains the control character U+001B; expected text"),
        ('"a\\0": 1', ":1: contains the control character U+0000"),
        ("a: .nan", ":1: a: expected a finite number, found '.nan'"),
        ("a: -.INF", ":1: a: expected a finite number, found '-.INF'"),
        ("a: 1e999", ":1: a: expected a finite number, found '1e999'"),
        ("a: " + "9" * 5000, ":1: a: expected a number below 2^63, found 999"),
        ("[" * 20_000, ":1: nested more than 100 levels deep"),
        ("a: " + "{a: " * 500 + "}" * 500, ":1: nested more than 100 levels deep"),
        ("a: 1\nb: [1, 2", ":3: not valid YAML: "),
        ("a: *b", ":1: not valid YAML: found undefined alias"),
        (
            "a: 1\n---\nb: 1",
            ":2: not valid YAML: expected a single document in the stream but found another document",
        ),
        ("a: !!python/object:os.system x", ":1: a: unknown tag '!!python/object:os.system'"),
        ("a: !foo {b: 1}", ":1: a: unknown tag '!foo'"),
        ("a: !!timestamp 2026-13-45", ":1: a: unknown tag '!!timestamp'"),
        ("a: !!int x", ":1: a: not a number: 'x'"),
        ("? [a]\n: b", ":1: expected a name as key"),
        ("~: b", ":1: expected a name as key"),
        ("a: {<<: 1}", ":1: a.<<: expected a mapping or a list of mappings"),
        ("", ": expected a mapping of keys at the top level"),
        ("- a: 1", ": expected a mapping of keys at the top level"),
        ("text", ": expected a mapping of keys at the top level"),
        ("a: b\nc: é".encode("latin-1"), ":2: not UTF-8 text (byte 0xE9); save the file with the encoding UTF-8"),
        ("a: b".encode("utf-16"), ": the text is encoded in UTF-16; save the file with the encoding UTF-8"),
        ("a: b".encode("utf-16-le"), ":1: not UTF-8 text: it contains NUL bytes"),
        ('"a\\nb": {c: 1, c: 2}', ":1: 'a\\nb'.c: key given twice"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_with_line_and_key(read, content, expected):
    assert refusal(read, content).startswith(expected)


def test_exploding_aliases_are_refused_quickly(read):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(12)]
    assert "more than 100,000 values, aliases included" in refusal(read, "\n".join(lines))


def test_a_byte_order_mark_and_other_line_ends_are_read(read):
    assert read(b"\xef\xbb\xbfa: 1\r\nb: 2\rc: 3\n").content == {"a": 1, "b": 2, "c": 3}


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        YamlFile(tmp_path)


READERS = {
    "digits.yaml": load_experiment,
    "claims.yaml": load_claims_config,
    "site.yaml": load_site,
    "regression.yaml": load_limits,
    "recipes/classification.yaml": lambda path: load_recipe(path, "classification"),
    "throughput.yaml": lambda path: YamlFile(path).validate(Rates),
}
TRAPS = ["yes", "true", "12:30", "0b11", "nan", ".inf", "2026-11-28", "1,5", "[1]", "{a: 1}", '"\\0"']


@pytest.mark.parametrize("name", READERS)
def test_no_reader_takes_a_trap_for_a_number(name, tmp_path):
    """Every plain number of every shipped file is replaced, one at a time per trap."""
    text = (REPOSITORY / "configs" / name).read_text()
    folder = tmp_path / "configs"
    for file in (REPOSITORY / "configs").rglob("*.*"):
        (folder / file.relative_to(REPOSITORY / "configs")).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.relative_to(REPOSITORY / "configs")).symlink_to(file)
    path = folder / name
    path.unlink()
    numbers = [
        event
        for event in yaml.parse(text)
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and event.value.replace(".", "", 1).isdigit()
    ]
    assert numbers
    for index, trap in enumerate(TRAPS):
        event = numbers[index * len(numbers) // len(TRAPS)]
        path.write_text(text[: event.start_mark.index] + trap + text[event.end_mark.index :])
        with pytest.raises(UserError) as caught:
            READERS[name](path)
        line = event.start_mark.line + 1
        assert any(f"{path}:" in str(problem) for problem in caught.value.problems), (trap, line)


@pytest.mark.parametrize("seeds", ["[-1]", "[4294967296]", "[true]", "[0, 0]", "[1.5]", "[]", "[~]", "0"])
def test_seeds(seeds, tmp_path):
    text = EXAMPLE.read_text()
    path = tmp_path / "digits.yaml"
    path.write_text(text.replace("seeds: [0]", f"seeds: {seeds}"))
    with pytest.raises(UserError) as caught:
        load_experiment(path)
    (problem,) = [str(problem) for problem in caught.value.problems if "seeds" in str(problem)]
    assert problem.startswith(f"{path}:{text.splitlines().index('seeds: [0]') + 1}: seeds")


# -- paths ----------------------------------------------


def root_of(tmp_path: Path, write_experiment, root: str) -> Path:
    path = write_experiment(lambda content: content["datasets"]["classification"].update(root=root))
    return load_experiment(path).config.datasets["classification"].root


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("~/data", "/home/me/data"),
        ("$DATA/imagenet", "/scratch/a b/imagenet"),
        ("${DATA}net/$YEAR", "/scratch/a bnet/2012"),
        ("$$DATA/5$", "$DATA/5$"),
        ("a/~", "a/~"),
        ("./~x", "~x"),
        ("a b/{c}/'d'/100%/é", "a b/{c}/'d'/100%/é"),
    ],
)
def test_home_and_environment_variables_in_paths(tmp_path, write_experiment, monkeypatch, written, expected):
    for name, value in {"HOME": "/home/me", "DATA": "/scratch/a b", "YEAR": "2012"}.items():
        monkeypatch.setenv(name, value)
    assert root_of(tmp_path, write_experiment, written) == Path(expected)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("$NOWHERE/data", "the environment variable NOWHERE is not set"),
        ("${NOWHERE}/data", "the environment variable NOWHERE is not set"),
        ("$EMPTY/data", "the environment variable EMPTY is empty"),
        ("${DATA:-x}", "the environment variable DATA:-x is not set"),
        ("~nobody-here/data", "there is no home folder ~nobody-here"),
        (" ", "expected a path, found an empty text"),
    ],
)
def test_paths_that_cannot_be_completed(tmp_path, write_experiment, monkeypatch, written, expected):
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(UserError) as caught:
        root_of(tmp_path, write_experiment, written)
    (problem,) = caught.value.problems
    assert f"datasets.classification.root: {expected}" in str(problem)


def test_a_path_that_the_environment_cannot_encode_is_refused(tmp_path, write_experiment, monkeypatch):
    monkeypatch.setattr(os, "fsencode", lambda path: str(path).encode("ascii"))
    with pytest.raises(UserError) as caught:
        root_of(tmp_path, write_experiment, "data é")
    (problem,) = caught.value.problems
    assert "datasets.classification.root: this environment has the encoding ascii" in str(problem)


def test_other_paths_of_an_experiment_are_completed_as_well(write_experiment, monkeypatch, repository):
    monkeypatch.setenv("CONFIGS", str(repository / "configs"))
    names = {
        "recipes": "recipes",
        "tables": "tables.yaml",
        "paper_values": "paper_values.csv",
        "claims": "claims.yaml",
    }
    path = write_experiment(lambda content: content.update({key: f"$CONFIGS/{name}" for key, name in names.items()}))
    assert load_experiment(path).tables_file == repository / "configs/tables.yaml"
