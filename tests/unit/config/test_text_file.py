"""Text files of all systems: encodings, byte order marks, ends of lines, and numbers."""

from __future__ import annotations

import codecs

import pytest

from hafabench.config.json_file import read_json, read_json_object
from hafabench.config.paper_values import load_paper_values
from hafabench.config.text_file import lines_of, parse_number, read_csv_table
from hafabench.config.yaml_file import YamlFile
from hafabench.errors import UserError
from tests.support.messages import missing_facts

MARK = codecs.BOM_UTF8


def test_byte_order_marks_are_accepted_in_every_format(tmp_path, repository):
    file = tmp_path / "file"
    file.write_bytes(MARK + b'{"a": 1}')
    assert read_json(file) == read_json_object(file) == YamlFile(file).content == {"a": 1}
    file.write_bytes(MARK + b"a , b\r\n1,2\r\n")
    table = read_csv_table(file)
    assert (table.header, table.rows) == (["a", "b"], [(2, ["1", "2"])])
    paper = repository / "configs/paper_values.csv"
    file.write_bytes(MARK + paper.read_bytes().replace(b"\n", b"\r\n"))
    assert load_paper_values(file) == load_paper_values(paper)


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (b"", ["empty"]),
        (MARK + b" \n", ["empty"]),
        (b"[" * 100_000, ["nested too deeply"]),
        (b"1" * 5000, ["number is too large"]),
        ("{}".encode("utf-16"), ["UTF-16"]),
        (b"{\n\xff", [":2:", "0xFF"]),
        (b'{"a": 1,}', [":1:", "not valid JSON"]),
    ],
    ids=["empty", "blank", "deep", "large", "UTF-16", "latin-1", "comma"],
)
def test_what_is_no_json_is_refused_in_one_sentence(tmp_path, content, facts):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_json(tmp_path / "a.json")
    assert missing_facts(refused.value, "a.json", *facts) == []
    assert read_json_object(tmp_path / "a.json") is None


def test_folders_are_no_files(tmp_path):
    for read in (read_json, read_csv_table):
        with pytest.raises(UserError, match="cannot be read: Is a directory"):
            read(tmp_path)


def test_lines_end_only_where_all_systems_end_them():
    assert lines_of("a\r\nb\rc\u2028d\x0be\n\nf") == ["a", "b", "c\u2028d\x0be", "", "f"]


@pytest.mark.parametrize(("text", "number"), [("1", 1), (" -1.5 ", -1.5), (".5e1", 5), ("2.", 2)])
def test_numbers(text, number):
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["", "1_000", "1,5", "1.000,5", "0x10", "\u0661", "1 000", "12:30"])
def test_what_is_no_number(text):
    with pytest.raises(ValueError, match="expected a number"):
        parse_number(text)
