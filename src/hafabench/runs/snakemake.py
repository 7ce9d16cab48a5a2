"""All code that depends on Snakemake: command lines, locks, drivers, and its Slurm executor.

A *driver* is a process of Snakemake that runs the workflow in a folder. Its Slurm executor gives every Slurm job the
comment ``rule_<rule>`` or ``rule_<rule>_wildcards_<values joined by underscores>``. Names contain underscores as
well, so comments are not parsed but compared with those of all jobs of an experiment. Experiments that share a folder
have jobs with the same comments. They are distinguished by the name of the Slurm job,
``hafabench-<experiment>_<uuid>``, and by the folder of its log, ``logs/slurm/<experiment>``.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import yaml

from hafabench.config.experiment import Experiment
from hafabench.config.site import SITE_VARIABLE, GpuPool, Site
from hafabench.runs.jobs import Job, JobList, path_argument
from hafabench.runs.resources import Resources

if TYPE_CHECKING:
    from hafabench.runs.state import JobState

LOCAL_PROFILE, SLURM_PROFILE = "workflow/profiles/local", "slurm"
# The names of this project's executor and of the official one, on which it is built.
SLURM_EXECUTOR, OFFICIAL_SLURM_EXECUTOR = "hafabench-slurm", "slurm"
# The program of a driver.
PROGRAM = "snakemake"
# The target of a complete run.
ALL = "all"
# The folder that contains the output of Slurm jobs, in a folder per experiment.
SLURM_LOGS = Path("logs/slurm")
# The names of all resources that `executor_resources` may return.
RESOURCE_NAMES = (
    *("nodes", "cpus_per_task", "mem_mb", "runtime", "gpu", "gpu_model"),
    *("gres", "mpi", "tasks", "tasks_per_gpu"),
)
# The option that repeats chosen jobs.
FORCE_OPTION = "--forcerun"
# Options with which a driver repeats finished jobs; some are followed by files or rules.
_FORCE, _FORCE_SOME = ("-f", "--force", "-F", "--forceall"), ("-R", FORCE_OPTION)
# Options that select the experiment, as far as users must write them.
_CONFIGURATION_FILE, _PROFILE = "--configf", "--profile"
# The experiment that the Snakefile reads if no other one is selected.
_DEFAULT_EXPERIMENT = "configs/digits.yaml"
# Environment variables that select files which a driver reads.
_SELECT_FILES = (SITE_VARIABLE, "SNAKEMAKE_PROFILE")
# A word of a command line for the shell.
_WORD = r"""(?:[^\s'"]|'[^']*'|"[^"]*")+"""
_WILDCARD = re.compile(r"\{\s*[.\w]+\s*[,}]")
_LOCKS = Path(".snakemake/locks")
_INCOMPLETE = Path(".snakemake/incomplete")
_COMMENT_PREFIX = "rule_"
# The name of a Slurm job begins with this text and the experiment. The executor appends a UUID that all jobs of one
# driver share, and accepts no more characters than these before it.
_JOB_NAME = "hafabench-"
_MAX_JOB_NAME_PREFIX = 50
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


# -- command lines ----------------------------------------------


def workflow_command(
    experiment: Experiment,
    targets: Sequence[str | Path] = (ALL,),
    forced: Sequence[str] = (),
    retries: int | None = None,
    on_cluster: bool | None = None,
) -> str:
    """The command line that makes ``targets``.

    Args:
        experiment: The experiment that the targets belong to.
        targets: Files or rules.
        forced: Files or rules that are made again although they are up to date.
        retries: The number of attempts after the first; None uses that of the profile.
        on_cluster: Whether to use the profile for Slurm; by default, whether the experiment uses GPUs.
    """
    # Targets come first, because an option that takes several values would take them as well.
    words = ["snakemake", *map(str, targets), *([FORCE_OPTION, *forced] if forced else [])]
    is_slurm = experiment.config.uses_gpus if on_cluster is None else on_cluster
    profile = SLURM_PROFILE if is_slurm else LOCAL_PROFILE
    words += ["--profile", profile, "--configfile", path_argument(experiment.file)]
    return shlex.join(words if retries is None else [*words, "--retries", str(retries)])


@dataclass(frozen=True)
class Profile:
    """What a profile sets; None for what it does not set.

    Attributes:
        file: The file of the profile.
        jobs: The largest number of jobs that are submitted at a time.
        retries: The number of attempts after the first.
    """

    file: Path
    jobs: int | None
    retries: int | None


def slurm_profile(folder: Path = Path()) -> Profile | None:
    """The Slurm profile of the workflow in ``folder``; None if there is none that can be read."""
    file, written = _profile_settings(folder / SLURM_PROFILE)
    if file is None:
        return None
    numbers = {name: written.get(name) for name in ("jobs", "retries")}
    return Profile(file, **{name: value if isinstance(value, int) else None for name, value in numbers.items()})


def _profile_settings(profile: Path) -> tuple[Path | None, dict[str, Any]]:
    """The file of a profile and what it sets; None and nothing if it cannot be read."""
    # Snakemake prefers the file for the highest release, as in config.v9+.yaml.
    files = sorted(profile.glob("config*.yaml"), key=lambda path: (path.stem != "config", path.name))
    try:
        written = yaml.safe_load(files[-1].read_text())
    except (IndexError, OSError, ValueError, yaml.YAMLError):
        return None, {}
    return (files[-1], written) if isinstance(written, dict) else (None, {})


def repeated_command(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> str:
    """The command line of a driver without the options that force jobs, with which it would repeat finished jobs.

    Args:
        arguments: The program and its arguments, as in `sys.argv`.
        environment: The environment variables of the driver. The command line sets those that select files.
    """
    assigned = [f"{name}={shlex.quote(environment[name])}" for name in _SELECT_FILES if environment.get(name)]
    words: list[str] = []
    is_forced = False
    for word in arguments[1:]:
        if word.startswith("-"):
            is_forced = word in _FORCE or word.partition("=")[0] in _FORCE_SOME or re.match(r"-R.", word) is not None
            if is_forced:
                is_forced = word in _FORCE_SOME
                continue
        if not is_forced:
            words.append(word)
    return " ".join([*assigned, shlex.join([PROGRAM, *words])])


def unlock_command(experiment: Path, snakefile: Path | None = None) -> list[str]:
    """The command that removes the lock of the workflow in a folder."""
    command = [sys.executable, "-m", "snakemake", "--unlock", "--cores", "1"]
    command += ["--configfile", path_argument(experiment)]
    return [*command, "--snakefile", path_argument(snakefile)] if snakefile else command


def submits_to_slurm(executor: str) -> bool:
    """Whether a driver with the executor of this name submits Slurm jobs."""
    return executor in (SLURM_EXECUTOR, OFFICIAL_SLURM_EXECUTOR)


def executor_advice(executor: str) -> str | None:
    """A sentence for users of Snakemake's official Slurm executor; None with any other one."""
    if executor != OFFICIAL_SLURM_EXECUTOR:
        return None
    return (
        f"the executor {OFFICIAL_SLURM_EXECUTOR!r} may wait for ever when Slurm does not answer, and fails jobs that "
        f"Slurm refuses for a while; `--profile {SLURM_PROFILE}` selects {SLURM_EXECUTOR!r}, which does neither"
    )


def can_be_input(path: Path) -> bool:
    """Whether a rule can name this file as input. Snakemake takes ``{name}`` for a wildcard, and has no escape."""
    return _WILDCARD.search(str(path)) is None


def submission_problems(experiment: Path, snakefile: Path) -> list[str]:
    """Sentences about paths that the Slurm executor cannot hand to a job; empty if there are none.

    The executor hands a command line to sbatch in double quotes, in which a shell replaces dollar signs, backticks
    and backslashes. It does not quote the path of Python, and quotes that of the Snakefile as Python does. sbatch
    replaces ``%j`` and similar symbols in the path of the job's output, which is below the working folder
    (https://slurm.schedmd.com/sbatch.html, "filename pattern").
    """
    python = Path(sys.executable)
    unfit = [] if shlex.quote(str(python)) == str(python) else [("Python", python, "spaces or special characters")]
    for what, path in (("the Snakefile", snakefile.absolute()), ("the experiment file", experiment.absolute())):
        if re.search(r"[$`\\\n]", str(path)):
            unfit.append((what, path, "$, ` or \\"))
    text = str(snakefile.absolute())
    if "'" in text and '"' in text:
        unfit.append(("the Snakefile", snakefile.absolute(), "both kinds of quotation marks"))
    elif not text.isprintable():
        unfit.append(("the Snakefile", snakefile.absolute(), "a character that is not printable"))
    if re.search(r"%[AaJjNnstuxb%0-9]|\\", str(Path.cwd())):
        unfit.append(("the working folder", Path.cwd(), "% with a letter that Slurm replaces, or \\"))
    return [
        f"{path}: the Slurm executor of Snakemake cannot hand the path of {what} to a job, because it contains "
        f"{why}; rename the file or folder"
        for what, path, why in unfit
    ]


# -- what runs again ----------------------------------------------


@dataclass(frozen=True)
class Reruns:
    """What a driver runs again, as decided by `hafabench.runs.state`.

    Snakemake itself compares times of files, and parameters with its own metadata. A copy may have other times and no
    metadata, so neither decides here.

    Attributes:
        current: The ids of the jobs that are done. No input repeats them: changed times of inputs do not count, and
            lost ones are not made again for them.
        forced: Files that exist and are made again.
    """

    current: frozenset[str]
    forced: frozenset[str]

    def inputs(self, job: Job, ancient: Callable[[str], str]) -> list[str]:
        """The inputs of a job that Snakemake is told.

        Args:
            job: The job.
            ancient: Snakemake's function that marks an input whose time does not count.
        """
        named = list(filter(can_be_input, job.inputs))
        if job.id not in self.current:
            return list(map(str, named))
        return [ancient(str(path)) for path in named if path.exists()]

    def targets(self, jobs: JobList) -> list[str]:
        """The files of a complete run, without lost outputs that are not made again."""
        current = [path for path in jobs.targets if jobs.writer(path) in self.current]
        lost = {path for path in current if not path.exists()}
        return [str(path) for path in jobs.targets if path not in lost]


def decide_reruns(
    jobs: JobList, states: Mapping[str, JobState], settings: Any, incomplete: Iterable[Path] = ()
) -> Reruns:
    """Decide what a driver runs again.

    Args:
        jobs: The jobs of an experiment.
        states: The states of their outputs (`hafabench.runs.state.output_states`).
        settings: Snakemake's settings of the graph (`DAGSettings`), which contain what the user forces. Jobs that
            depend on a forced one run again as well.
        incomplete: The outputs that Snakemake has marked as incomplete, and makes again if they exist.
    """
    again: set[str] = set()
    asked = set(map(str, settings.forcerun)) | (set(map(str, settings.targets)) if settings.forcetargets else set())
    forced_files = {os.path.relpath(name) for name in asked} | {str(path) for path in incomplete if path.exists()}
    for job in (*jobs.values(), *jobs.optional.values()):
        is_forced = settings.forceall or job.rule in asked or any(str(path) in forced_files for path in job.outputs)
        if is_forced or not again.isdisjoint(job.needs):
            again.add(job.id)
    current = {name for name, state in states.items() if state.outputs == "done" and name not in again}
    # A job is forced if any of its outputs is. Missing outputs are made anyway, if they are needed.
    others = (state.job for state in states.values() if state.outputs != "done")
    forced = {str(path) for job in others for path in job.outputs if path.exists()}
    return Reruns(frozenset(current), frozenset(forced))


# -- drivers and locks ----------------------------------------------


def hang_up_like_sigterm() -> None:
    """Make the driver treat a lost connection (SIGHUP) like SIGTERM, for which Snakemake has a handler.

    Otherwise it would end at once and leave its lock. SIGHUP stays ignored if nohup started the driver.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda _number, _frame: os.kill(os.getpid(), signal.SIGTERM))


def is_locked(folder: Path) -> bool:
    """Whether a driver has locked the folder; a driver that was killed leaves the lock behind."""
    locks = folder / _LOCKS
    return locks.is_dir() and any(locks.iterdir())


def incomplete_outputs(folder: Path) -> list[Path]:
    """The outputs that Snakemake has marked as incomplete, whether or not they exist, relative to ``folder``.

    Snakemake marks the outputs of a job while the job runs. After a driver was killed, the next one deletes marked
    outputs and repeats their jobs.
    """
    return [output for output, _ in _marks(folder)]


def forget_incomplete(folder: Path, outputs: Iterable[Path]) -> list[Path]:
    """Remove the marks of outputs that are complete, and return the existing outputs that were marked.

    Args:
        folder: The working folder of the workflow.
        outputs: Files relative to ``folder``, as the rules name them.
    """
    complete, found = set(outputs), []
    for output, mark in _marks(folder):
        if output in complete:
            mark.unlink(missing_ok=True)
            if (folder / output).exists():
                found.append(output)
    return sorted(found)


def used_slurm(folder: Path) -> bool:
    """Whether a driver in ``folder`` has submitted Slurm jobs that are not known to be over."""
    # The file of a mark contains the id of the Slurm job.
    has_id = any(b'"external_jobid": "' in mark.read_bytes() for _, mark in _marks(folder))
    return has_id or (folder / SLURM_LOGS).is_dir()


def _marks(folder: Path) -> list[tuple[Path, Path]]:
    """The outputs that are marked as incomplete, each with the file that marks it."""
    root, found = folder / _INCOMPLETE, []
    for mark in root.rglob("*"):
        # The name is the output's in base64. Long names are cut into folders, whose names begin with "@".
        parts = mark.relative_to(root).parts
        if not mark.is_file() or any(not part.startswith("@") for part in parts[:-1]):
            continue
        try:
            name = base64.urlsafe_b64decode("".join(part.removeprefix("@") for part in parts)).decode()
        except ValueError:
            # A file that is no mark, such as one that Snakemake writes while it changes the layout of this folder.
            continue
        found.append((Path(name), mark))
    return found


def driver_processes(folder: Path) -> list[int]:
    """The ids of the drivers on this machine that run the workflow in ``folder``."""
    return list(experiments_of_drivers(folder))


def experiments_of_drivers(folder: Path) -> dict[int, Path | None]:
    """The ids of the drivers on this machine that run the workflow in ``folder``, each with its experiment file.

    The file is None if the command line of the driver does not tell it.
    """
    root, found, parents = folder.resolve(), {}, set()
    # psutil gives None if the operating system does not show the value, as of another user's process.
    for process in psutil.process_iter(["cmdline", "cwd", "ppid"]):
        words, working_folder = process.info["cmdline"], process.info["cwd"]
        is_here = working_folder is not None and Path(working_folder).resolve() == root
        if is_here and words and _is_driver(words) and process.pid != os.getpid():
            found[process.pid] = _file_of_driver(words, root)
            parents.add(process.info["ppid"])
    # A parent is a program such as `timeout` that has started the driver.
    return {process: file for process, file in sorted(found.items()) if process not in parents}


def _file_of_driver(words: Sequence[str], folder: Path) -> Path | None:
    """The experiment file that the command line of a driver names itself or by its profile."""
    file = _last_value(words, _CONFIGURATION_FILE)
    profile = _last_value(words, _PROFILE)
    if file is None and profile is not None:
        file = _profile_settings(folder / profile)[1].get("configfile")
    if file is None and (folder / _DEFAULT_EXPERIMENT).is_file():
        file = _DEFAULT_EXPERIMENT
    return folder / file if isinstance(file, str) else None


def _last_value(words: Sequence[str], option: str) -> str | None:
    """The last value of an option that takes one or several, of its last occurrence; None if it does not occur.

    Args:
        words: A command line.
        option: The beginning of the option's long name, which matches no other option of Snakemake.
    """
    value, is_value = None, False
    for word in words:
        if word.startswith("-"):
            name, _, after = word.partition("=")
            is_value = name.startswith(option) and not after
            value = after if name.startswith(option) and after else value
        elif is_value:
            value = word
    return value


def end_snakemake_of_slurm_job() -> None:
    """Kill the processes of Snakemake in this Slurm job and on this node, if this process runs in one.

    After the command of a job has failed, they delete the outputs of the job. These must not be deleted if another
    process has taken the job over and may have made them meanwhile.
    """
    own = _slurm_attempt(os.environ)
    if own[0] is None:
        return
    found = []
    for process in psutil.process_iter(["cmdline", "create_time"]):
        if _is_snakemake(process.info["cmdline"] or []) and "--mode" in process.info["cmdline"]:
            with suppress(psutil.Error, OSError):
                if _slurm_attempt(process.environ()) == own:
                    found.append((process.info["create_time"], process.pid))
    # The first one would notice the end of the second one, and delete the outputs as well.
    for _, pid in sorted(found):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _slurm_attempt(environment: Mapping[str, str]) -> tuple[str | None, ...]:
    """The Slurm job, the node, and how often the job was queued again."""
    return tuple(map(environment.get, ("SLURM_JOB_ID", "SLURMD_NODENAME", "SLURM_RESTART_COUNT")))


def _is_driver(words: list[str]) -> bool:
    # Jobs run the same program with `--mode`.
    return _is_snakemake(words) and "--mode" not in words


def _is_snakemake(words: list[str]) -> bool:
    return "snakemake" in [Path(word).name for word in words[:3]]


# -- the Slurm executor ----------------------------------------------


def comment(rule: str, wildcards: Iterable[str] = ()) -> str:
    """The comment of the Slurm jobs of a rule, given the values of its wildcards."""
    joined = "_".join(wildcards).replace("/", "_")
    return f"{_COMMENT_PREFIX}{rule}_wildcards_{joined}" if joined else f"{_COMMENT_PREFIX}{rule}"


def is_job_comment(text: str) -> bool:
    """Whether a Slurm job with this comment was submitted by a driver."""
    return text.startswith(_COMMENT_PREFIX)


def without_prefix(job_comment: str) -> str:
    """A comment for display: the rule and the wildcards."""
    return job_comment.removeprefix(_COMMENT_PREFIX)


def jobs_by_comment(jobs: JobList) -> dict[str, Job]:
    """Every job of an experiment by the comment of its Slurm jobs; optional jobs come last."""
    every = (*jobs.values(), *jobs.optional.values())
    return {comment(job.rule, job.wildcards.values()): job for job in every}


def slurm_log_folder(experiment: str, job: Job) -> Path:
    """The folder that contains the output of the Slurm jobs that were submitted for a job of an experiment.

    Earlier versions had no folder per experiment. Their logs are ignored, because nothing tells their experiment.
    """
    rule, _, wildcards = comment(job.rule, job.wildcards.values()).partition("_wildcards_")
    return SLURM_LOGS / experiment / rule / wildcards


def slurm_log(experiment: str, job: Job) -> Path | None:
    """The output of the last Slurm job that was submitted for a job of an experiment; None if there is none."""
    logs = [path for path in slurm_log_folder(experiment, job).glob("*.log") if path.stem.isdecimal()]
    return max(logs, key=lambda path: int(path.stem), default=None)


def name_slurm_jobs(settings: Any, experiment: str) -> None:
    """Make the executor of a driver name Slurm jobs and their logs after an experiment.

    Args:
        settings: Snakemake's settings of the executor; nothing is changed if they are not those of a Slurm executor.
        experiment: The name of the experiment.
    """
    if hasattr(settings, "jobname_prefix") and hasattr(settings, "logdir"):
        settings.jobname_prefix = job_name_prefix(experiment)
        settings.logdir = SLURM_LOGS / experiment


def job_name_prefix(experiment: str) -> str:
    """The beginning of the names of an experiment's Slurm jobs, which no other experiment shares.

    The executor allows letters, digits, hyphens and underscores, and limits the length. Other names of experiments
    are shortened, and a digest distinguishes them.
    """
    room = _MAX_JOB_NAME_PREFIX - len(_JOB_NAME)
    if len(experiment) <= room and re.fullmatch(r"[A-Za-z0-9_-]+", experiment):
        return _JOB_NAME + experiment
    digest = hashlib.sha256(experiment.encode()).hexdigest()[:8]
    shortened = re.sub(r"[^A-Za-z0-9_-]", "-", experiment)[: room - len(digest) - 1]
    return f"{_JOB_NAME}{shortened}-{digest}"


def names_experiment(job_name: str) -> bool:
    """Whether the name of a Slurm job tells its experiment; earlier versions gave all jobs the same name."""
    return job_name.startswith(_JOB_NAME)


def is_submitted_for(experiment: Experiment, job_name: str, submit_line: str, folder: Path) -> bool:
    """Whether a Slurm job was submitted for an experiment, as far as it is known.

    Args:
        experiment: The experiment.
        job_name: The name of the Slurm job.
        submit_line: The command line of its submission, which is looked at if the name does not tell the experiment;
            may be empty.
        folder: The working folder of the Slurm job.
    """
    if names_experiment(job_name):
        return re.fullmatch(f"{re.escape(job_name_prefix(experiment.name))}(?:_{_UUID})?", job_name) is not None
    file = experiment_of(submit_line)
    return file is None or (folder / file).resolve() == (folder / experiment.file).resolve()


def experiment_label(job_name: str, folder: Path) -> str | None:
    """The experiment that a Slurm job of a folder was submitted for, for display; None if the name does not tell it.

    Args:
        job_name: The name of the Slurm job.
        folder: The working folder of the Slurm job.
    """
    if not names_experiment(job_name):
        return None
    prefix = re.sub(f"_{_UUID}$", "", job_name)
    known = (path.name for path in (folder / SLURM_LOGS).glob("*") if path.is_dir())
    return next((name for name in known if job_name_prefix(name) == prefix), prefix.removeprefix(_JOB_NAME))


def experiment_of(submit_line: str) -> str | None:
    """The experiment file that a Slurm job was submitted with: the last one after ``--configfiles``.

    The result is None if the line names no file, or if Slurm has not stored it.
    """
    match = re.search(rf"--configfiles?((?:\s+(?!-){_WORD})+)", submit_line.replace("\\", ""))
    # Quoted parts of a word may contain spaces, and the quotes need not surround the whole word.
    words = re.findall(_WORD, match.group(1)) if match else []
    return re.sub(r"'([^']*)'|\"([^\"]*)\"", r"\1\2", words[-1]) if words else None


def site_resources(site: Site, gpus: int = 0) -> dict[str, str]:
    """The resources of the Slurm executor that choose the nodes and the account of a job with ``gpus`` GPUs.

    They do not change a result, and other executors ignore them.
    """
    pool = site.pool(gpus)
    resources = {
        "slurm_account": site.account,
        "slurm_partition": pool.partition,
        "constraint": pool.constraint,
        "qos": pool.qos,
        "slurm_extra": pool.extra,
        "gpu_model": pool.gpu_type if isinstance(pool, GpuPool) else None,
    }
    return {name: value for name, value in resources.items() if value is not None}


def executor_resources(request: Resources, site: Site) -> dict[str, int | str]:
    """A request as resources of the Slurm executor, all of them among `RESOURCE_NAMES`."""
    found: dict[str, int | str] = {"nodes": request.nodes, "cpus_per_task": request.cpus, "mem_mb": request.mem_mb}
    found["runtime"] = request.runtime
    kind = site.gpu.gpu_type if request.gpus else None
    if request.nodes == 1:
        return found | {"gpu": request.gpus} | ({"gpu_model": kind} if kind else {})
    # GPUs that are requested for the whole job might be spread unevenly over its nodes; these are counted per node.
    # "mpi" keeps the executor from starting the job's command itself, on one node only: `launcher` starts it.
    gres = f"gpu:{kind}:{request.gpus_per_node}" if kind else f"gpu:{request.gpus_per_node}"
    return found | {"gres": gres, "mpi": "srun", "tasks": request.nodes, "tasks_per_gpu": 0}


def limit_submitted_jobs(workflow: Any, site: Site) -> None:
    """Let the driver have no more jobs in Slurm at a time than the site file allows.

    Snakemake counts them as the resource ``_nodes``, which has the value of ``--jobs``. A lower value stays.

    Args:
        workflow: Snakemake's workflow.
        site: The site, whose ``max_submitted_jobs`` is the limit.
    """
    jobs = workflow.global_resources["_nodes"].value
    if site.max_submitted_jobs is not None and jobs is not None:
        workflow.global_resources["_nodes"] = min(jobs, site.max_submitted_jobs)


def launcher(request: Resources) -> str:
    """The prefix that starts a command once on every node of the job; empty for a single node."""
    if request.nodes == 1:
        return ""
    step = f"--nodes={request.nodes} --ntasks={request.nodes} --ntasks-per-node=1"
    each = f"--cpus-per-task={request.cpus} --gres=gpu:{request.gpus_per_node}"
    return f"srun --jobid=$SLURM_JOB_ID --overlap {step} {each} --kill-on-bad-exit=1 "
