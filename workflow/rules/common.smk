# The functions that rules and the driver call.
import functools
import subprocess

from snakemake.settings.types import RerunTrigger

from hafabench.runs.growth import growth_of
from hafabench.runs.snakemake import (
    RESOURCE_NAMES,
    can_be_input,
    decide_reruns,
    executor_advice,
    executor_resources,
    incomplete_outputs,
    launcher,
    name_slurm_jobs,
    repeated_command,
    site_resources,
    submission_problems,
    submits_to_slurm,
)
from hafabench.runs.state import output_states


@functools.cache
def reruns():
    """What this driver runs again. The states of the jobs decide, in place of Snakemake's own triggers."""
    incomplete = incomplete_outputs(Path.cwd())
    found = decide_reruns(JOBS, output_states(JOBS), workflow.dag_settings, incomplete)
    # The graph is being built when the first input function is called. It looks at forced files when it is complete.
    workflow.dag.forcefiles.update(found.forced)
    workflow.dag_settings.rerun_triggers = frozenset({RerunTrigger.MTIME})
    # Snakemake knows the settings of the executor now, and has not made the executor yet.
    name_slurm_jobs(workflow.executor_settings, EXPERIMENT.name)
    return found


def inputs_of(rule):
    """The inputs of a rule's jobs that Snakemake can name."""

    def inputs(wildcards):
        job = JOBS.find(rule, wildcards)
        if workflow.is_main_process:
            return reruns().inputs(job, ancient)
        return list(filter(can_be_input, job.inputs))

    return inputs


def fingerprint_of(rule):
    """The fingerprints of a rule's jobs, for Snakemake's metadata."""
    return lambda wildcards: JOBS.find(rule, wildcards).fingerprint


def command_of(rule):
    """The commands of a rule's jobs. Snakemake does not store parameters that take ``resources``, used or not."""
    return lambda wildcards, resources: JOBS.find(rule, wildcards).command


def log_of(rule):
    """The logs of a rule's jobs. Snakemake would delete declared ones although another process may train the run."""
    return lambda wildcards: str(JOBS.find(rule, wildcards).log)


# Where a job's output goes besides its log: to the console, unless the driver prints one line per job.
SHOWN = "" if CONSOLE is None else " > /dev/null"
# The same as an option of job_log, which shows the output if the log cannot be written.
QUIETLY = "" if CONSOLE is None else " --quiet"


@functools.cache
def requested(rule, growth, *wildcards):
    """What the next attempt of a job requests, as resources of the Slurm executor."""
    job = JOBS.find(rule, wildcards)
    return executor_resources(job.resources(growth), SITE)


def resources_of(rule):
    """The resources of a rule: functions of a job's wildcards, and the options that choose its nodes."""

    def resource(name):
        def value(wildcards):
            growth = growth_of(rule, wildcards)
            return requested(rule, growth, *wildcards).get(name)

        return value

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


def report_is_requested():
    """Whether the report is among the targets."""
    requested = set(map(str, workflow.dag_settings.targets)) or {"all"}
    return bool(requested & {"all", *map(str, RULES["write_report"].outputs)})


def report_what_there_is():
    """Make the tables and the report of the records that exist, if they were requested and jobs failed."""
    if not report_is_requested() or not any(path.exists() for path in JOBS.records):
        return
    # These run as jobs do, perhaps in a container image with the packages for reports.
    if run_verb("collect", "--partial", program=["hafabench"]):
        run_verb("report", "--partial", program=["hafabench"])


def show_numbers():
    """Print the final numbers and the paths of the report, below the lines about the jobs."""
    if CONSOLE is not None and report_is_requested():
        run_verb("summary")


def list_failures():
    """List the jobs that failed by reason, and the command that runs them again."""
    given_up = [
        word
        for job in workflow.scheduler.failed
        if job.rule.name in RULES
        for word in ("--job", JOBS.find(job.rule.name, job.wildcards).id)
    ]
    run_verb("status", "--failed", *given_up, "--command", repeated_command(sys.argv))


def account():
    """Write the cost of Slurm jobs to a table, and to the report if there is one."""
    if not submits_to_slurm(workflow.executor_plugin.name):
        return
    run_verb("cluster", "account", "--wait", "60")
    if os.path.exists(EXPERIMENT.reports / "report.html"):
        # This runs as jobs do, perhaps in a container image with the packages for reports but without Slurm.
        run_verb("report", program=["hafabench"])
