"""Numbers, durations and Markdown tables as texts."""

from __future__ import annotations

from decimal import Decimal

import pytest

from hafabench.formatting.durations import format_duration
from hafabench.formatting.markdown import markdown_table
from hafabench.formatting.numbers import format_fixed, format_interval, format_significant, format_unrounded
from hafabench.measure.conventions import printed
from tests.support.markdown import table_rows


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0, "0.0 s"),
        (1.54, "1.5 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (76.2, "1 min 16 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h"),
        (4 * 3600 + 5 * 60 + 20, "4 h 5 min"),
        (24 * 3600, "24 h"),
        (48 * 3600 - 31, "47 h 59 min"),
        (48 * 3600 - 29, "2 d"),
        (1000 * 24 * 3600 + 7 * 3600, "1,000 d 7 h"),
    ],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (-0.04, False, "0.0"),
        (-0.04, True, "0.0"),
        (0.04, True, "0.0"),
        (0, True, "0.0"),
        (-1.26, True, "-1.3"),
        (2.34, True, "+2.3"),
        (float("nan"), False, "nan"),
        (float("inf"), True, "+inf"),
    ],
)
def test_fixed_decimals_have_no_negative_zero(value, signed, text):
    assert format_fixed(value, 1, signed=signed) == text


def test_an_interval_has_its_bounds_in_square_brackets():
    assert format_interval(-0.04, 2.14, 1, signed=True) == "[0.0, +2.1]"


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (14_649_001.0, True, "+14649001"),
        (0.0, False, "0"),
        (-3.0, True, "-3"),
        (1.23456, False, "1.235"),
        (123456.7, False, "123457"),
        (0.00012345, True, "+0.0001235"),
        (-0.0, True, "0"),
        (2.0005, False, "2.001"),
        (float("-inf"), False, "-inf"),
    ],
)
def test_significant_digits(value, signed, text):
    assert format_significant(value, signed=signed) == text


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (0.125, 2, "0.13"),
        (0.25, 1, "0.3"),
        (-0.25, 1, "-0.3"),
        (82.35, 1, "82.4"),
        (1.005, 2, "1.01"),
        # Arithmetic leaves errors beyond the tenth digit.
        ((82.3 + 82.4) / 2, 1, "82.4"),
        (77.5 - 75.15, 1, "2.4"),
        (82.3499, 1, "82.3"),
        (0.5, 0, "1"),
        (1e300, 1, f"{int(1e300)}.0"),
        # A decimal is exact.
        (Decimal("0.1249999999999999999999"), 2, "0.12"),
        (Decimal("0.125"), 2, "0.13"),
    ],
)
def test_a_half_is_rounded_away_from_zero_as_a_decimal(value, decimals, text):
    assert format_fixed(value, decimals) == text


def test_counts_and_tables_round_alike():
    for value in ("0.125", "15.45", "82.35", "11.65", "0.05"):
        assert printed(Decimal(value), 1, "rounded") == format_fixed(float(value), 1)


def test_unrounded_numbers_show_no_error_of_a_unit_conversion():
    assert format_unrounded(0.1 + 0.2) == "0.3"
    assert format_unrounded(13229288.0) == "13229288"
    assert format_unrounded(None) == ""
    assert format_unrounded(-0.0) == "0"


def test_a_table_escapes_its_texts_and_is_aligned():
    text = markdown_table(["name", "n_1"], [["a|b*", "10"], ["", "9 %"]], "lr")
    assert table_rows(text) == [["name", r"n\_1"], [r"a\|b\*", "10"], ["", "9 %"]]
    assert len({len(line) for line in text.splitlines()}) == 1
    assert [cell[-1] for cell in text.splitlines()[1].strip("|").split("|")] == ["-", ":"]


def test_a_table_keeps_markdown_but_no_pipe():
    text = markdown_table(["name"], [["`a|b` *c*"]], "l", is_markdown=True)
    assert table_rows(text) == [["name"], [r"`a\|b` *c*"]]
