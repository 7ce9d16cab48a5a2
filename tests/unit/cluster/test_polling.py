"""Verdicts about submitted jobs, from what squeue and sacct print at each poll."""

from __future__ import annotations

import pytest

from hafabench.cluster.polling import (
    Answers,
    Doubt,
    Said,
    judge,
    parse_sacct,
    parse_squeue,
    seconds_to_next_poll,
)

NAME = "hafabench-paper_7d7e"
GRACE = 120


class Watched:
    """A job whose polls follow one another."""

    def __init__(self, job: str = "8"):
        self.job, self.doubt = job, None

    def poll(self, now: float, queue: str = "", accounting: str | None = "") -> str:
        """Return the verdict of a poll with these outputs of squeue and sacct."""
        told = None if accounting is None else parse_sacct(accounting, NAME)
        verdict, _, self.doubt = judge(self.job, Answers(parse_squeue(queue), told), self.doubt, now=now, grace=GRACE)
        return verdict


def test_lines_of_squeue_are_parsed():
    text = "8|RUNNING|node1|rule_train_run_wildcards_a_b_0\n9_3|PENDING||rule_all\n10|CANCELLED|n[1-2]|a|b\n\n"
    assert parse_squeue(text) == {
        "8": Said("RUNNING", "node1", comment="rule_train_run_wildcards_a_b_0"),
        "9_3": Said("PENDING", "", comment="rule_all"),
        "10": Said("CANCELLED", "n[1-2]", comment="a|b"),
    }


def test_lines_of_sacct_are_parsed_without_earlier_jobs_of_the_same_id():
    lines = f"8|CANCELLED by 1000|0:15|node1|{NAME}\n9|FAILED|1:0|None assigned|{NAME}\n10|FAILED|1:0|node1|other\n"
    assert parse_sacct(lines, NAME) == {
        "8": Said("CANCELLED by 1000", "node1", "0:15"),
        "9": Said("FAILED", "", "1:0"),
    }


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        ("COMPLETED", "succeeded"),
        *(
            (state, "failed")
            for state in ("FAILED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL", "CANCELLED")
        ),
        *((state, "lives") for state in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED")),
        *((state, "lives") for state in ("REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "STAGE_OUT", "A_NEW_STATE")),
    ],
)
@pytest.mark.parametrize("job", ["8", "9_3"])
def test_states_in_the_queue(job, state, verdict):
    for now in (0, 1000, 2000):
        assert Watched(job).poll(now, f"{job}|{state}|node1|c") == verdict


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        ("COMPLETED", "succeeded"),
        ("CANCELLED by 0", "failed"),
        ("CANCELLED by 1000", "failed"),
        ("CANCELLED+", "failed"),
    ],
)
def test_a_job_that_squeue_has_forgotten_ends_as_accounting_says(state, verdict):
    assert Watched().poll(0, "", f"8|{state}|0:0|node1|{NAME}") == verdict


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_a_job_that_may_be_queued_again_ends_after_the_grace_time(state):
    watched, line = Watched(), f"8|{state}|node1|c"
    assert [watched.poll(now, line) for now in (0, 60, 119)] == ["lives"] * 3
    assert watched.poll(120, line) == "failed"


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_a_job_that_is_queued_again_lives_on(state):
    watched = Watched()
    assert watched.poll(0, f"8|{state}|node1|c") == "lives"
    assert watched.poll(60, "8|PENDING||c") == "lives"
    assert watched.poll(1000, f"8|{state}|node1|c") == "lives", "the grace time begins again"


@pytest.mark.parametrize("told", ["", f"8|PREEMPTED|0:0|node1|{NAME}"])
def test_a_preempted_job_that_squeue_forgets_does_not_wait_longer(told):
    watched = Watched()
    assert watched.poll(0, "8|PREEMPTED|node1|c") == "lives"
    assert watched.poll(121, "", told) == "failed"


@pytest.mark.parametrize("told", ["", *(f"8|{state}|0:0||{NAME}" for state in ("RUNNING", "PENDING", "COMPLETING"))])
def test_a_job_that_is_not_in_the_queue_is_lost_after_the_grace_time(told):
    watched = Watched()
    assert [watched.poll(now, "", told) for now in (0, 60, 119)] == ["lives"] * 3
    assert watched.poll(120, "", told) == "lost"


def test_a_job_that_appears_late_is_not_lost():
    watched = Watched()
    assert watched.poll(0) == "lives"
    assert watched.poll(130, "8|RUNNING|node1|c") == "lives"
    assert watched.poll(140) == "lives", "it was seen in between"


def test_a_jump_of_the_clock_alone_ends_no_job():
    watched = Watched()
    assert watched.poll(10**6) == "lives", "only one poll missed it"
    watched = Watched()
    watched.doubt = Doubt("", since=0, polls=0)
    assert watched.poll(10**6) == "lives"


def test_without_an_answer_of_accounting_a_forgotten_job_is_unclear():
    watched = Watched()
    assert watched.poll(0, accounting=None) == "lives"
    assert watched.poll(120, accounting=None) == "unclear"
    assert watched.poll(180, accounting=f"8|FAILED|1:0|node1|{NAME}") == "failed"


def test_accounting_that_answers_again_has_time_to_catch_up():
    watched, behind = Watched(), f"8|RUNNING|0:0|node1|{NAME}"
    assert [watched.poll(now, accounting=None) for now in (0, 120)] == ["lives", "unclear"]
    assert [watched.poll(now, accounting=behind) for now in (180, 240)] == ["lives"] * 2
    assert watched.poll(300, accounting=f"8|COMPLETED|0:0|node1|{NAME}") == "succeeded"


def test_the_time_between_polls_grows_within_its_bounds():
    assert [seconds_to_next_poll(20, quiet, 300, 60) for quiet in (0, 1, 4, 99)] == [20, 30, 60, 60]
    assert seconds_to_next_poll(20, 0, 30, 60) == 15, "Slurm forgets a job 30 s after its end"
    assert seconds_to_next_poll(20, 9, 0, 60) == seconds_to_next_poll(20, 9, None, 60) == 60
    assert seconds_to_next_poll(20, 0, 1, 60) == 1
