# The functions that rules and the driver call.
import functools
import subprocess

from hafabench.files import sha256_of
from hafabench.runs.snakemake import (
    RESOURCE_NAMES,
    can_be_input,
    executor_resources,
    launcher,
    site_resources,
    submission_problems,
)


def inputs_of(rule):
    """The inputs of a rule's jobs that Snakemake can name."""
    return lambda wildcards: list(
        filter(can_be_input, JOBS.find(rule, wildcards).inputs)
    )


def other_inputs_of(rule):
    """The digests of the other inputs of a rule's only job, as parameters: a changed file repeats the job."""
    others = [path for path in JOBS.find(rule).inputs if not can_be_input(path)]
    return {"other_inputs": list(map(sha256_of, others))} if others else {}


def fingerprint_of(rule):
    """The fingerprints of a rule's jobs. A job is repeated when its fingerprint changes, even if no file changes."""
    return lambda wildcards: JOBS.find(rule, wildcards).fingerprint


def command_of(rule):
    """The commands of a rule's jobs. Snakemake does not compare parameters that take ``resources``, used or not, so
    another command line for the same computation does not repeat a job.
    """
    return lambda wildcards, resources: JOBS.find(rule, wildcards).command


@functools.cache
def requested(rule, attempt, *wildcards):
    """What an attempt of a job requests, as resources of the Slurm executor."""
    return executor_resources(JOBS.find(rule, wildcards).resources(attempt), SITE)


def resources_of(rule):
    """The resources of a rule: functions of a job's wildcards and attempt, and the options that choose its nodes."""

    def resource(name):
        return lambda wildcards, attempt: requested(rule, attempt, *wildcards).get(name)

    pool = site_resources(SITE, RULES[rule].uses_gpu)
    return pool | {name: resource(name) for name in RESOURCE_NAMES}


def request_of(wildcards):
    """What the first attempt of a training requests."""
    return JOBS.find("train_run", wildcards).resources()


def run_verb(*words, program=(sys.executable, "-m", "hafabench")):
    """Run a command of hafabench when the driver ends. Its output is shown, and a failure is ignored."""
    command = [*program, *words, "--experiment", str(EXPERIMENT_FILE)]
    environment = {name: value for name, value in os.environ.items() if name != AS_JOB}
    return subprocess.run(command, check=False, env=environment).returncode == 0


def report_what_there_is():
    """Make the tables and the report of the records that exist, if they were requested and jobs failed."""
    requested = set(map(str, workflow.dag_settings.targets)) or {"all"}
    is_requested = requested & {"all", *map(str, RULES["write_report"].outputs)}
    if not is_requested or not any(path.exists() for path in JOBS.records):
        return
    # These run as jobs do, perhaps in a container image with the packages for reports.
    if run_verb("collect", "--partial", program=["hafabench"]):
        run_verb("report", "--partial", program=["hafabench"])


def account():
    """Write the cost of Slurm jobs to a table, and to the report if there is one."""
    if workflow.executor_plugin.name != "slurm":
        return
    run_verb("cluster", "account", "--wait", "60")
    if os.path.exists(EXPERIMENT.reports / "report.html"):
        # This runs as jobs do, perhaps in a container image with the packages for reports but without Slurm.
        run_verb("report", program=["hafabench"])
