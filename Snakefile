"""hafabench: train, fine-tune, evaluate and measure every model of an experiment; make Tables 1-6.

snakemake all --profile workflow/profiles/local                                     the embedded experiment
snakemake all -n --profile workflow/profiles/local --configfile configs/paper.yaml  the matrix of the paper, dry run
"""

import functools
import os
import subprocess
import sys

from snakemake.exceptions import WorkflowError

from hafabench.config.site import load_site, site_file
from hafabench.config.experiment import load_experiment
from hafabench.data.prepare import missing_datasets
from hafabench.errors import UserError
from hafabench.runs.jobs import JobList
from hafabench.runs.snakemake import (
    RESOURCE_NAMES,
    executor_resources,
    launcher,
    site_resources,
)


configfile: "configs/digits.yaml"


# hafabench reads experiment files as a whole and never merges them key by key: the last one given is the experiment.
# The path is relative, so that the commands in records contain no path of one machine.
EXPERIMENT_FILE = os.path.relpath(
    (workflow.overwrite_configfiles or workflow.configfiles)[-1]
)
try:
    EXPERIMENT = load_experiment(EXPERIMENT_FILE)
    SITE = load_site(site_file(workflow.basedir))
    JOBS = JobList(EXPERIMENT, SITE)
except UserError as error:
    raise WorkflowError(f"the experiment is not in order:\n{error}") from None

MISSING_DATA = missing_datasets(EXPERIMENT.config.datasets)
for sentence in MISSING_DATA if workflow.is_main_process else []:
    print(f"missing data: {sentence}", file=sys.stderr)

# Jobs run the `hafabench` of this Python environment, whether or not it was activated.
os.environ["PATH"] = os.pathsep.join(
    [os.path.dirname(sys.executable), os.environ["PATH"]]
)

# Everything that the rules declare comes from the list of jobs (`hafabench.runs.jobs`); the rules add redirections.
RULES = JOBS.rules


def inputs_of(rule):
    """The inputs of a rule's jobs."""
    return lambda wildcards: JOBS.find(rule, wildcards).inputs


def fingerprint_of(rule):
    """What a rule's jobs compute. A job is repeated when its fingerprint changes, whatever happens to files' bytes."""
    return lambda wildcards: JOBS.find(rule, wildcards).fingerprint


def command_of(rule):
    """The commands of a rule's jobs. Snakemake does not compare parameters that depend on resources, as this seems to:
    another command line for the same computation repeats nothing."""
    return lambda wildcards, resources: JOBS.find(rule, wildcards).command


@functools.cache
def requested(rule, attempt, *wildcards):
    """What an attempt of a job requests, as resources of the Slurm executor."""
    return executor_resources(JOBS.find(rule, wildcards).resources(attempt), SITE)


def resources_of(rule):
    """The resources of a rule: functions of a job's wildcards and attempt, and the nodes of the site that it goes to."""

    def resource(name):
        return lambda wildcards, attempt: requested(rule, attempt, *wildcards).get(name)

    pool = site_resources(SITE, RULES[rule].uses_gpu)
    return pool | {name: resource(name) for name in RESOURCE_NAMES}


wildcard_constraints:
    task="classification|segmentation|detection",
    model=r"[\w.]+",
    seed=r"\d+",


onstart:
    if MISSING_DATA:
        raise WorkflowError(
            "no job started, data is missing:\n" + "\n".join(MISSING_DATA)
        )


def run_verb(*words, program=(sys.executable, "-m", "hafabench")):
    """Run a command of hafabench when the driver ends. Its output is shown; its failure changes nothing."""
    command = [*program, *words, "--experiment", str(EXPERIMENT_FILE)]
    subprocess.run(command, check=False)


def account():
    """Read what Slurm jobs have cost into a table, and into the report if there is one."""
    if workflow.executor_plugin.name != "slurm":
        return
    run_verb("cluster", "account", "--wait", "60")
    if os.path.exists(EXPERIMENT.reports / "report.html"):
        # As jobs run it: perhaps in a container image that contains what reports need, and not Slurm.
        run_verb("report", program=["hafabench"])


onsuccess:
    account()


onerror:
    account()
    run_verb("status", "--failed")


# Jobs of seconds, which the driver runs itself, wherever the others run.
workflow.localrules("all", *(rule.name for rule in RULES.values() if rule.is_local))


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/regression.smk"


rule all:
    """Tables 1-6 and the figures, with every record behind them: a lost record is made again."""
    default_target: True
    input:
        JOBS.targets,
