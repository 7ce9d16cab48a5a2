"""Attempts that ran out of memory or time are counted by job."""

from __future__ import annotations

import pytest

from hafabench.runs import growth
from hafabench.runs.growth import NONE, VARIABLE, Growth, count, growth_of

RUN = ("classification", "pvt_tiny", "0")


@pytest.fixture(autouse=True)
def _no_counts(monkeypatch):
    monkeypatch.setattr(growth, "_counted", {})
    monkeypatch.delenv(VARIABLE, raising=False)


def test_the_counts_of_a_job_are_its_own():
    assert growth_of("train_run", RUN) == NONE
    assert count("memory", "train_run", RUN) == Growth(memory=1)
    assert count("time", "train_run", RUN) == Growth(memory=1, time=1)
    assert count("memory", "train_run", RUN) == growth_of("train_run", iter(RUN)) == Growth(memory=2, time=1)
    assert growth_of("evaluate_run", RUN) == growth_of("train_run", (*RUN[:2], "1")) == growth_of("all") == NONE


def test_a_job_on_a_node_is_told_its_counts(monkeypatch):
    monkeypatch.setenv(VARIABLE, Growth(memory=2, time=1).text)
    assert growth_of("train_run", RUN) == Growth(memory=2, time=1)


@pytest.mark.parametrize("text", ["", "1", "1,x", "-1,0", "1,2,3"])
def test_another_content_of_the_variable_is_ignored(monkeypatch, text):
    monkeypatch.setenv(VARIABLE, text)
    assert growth_of("train_run", RUN) == NONE
