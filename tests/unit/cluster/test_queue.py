"""Commands about very many Slurm jobs."""

from __future__ import annotations

import pytest

from hafabench.cluster.commands import IDS_PER_COMMAND, CommandFailed
from hafabench.cluster.queue import QueuedJob, cancel

JOBS = [QueuedJob(str(number), *["x"] * 8) for number in range(1, 2501)]


def test_very_many_jobs_are_cancelled_by_several_commands_also_if_one_fails():
    asked: list[list[str]] = []

    def scancel(arguments, _timeout):
        asked.append(list(arguments[1:]))
        if len(asked) == 1:
            raise CommandFailed("scancel: error")
        return ""

    with pytest.raises(CommandFailed, match="scancel: error"):
        cancel(JOBS, scancel)
    assert [job for ids in asked for job in ids] == [job.id for job in JOBS]
    assert max(map(len, asked)) == IDS_PER_COMMAND


def test_without_jobs_nothing_is_cancelled():
    cancel([], lambda *_: pytest.fail("scancel without ids is an error"))
