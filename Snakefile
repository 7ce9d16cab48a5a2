"""hafabench: train, fine-tune, evaluate and measure every model of an experiment; make Tables 1-6.

snakemake all --profile workflow/profiles/local                                     the embedded experiment
snakemake all -n --profile workflow/profiles/local --configfile configs/paper.yaml  the matrix of the paper, dry run
"""

import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from hafabench.config.site import load_site, site_file
from hafabench.config.experiment import load_experiment
from hafabench.config.names import NAME_PATTERN
from hafabench.config.shipped import own_or_shipped
from hafabench.data.prepare import missing_datasets
from hafabench.errors import UserError
from hafabench.formatting.text import one_line
from hafabench.runs.attempts import AS_JOB
from hafabench.runs.experiment_file import (
    check_data_folders,
    check_experiment_file,
    store_experiment_file,
)
from hafabench.runs.jobs import JobList
from hafabench.runs.kept_outputs import keep_finished
from hafabench.runs.log_handler import console_of, jobs_to_run
from hafabench.runs.snakemake import hang_up_like_sigterm, limit_submitted_jobs
from hafabench.runs.weights import missing_weights


configfile: str(own_or_shipped(Path("configs"), "digits.yaml"))


# hafabench reads one experiment file as a whole and never merges several key by key. The last one given is read.
# The path is relative, so that the commands in records contain no path of one machine.
EXPERIMENT_FILE = os.path.relpath(
    (workflow.overwrite_configfiles or workflow.configfiles)[-1]
)
try:
    EXPERIMENT = load_experiment(EXPERIMENT_FILE)
    if workflow.is_main_process:
        check_experiment_file(EXPERIMENT)
        check_data_folders(EXPERIMENT)
    SITE = load_site(site_file(workflow.basedir))
    JOBS = JobList(EXPERIMENT, SITE)
except UserError as error:
    raise WorkflowError(f"the experiment is invalid:\n{error}") from None

if workflow.is_main_process:
    hang_up_like_sigterm()
    limit_submitted_jobs(workflow, SITE)

# By task. Only jobs that need missing data fail; all others run.
MISSING_DATA = (
    missing_datasets(EXPERIMENT.config.datasets) if workflow.is_main_process else {}
)
for sentence in (
    *sum(MISSING_DATA.values(), []),
    *(missing_weights(JOBS.runs.values()) if workflow.is_main_process else []),
):
    print(one_line(f"missing data: {sentence}"), file=sys.stderr)

# Jobs run the `hafabench` of this Python environment, whether or not it was activated. `snakemake --lint` recommends an
# environment or container per rule, and PATH among `envvars`. Here all rules share one locked environment (envs/), and
# PATH differs between machines. It also recommends a log for trainings and evaluations, which have one (`log_of`).
os.environ["PATH"] = os.pathsep.join(
    [os.path.dirname(sys.executable), os.environ["PATH"]]
)

# Jobs mark in their logs where an attempt begins and ends, from which `hafabench status` tells how it ended.
os.environ[AS_JOB] = "1"

if workflow.is_main_process:
    for path in keep_finished(JOBS, Path()):
        print(
            f"finished after its driver was killed, and kept: {path}", file=sys.stderr
        )

# What the driver prints, if the profile's logger is used; None if Snakemake prints its own messages.
CONSOLE = console_of(workflow, JOBS)

# Everything that the rules declare comes from the list of jobs (`hafabench.runs.jobs`); the rules add redirections.
RULES = JOBS.rules


include: "workflow/rules/common.smk"


wildcard_constraints:
    task="classification|segmentation|detection",
    model=NAME_PATTERN,
    group=NAME_PATTERN,
    seed=r"\d+",


onstart:
    if submits_to_slurm(workflow.executor_plugin.name):
        advice = executor_advice(workflow.executor_plugin.name)
        if advice:
            print(one_line(advice), file=sys.stderr)
        unfit = submission_problems(
            Path(EXPERIMENT_FILE), Path(workflow.main_snakefile)
        )
        if unfit:
            raise WorkflowError("no job started:\n" + "\n".join(unfit))
    trained = {task for task, models in EXPERIMENT.config.train.items() if models}
    if trained and trained <= MISSING_DATA.keys():
        raise WorkflowError(
            "no job started, data is missing:\n"
            + "\n".join(sum(MISSING_DATA.values(), []))
        )
    try:
        store_experiment_file(EXPERIMENT)
    except UserError as error:
        raise WorkflowError(f"no job started:\n{error}") from None
    if CONSOLE is not None:
        CONSOLE.begin(jobs_to_run(workflow, JOBS), log)


onsuccess:
    account()
    show_numbers()


onerror:
    report_what_there_is()
    account()
    show_numbers()
    list_failures()


# These jobs take seconds. The driver runs them itself, even if it submits the others to a cluster.
workflow.localrules("all", *(rule.name for rule in RULES.values() if rule.is_local))


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/regression.smk"


rule all:
    """Tables 1-6 and the figures, with everything behind them. Lost outputs are made again."""
    default_target: True
    input:
        lambda wildcards: reruns().targets(JOBS),
