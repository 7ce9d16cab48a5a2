"""hafabench: train, fine-tune, evaluate and measure every model of an experiment; make Tables 1-6.

snakemake all --profile workflow/profiles/local                                     the embedded experiment
snakemake all -n --profile workflow/profiles/local --configfile configs/paper.yaml  the matrix of the paper, dry run
"""

import os
import subprocess
import sys

from snakemake.exceptions import WorkflowError

from hafabench.config.site import load_site, site_file
from hafabench.config.experiment import load_experiment
from hafabench.data.verify import missing_datasets
from hafabench.errors import UserError
from hafabench.runs.run import expand as expand_runs
from hafabench.runs.resources import WORDS, ResourceBook


configfile: "configs/digits.yaml"


# Experiment files are read whole by hafabench, never merged key by key: the last one named is the experiment.
# Named as seen from here: records keep the commands that made them, and no path of one machine.
EXPERIMENT_FILE = os.path.relpath(
    (workflow.overwrite_configfiles or workflow.configfiles)[-1]
)
try:
    EXPERIMENT = load_experiment(EXPERIMENT_FILE)
    RUNS = expand_runs(EXPERIMENT)
    SITE = load_site(site_file(workflow.basedir))
    BOOK = ResourceBook(EXPERIMENT, SITE)
except UserError as error:
    raise WorkflowError(f"the experiment is not in order:\n{error}") from None

MISSING_DATA = missing_datasets(EXPERIMENT.config.datasets)
for sentence in MISSING_DATA if workflow.is_main_process else []:
    print(f"missing data: {sentence}", file=sys.stderr)

# The jobs' `hafabench` is the one beside this Python, whether or not its environment was activated.
os.environ["PATH"] = os.pathsep.join(
    [os.path.dirname(sys.executable), os.environ["PATH"]]
)

GPU = 0 if EXPERIMENT.config.scale == "embedded" else 1


def asked(request, gpu=0):
    """A rule's resources: functions of a job's wildcards and attempt, and what the site calls its nodes."""

    known = {}

    def part(word):
        def value(wildcards, attempt):
            # Snakemake asks for each word by itself; a job's estimate is made once.
            job = (*wildcards, attempt)
            if job not in known:
                known[job] = request(wildcards, attempt).words(SITE)
            return known[job].get(word)

        return value

    return SITE.resources(gpu) | {word: part(word) for word in WORDS}


RESULTS = str(EXPERIMENT.results)
REPORTS = str(EXPERIMENT.reports)


wildcard_constraints:
    task="classification|segmentation|detection",
    model=r"[\w.]+",
    seed=r"\d+",


onstart:
    if MISSING_DATA:
        raise WorkflowError(
            "no job started, data is missing:\n" + "\n".join(MISSING_DATA)
        )


def at_the_end(*words, program=(sys.executable, "-m", "hafabench")):
    """Run one of hafabench's verbs when the driver ends: what it says is shown, its failure changes nothing."""
    command = [*program, *words, "--experiment", str(EXPERIMENT_FILE)]
    subprocess.run(command, check=False)


def account():
    """Where the jobs are Slurm's: what they have cost, as a table of its own and in the report, if that is there."""
    if workflow.executor_plugin.name != "slurm":
        return
    at_the_end("cluster", "account", "--wait", "60")
    if os.path.exists(f"{REPORTS}/report.html"):
        # As jobs call it, which may be inside an image that has what reports are made with, and no Slurm.
        at_the_end("report", program=["hafabench"])


onsuccess:
    account()


onerror:
    account()
    at_the_end("status", "--failed")


# Seconds each: the driver does them by itself, wherever the others run. Data that is only verified may take an hour.
localrules:
    all,
    collect_records,
    write_report,


if EXPERIMENT.config.scale == "embedded":

    localrules:
        prepare_dataset,


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/regression.smk"


rule all:
    """Tables 1-6 and the figures, with every record behind them: one that is lost is made again."""
    default_target: True
    input:
        rules.write_report.output,
        list(RECORDS),
