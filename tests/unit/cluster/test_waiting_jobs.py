"""Jobs that Slurm refused for now are submitted again, one for all of those with the same words."""

from __future__ import annotations

import pytest

from hafabench.cluster.refusals import Refusal
from hafabench.cluster.waiting_jobs import WaitingJobs

LIMIT = Refusal("QOSMaxSubmitJobPerUserLimit", "now", is_limit=True)
AWAY = Refusal("Unable to contact slurm controller", "now", may_have_submitted=True)
DRAINED = Refusal("Required partition not available", "now")
ODD = Refusal("Unspecified error", "unknown", may_have_submitted=True)


@pytest.fixture
def waiting() -> WaitingJobs[str]:
    return WaitingJobs(first_pause=10, longest_pause=60)


def tried(waiting, now):
    return [job for job, _ in waiting.due(now)]


def test_pauses_double_up_to_the_longest(waiting):
    assert waiting.refuse("a", "train", LIMIT, now=0) == []
    now, pauses = 0, []
    for _ in range(5):
        pause = next(seconds for seconds in range(1000) if waiting.due(now + seconds))
        pauses.append(pause)
        now += pause
        assert waiting.refuse("a", "train", LIMIT, now) == []
    assert pauses == [10, 20, 40, 60, 60]


def test_one_job_is_tried_for_all_and_the_others_follow_when_it_is_accepted(waiting):
    for job in "abc":
        waiting.refuse(job, "train", LIMIT, now=0)
    assert len(waiting) == 3
    assert tried(waiting, 10) == ["a"]
    assert tried(waiting, 11) == [], "the answer about the first one is not known"
    waiting.refuse("a", "train", LIMIT, now=12)
    assert tried(waiting, 31) == []
    assert tried(waiting, 32) == ["a"], "it keeps its turn"
    waiting.leave("a", now=33)
    assert tried(waiting, 33) == ["b"]
    waiting.leave("b", now=34)
    assert tried(waiting, 34) == ["c"]
    waiting.leave("c", now=35)
    assert len(waiting) == 0


def test_new_jobs_wait_for_their_kind_and_for_slurm(waiting):
    waiting.refuse("a", "train gpu", DRAINED, now=0)
    assert waiting.hold_back("b", "train gpu")
    assert not waiting.hold_back("c", "evaluate cpu"), "another partition may accept it"
    waiting.refuse("c", "evaluate cpu", AWAY, now=0)
    assert waiting.hold_back("d", "count cpu"), "Slurm does not answer"
    assert len(waiting) == 4
    assert tried(waiting, 10) == ["a", "c"], "each group on its own"
    assert not waiting.hold_back("a", "train gpu"), "it is being submitted"


def test_a_job_that_is_refused_with_other_words_waits_with_their_group(waiting):
    waiting.refuse("a", "train", AWAY, now=0)
    waiting.refuse("b", "train", AWAY, now=0)
    assert tried(waiting, 10) == ["a"]
    waiting.refuse("a", "train", LIMIT, now=11)
    assert waiting.due(11) == [("b", AWAY)], "Slurm answers again"
    waiting.refuse("b", "train", LIMIT, now=12)
    assert [refusal for _, refusal in waiting.due(21)] == [LIMIT]
    assert len(waiting) == 2


def test_words_with_other_numbers_are_the_same(waiting):
    for number in range(3):
        waiting.refuse(str(number), "train", Refusal(f"job {number} is too much for now", "now"), now=0)
    assert len(waiting.due(10)) == 1


def test_the_end_of_a_job_makes_room_within_a_limit(waiting):
    waiting.refuse("a", "train", LIMIT, now=0)
    waiting.refuse("b", "evaluate", DRAINED, now=0)
    waiting.make_room(now=2)
    assert tried(waiting, 3) == ["a"]


def test_unknown_words_are_final_after_some_tries(waiting):
    waiting.refuse("a", "train", ODD, now=0)
    waiting.refuse("b", "train", ODD, now=0)
    given_up, now = [], 0
    for _ in range(10):
        now += 60
        if not waiting.due(now):
            break
        given_up = waiting.refuse("a", "train", ODD, now)
    assert given_up == ["a", "b"]
    assert now == 60 * 6, "after the first and five more tries"
    assert len(waiting) == 0


def test_one_message_tells_the_words_the_number_and_the_next_try(waiting):
    for job in "abc":
        waiting.refuse(job, "train", LIMIT, now=0)
    assert waiting.messages(1) == [], "more jobs may follow"
    (message,) = waiting.messages(2)
    assert message == (
        "Slurm refuses jobs for now: QOSMaxSubmitJobPerUserLimit. 3 jobs wait; the next try is in 8 s. "
        "This uses no attempt. `hafabench cluster check` shows the limits."
    )
    assert waiting.messages(1800) == [], "not per try"
    assert len(waiting.messages(3700)) == 1, "a reminder"
    for job in "abc":
        assert tried(waiting, 4000) == [job]
        message = waiting.leave(job, now=4000)
    assert message == "No job waits for its submission any longer: Slurm has accepted 3 of them."


def test_a_short_wait_is_not_told(waiting):
    waiting.refuse("a", "train", LIMIT, now=0)
    waiting.make_room(0)
    assert tried(waiting, 1) == ["a"]
    assert waiting.leave("a", now=1) is None
    assert waiting.leave("never refused", now=1) is None
    assert waiting.messages(9) == []


def test_a_driver_that_ends_forgets_its_jobs(waiting):
    for job in "ab":
        waiting.refuse(job, "train", LIMIT, now=0)
    assert waiting.clear() == ["a", "b"]
    assert len(waiting) == 0
    assert waiting.leave("a", now=1) is None
