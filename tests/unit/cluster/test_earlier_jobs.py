"""Which Slurm jobs of earlier drivers a new Slurm job has to wait for."""

from __future__ import annotations

import pytest

from hafabench.cluster.earlier_jobs import CACHE_S, EarlierJobs, dependency
from hafabench.runs.snakemake import comment, job_name_prefix
from tests.support.slurm_commands import COMMENT, UUID, RecordedCommands, squeue, squeue_line

PREFIX = job_name_prefix("digits")
EVALUATION = comment("evaluate_run", ["classification", "pvt_tiny", "0"])


def test_only_live_jobs_of_the_same_job_folder_and_experiment_count(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    commands = squeue(
        squeue_line(7, "RUNNING", tmp_path),
        squeue_line(8, "PENDING", link, reason="Resources", node=""),
        squeue_line(9, "COMPLETING", tmp_path, name=f"{PREFIX}_another-driver"),
        squeue_line(10, "RUNNING", tmp_path, comment=EVALUATION),
        squeue_line(11, "RUNNING", tmp_path / "elsewhere"),
        squeue_line(12, "RUNNING", tmp_path, name=f"{job_name_prefix('paper')}_{UUID}"),
        squeue_line(13, "RUNNING", tmp_path, name=f"{job_name_prefix('digits_study')}_{UUID}"),
        squeue_line(14, "RUNNING", tmp_path, comment="(null)"),
        squeue_line("15_1", "RUNNING", tmp_path),
        squeue_line("15_[2-9]", "PENDING", tmp_path),
    )
    jobs = EarlierJobs(link, PREFIX, commands)
    assert sorted(jobs.ids(COMMENT)) == ["15", "7", "8", "9"]
    assert jobs.ids(EVALUATION) == ["10"]
    assert jobs.ids(comment("collect_records")) == []


def test_the_answer_of_squeue_is_kept_for_some_seconds(tmp_path):
    commands = squeue(squeue_line(7, "RUNNING", tmp_path))
    now = [0.0]
    jobs = EarlierJobs(tmp_path, PREFIX, commands, lambda: now[0])
    for _ in range(3):
        assert jobs.ids(COMMENT) == ["7"]
    assert len(commands.calls) == 1
    commands.outputs["squeue"] = ""
    now[0] = CACHE_S
    assert jobs.ids(COMMENT) == []


def test_a_job_is_submitted_without_waiting_if_squeue_does_not_answer(tmp_path):
    assert EarlierJobs(tmp_path, PREFIX, RecordedCommands({})).ids(COMMENT) == []


@pytest.mark.parametrize(("ids", "option"), [([], []), (["7", "12"], ["--dependency=afterany:7:12"])])
def test_the_option_of_sbatch(ids, option):
    assert dependency(ids) == option
