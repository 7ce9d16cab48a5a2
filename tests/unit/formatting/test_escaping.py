"""Every text is shown by every format as it is, on one line, and does nothing."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys

import pytest

from hafabench.formatting.csv import csv_text, render_csv, text_of_csv
from hafabench.formatting.latex import escape_latex, escape_latex_row
from hafabench.formatting.markdown import (
    escape_inline,
    escape_markdown,
    markdown_block,
    markdown_code,
    markdown_table,
)
from hafabench.formatting.text import one_line, printable
from tests.support.hostile import TEXTS, shown_by_markdown

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\uffff]")
every_text = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())


@every_text
def test_a_text_on_one_line_has_no_control_characters(text):
    line = one_line(text)
    assert not CONTROL.search(line)
    assert one_line(line) == line


def test_honest_texts_stay_as_they_are():
    for text in ("", "PVT-Tiny(HAFA)", "12 %", "5\u00a0px ± 2", "数据 été", "\u200fعربي", 'it\'s a "word"'):
        assert one_line(text) == text
        assert csv_text(text) == text
    assert printable("two\n\tlines\n") == "two\n\tlines\n"


@every_text
def test_markdown(text):
    for source in (escape_markdown(text), f"- {escape_markdown(text)}", f"## {escape_inline(text)}"):
        tags, shown = shown_by_markdown(source)
        assert tags <= {"p", "ul", "li", "h2"}, source
        assert shown.strip() == one_line(text)


@every_text
def test_markdown_tables(text):
    source = markdown_table(["A", text], [[text, "b"], ["c", text]], "ll")
    tags, shown = shown_by_markdown(source)
    assert tags == {"table", "thead", "tbody", "tr", "th", "td"}
    assert shown.split("\n").count(one_line(text)) == 3
    assert len(source.splitlines()) == 4


@every_text
def test_markdown_code(text):
    tags, shown = shown_by_markdown(f"a {markdown_code(text)} b")
    assert tags == {"p", "code"}
    assert shown.strip() == f"a {one_line(text)} b"
    tags, shown = shown_by_markdown(markdown_block([text, "last"]))
    assert tags == {"pre", "code"}
    assert shown.replace("\r", "\n") == f"{text}\nlast\n\n".replace("\0", "\ufffd").replace("\r", "\n")


def of_latex(source: str) -> str:
    """Return the text that pdflatex prints, for what `escape_latex` writes."""
    named = {"backslash": "\\", "asciitilde": "~", "asciicircum": "^", "less": "<", "greater": ">", "bar": "|"}
    named["asciigrave"] = "`"
    source = re.sub(r"\\texttt\{U\+([0-9A-F]+)\}", lambda found: chr(int(found[1], 16)), source)
    source = re.sub(r"\\text([a-z]+)\{\}", lambda found: f"\0{named[found[1]]}", source)
    source = re.sub(r"\\([{}&%$#_])", lambda found: f"\0{found[1]}", source)
    assert not re.search(r"(?<!\0)[\\{}&%$#_^~]", source), source
    return source.replace("\0", "").replace("''", '"')


@every_text
def test_latex(text):
    assert of_latex(escape_latex(text)) == one_line(text).replace("''", '"')
    assert "\n" not in escape_latex(text)
    assert not re.match(r"\s*[\[*]", escape_latex_row(text))


@every_text
def test_csv(text):
    (_, (found, number)) = csv.reader(io.StringIO(render_csv(["a", "b"], [[text, -1.5]]), newline=""))
    assert not re.match(r"[-=+@\t\r\uff1d]", found)
    assert text_of_csv(found) == one_line(text)
    assert number == "-1.5"
    assert text_of_csv(csv_text(text)) == text


@pytest.mark.parametrize("text", ["-1", "+0.5", "-1.5e-3", "-0.5 0.3 -.1", "1e5"])
def test_numbers_in_csv_stay_numbers(text):
    assert csv_text(text) == text


@pytest.mark.parametrize("text", ["-1+2", "-", "+a", "-1 =2", "=1", "'-1"])
def test_texts_that_begin_like_numbers_are_no_formulas(text):
    assert csv_text(text) == f"'{text}"
    assert text_of_csv(csv_text(text)) == text


@pytest.mark.slow
def test_a_terminal_gets_no_control_characters():
    program = (
        "import sys, click; from hafabench.cli.terminal import print_everywhere; print_everywhere();"
        "print(sys.argv[1]); click.echo(sys.argv[1], err=True, color=True); print('a\\tb\\r')"
    )
    text = "\x1b[2J\x07 é\n\x9b1m\u202e"
    done = subprocess.run(
        [sys.executable, "-c", program, text],
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        check=True,
    )
    expected = "\\x1b[2J\\x07 é\n\\x9b1m\\u202e\n"
    assert done.stdout.decode() == f"{expected}a\tb\\x0d\n"
    assert done.stderr.decode() == expected
