"""Commands about very many Slurm jobs."""

from __future__ import annotations

import pytest

from hafabench.cluster.commands import IDS_PER_COMMAND, CommandFailed
from hafabench.cluster.queue import QueuedJob, cancel, has_ended, is_abandoned, live_jobs_of
from hafabench.config.experiment import load_experiment
from tests.support.slurm_commands import RecordedCommands, squeue_line

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


@pytest.mark.parametrize(
    ("states", "ended", "abandoned"),
    [
        ("COMPLETED\n", True, False),
        ("CANCELLED\nTIMEOUT\n", True, False),
        ("COMPLETING\n", False, False),
        ("RUNNING\nCOMPLETED\n", False, False),
        ("NODE_FAIL\n", False, True),
        ("", False, False),
        (None, False, False),
    ],
)
def test_what_is_known_about_the_processes_of_a_slurm_job(states, ended, abandoned):
    """After a node has lost contact, its processes may live on although the job has ended for Slurm."""
    answers = RecordedCommands({} if states is None else {"squeue": states})
    assert (has_ended("7", answers), is_abandoned("7", answers)) == (ended, abandoned)


def test_very_many_jobs_of_another_driver_are_told_apart(tmp_path, monkeypatch, write_experiment):
    """Their names do not tell the experiment, but their submissions do."""
    monkeypatch.chdir(tmp_path)
    experiment = load_experiment(write_experiment())
    ids = [str(10**9 + number) for number in range(1500)]
    queue = "".join(squeue_line(int(one), "PENDING", tmp_path, name="hafabench_x") + "\n" for one in ids)

    def slurm(arguments, _timeout):
        if arguments[0] == "squeue":
            return queue
        asked = arguments[-1].removeprefix("--jobs=").split(",")
        assert len(asked) <= IDS_PER_COMMAND
        return "".join(f"{one}|sbatch --configfiles other.yaml --mode remote\n" for one in asked[::2])

    found = live_jobs_of(experiment, tmp_path, slurm)
    assert [job.id for job in found] == ids[1::2]


def test_without_jobs_nothing_is_cancelled():
    cancel([], lambda *_: pytest.fail("scancel without ids is an error"))
