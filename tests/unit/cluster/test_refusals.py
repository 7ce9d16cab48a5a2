"""What the words of sbatch mean, with texts of Slurm 22.05 and later."""

from __future__ import annotations

import pytest

from hafabench.cluster.refusals import classify

SUBMISSION = "sbatch: error: Batch job submission failed: "
POLICY = f"{SUBMISSION}Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


@pytest.mark.parametrize(
    "limit",
    [
        *("AssocMaxSubmitJobLimit", "AssocGrpSubmitJobsLimit", "QOSGrpSubmitJobsLimit"),
        *("QOSMaxSubmitJobPerUserLimit", "QOSMaxSubmitJobPerAccountLimit"),
    ],
)
def test_a_limit_of_submissions_passes_when_a_job_ends(limit):
    found = classify(f"sbatch: error: {limit}\n{POLICY}\n")
    assert (found.kind, found.is_limit, found.may_have_submitted) == ("now", True, False)
    assert found.words.startswith(f"{limit}; Batch job submission failed: Job violates")


@pytest.mark.parametrize(
    "limit",
    [
        *(
            "QOSMaxWallDurationPerJobLimit",
            "QOSMaxCpuPerJobLimit",
            "QOSMaxGRESPerUser",
            "QOSMinGRES",
            "QOSNotAllowed",
        ),
        *("AssocMaxWallDurationPerJobLimit", "AssocMaxCpuPerJobLimit", "AssocMaxMemPerJob", "AssocGrpCpuLimit"),
    ],
)
def test_a_limit_that_a_job_exceeds_by_itself_does_not_pass(limit):
    assert classify(f"sbatch: error: {limit}\n{POLICY}\n").kind == "good"


@pytest.mark.parametrize(
    "text",
    [
        f"{SUBMISSION}Unable to contact slurm controller (connect failure)",
        f"{SUBMISSION}Unable to contact slurm controller (receive failure)",
        f"{SUBMISSION}Socket timed out on send/recv operation",
        f"{SUBMISSION}Zero Bytes were transmitted or received",
        f"{SUBMISSION}Slurm backup controller in standby mode",
        "sbatch: error: fetch_config: DNS SRV lookup failed\n"
        "sbatch: fatal: Could not establish a configuration source",
    ],
)
def test_without_an_answer_slurm_may_have_the_job(text):
    found = classify(text)
    assert (found.kind, found.may_have_submitted) == ("now", True)


@pytest.mark.parametrize(
    "text",
    [
        f"{SUBMISSION}Required partition not available (inactive or drain)",
        f"{SUBMISSION}Required node not available (down, drained or reserved)",
        f"{SUBMISSION}Requested reservation not usable now",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n" * 3
        + f"{SUBMISSION}Resource temporarily unavailable",
        f"{SUBMISSION}I/O error writing script/environment to file",
        f"{SUBMISSION}Requested account has breached requested QOS usage threshold",
        "sbatch: error: If munged is up, restart with --num-threads=10\n"
        'sbatch: error: Munge encode failed: Failed to access "/run/munge/munge.socket.2": No such file or directory',
        "logs/slurm/paper/rule_train_run: No space left on device",
    ],
)
def test_refusals_that_pass(text):
    found = classify(text)
    assert (found.kind, found.may_have_submitted, found.is_limit) == ("now", False, False)


@pytest.mark.parametrize(
    "text",
    [
        f"{SUBMISSION}Invalid account or account/partition combination specified",
        f"sbatch: error: invalid partition specified: gpus\n{SUBMISSION}Invalid partition name specified",
        f"{SUBMISSION}Invalid qos specification",
        f"{SUBMISSION}Requested node configuration is not available",
        "sbatch: error: Memory specification can not be satisfied\n"
        f"{SUBMISSION}Requested node configuration is not available",
        f"{SUBMISSION}Requested time limit is invalid (missing or exceeds some limit)",
        f"{SUBMISSION}Invalid generic resource (gres) specification",
        f"{SUBMISSION}Invalid feature specification",
        f"{SUBMISSION}User's group not permitted to use this partition",
        f"{SUBMISSION}Access denied to requested reservation",
        "sbatch: unrecognized option '--gpu-typ=a'\nTry \"sbatch --help\" for more information",
        "/bin/sh: 1: sbatch: not found",
        # sbatch waited for the controller, which then refused the job.
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"
        f"{SUBMISSION}Invalid account or account/partition combination specified",
    ],
)
def test_refusals_that_do_not_pass(text):
    assert classify(text).kind == "good"


@pytest.mark.parametrize(
    "text", ["", f"{SUBMISSION}Unspecified error", "sbatch: error: ask for a project first", POLICY]
)
def test_other_words_tell_nothing(text):
    found = classify(text)
    assert (found.kind, found.may_have_submitted) == ("unknown", True)
    assert found.words


def test_words_are_one_line_without_repetitions():
    text = f"sbatch: error: Slurm job queue full, sleeping and retrying\n{'x' * 9}\n" * 2 + f"{SUBMISSION}Busy\n"
    assert classify(text).words == (
        "Slurm job queue full, sleeping and retrying; xxxxxxxxx; Batch job submission failed: Busy"
    )
    assert len(classify("y" * 10_000).words) < 500
