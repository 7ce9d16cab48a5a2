"""The report in a real browser, with the window of a desktop and of a phone, in the light and the dark theme."""

from __future__ import annotations

from pathlib import Path

import pytest

from hafabench.config.experiment import load_experiment
from hafabench.reporting.html.page import page_file
from hafabench.reporting.report import build_report
from hafabench.reporting.write import write_report
from tests.support.chromium import browser, find_browser
from tests.support.synthetic_experiment import fill_results
from tools.checkout import REPOSITORY

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        find_browser() is None, reason="no Chromium; on Debian: apt-get install chromium-headless-shell"
    ),
]
WINDOWS = {"desk": 1280, "phone": 390, "narrow phone": 320}


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The report of the embedded study with synthetic results."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("browser"))
        experiment = load_experiment(REPOSITORY / "configs/digits_study.yaml")
        fill_results(experiment)
        report = build_report(experiment)
        write_report(report)
        return page_file(report).resolve()


@pytest.fixture(scope="module")
def tab():
    with browser() as tab:
        yield tab


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WINDOWS.values(), ids=WINDOWS)
def test_the_page_fits_the_window_without_errors(report, tab, width, dark):
    tab.load(report, width=width, dark=dark)
    tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    # No element is wider than a parent that cannot be scrolled.
    outside = """
        [...document.querySelectorAll('main *, header *')]
            .filter(e => !e.closest('.scroll, .tiles, nav, [popover]') && e.getClientRects().length)
            .filter(e => e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)
            .map(e => e.tagName + ' ' + e.textContent.slice(0, 40))
    """
    assert tab.evaluate(outside) == []
    assert tab.complaints == []
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 22, 26)") == dark


def test_chart_labels_are_readable_on_a_phone(report, tab):
    tab.load(report, width=WINDOWS["phone"])
    smallest = "Math.min(...[...document.querySelectorAll('.chart text')].map(t => t.getBoundingClientRect().height))"
    # The height of a line: a font size of 9 pixels gives lines of about 11.
    assert tab.evaluate(smallest) >= 9


def test_a_cells_card_opens_and_closes_by_keyboard(report, tab):
    tab.load(report, width=WINDOWS["phone"])
    tab.evaluate("document.querySelector('#table1 td:nth-of-type(5) button').focus()")
    tab.press("Enter")
    text = tab.evaluate("document.querySelector(':popover-open').innerText")
    for word in ("PVT-Tiny", "5 seeds", "Origin", "Commit", "cpu, 1 thread", "seed 4"):
        assert word in text
    box = tab.evaluate("(b => [b.left, b.right])(document.querySelector(':popover-open').getBoundingClientRect())")
    assert box[0] >= 0
    assert box[1] <= WINDOWS["phone"]
    tab.press("Escape")
    assert tab.evaluate("document.querySelector(':popover-open')") is None


def test_rows_that_did_not_run_can_be_hidden(report, tab):
    tab.load(report, width=WINDOWS["desk"])
    shown = "[...document.querySelectorAll('#table1 tbody tr')].filter(row => row.getClientRects().length).length"
    everything = tab.evaluate(shown)
    tab.evaluate("document.getElementById('only-ran').click()")
    assert tab.evaluate(shown) == 2 < everything
