"""A short job that tests whether data, environment and GPU can be used on a compute node."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from hafabench.cluster.commands import CommandFailed, Runner
from hafabench.cluster.findings import Finding
from hafabench.cluster.refusals import classify
from hafabench.config.experiment import Experiment
from hafabench.config.site import GpuPool, Pool, Site
from hafabench.data.paths import required_paths

_PROBE_MINUTES = 3
# The prefix of each answer of the probe.
_PREFIX = "hafabench-probe:"


def node_options(site: Site, pool: Pool) -> list[str]:
    """The options of sbatch and srun that choose the nodes of a site."""
    words = {"account": site.account, "partition": pool.partition, "constraint": pool.constraint, "qos": pool.qos}
    return [f"--{name}={value}" for name, value in words.items() if value] + shlex.split(pool.extra or "")


def probe_node(key: str, site: Site, experiment: Experiment, runner: Runner, wait_s: int) -> Iterator[Finding]:
    """Run a job of a few seconds on a node of a pool and report what is visible there.

    Args:
        key: The pool in the site file, ``gpu`` or ``cpu``.
        site: The site.
        experiment: The experiment whose data and environment are tested.
        runner: Runs Slurm's commands.
        wait_s: How many seconds to wait for a node. If none is free, the finding is a note and no problem.
    """
    pool = site.gpu if key == "gpu" else site.cpu
    command = ["srun", f"--immediate={wait_s}", "--quiet", "--job-name=hafabench-check", "--ntasks=1", "--nodes=1"]
    command += ["--mem=2000", f"--time={_PROBE_MINUTES}", *node_options(site, pool)]
    if isinstance(pool, GpuPool):
        command.append(f"--gpus={pool.gpu_type + ':' if pool.gpu_type else ''}1")
    groups = _paths(experiment)
    paths = [path for group in groups.values() for path in group]
    command += ["sh", "-c", _script(paths, _counting(experiment), experiment.config.uses_gpus and key == "gpu")]
    about = f"{key} node"
    try:
        answer = runner(command, wait_s + _PROBE_MINUTES * 60)
    except CommandFailed as error:
        if re.search(r"busy|[Ii]mmediate|timed out|revoked", error.message):
            yield Finding("note", about, f"none was free within {wait_s} s: data and environment were not tested")
        elif classify(error.message).kind == "now":
            sentence = (
                f"Slurm accepts no test job now, so data and environment were not tested: {error.message[-300:]}"
            )
            yield Finding("note", about, sentence)
        else:
            yield Finding("problem", about, f"a test job did not run: {error.message[-300:]}")
        return
    answers = dict(
        line.removeprefix(_PREFIX).split("=", 1)
        for line in answer.splitlines()
        if line.startswith(_PREFIX) and "=" in line
    )
    node = answers.get("node", "?")
    seen = {path for index, path in enumerate(paths) if answers.get(f"path{index}") == "seen"}
    for name, group in groups.items():
        unseen = [path for path in group if path not in seen]
        if unseen:
            sentence = f"{name}: {len(unseen)} of {len(group)} paths are not visible from {node}, first {unseen[0]}"
            yield Finding("problem", about, sentence)
    ran = answers.get("hafabench", "no answer")
    if ran != "ok":
        yield Finding("problem", about, f"the environment is not usable on {node}: {ran}")
    if answers.get("cuda") == "False":
        yield Finding("problem", about, f"torch finds no GPU on {node}")
    if len(seen) == len(paths) and ran == "ok":
        yield Finding("ok", about, f"{len(paths)} paths are visible from {node}, and hafabench runs there")


def _paths(experiment: Experiment) -> dict[str, list[Path]]:
    """The paths that a job needs: the working folder, the environment, and data that is not generated here."""
    found = {"working folder": [Path.cwd()], "environment": [Path(sys.executable)]}
    for dataset in experiment.config.datasets.values():
        if dataset.generator is None:
            found[f"data set {dataset.name}"] = [path.absolute() for path in required_paths(dataset)]
    weights = {entry.file.absolute(): None for entry in experiment.weights.values()}
    return found | ({"published weights": list(weights)} if weights else {})


def _counting(experiment: Experiment) -> list[str]:
    """A command of a few seconds that needs the whole environment, torch included, started as jobs start it."""
    command = Path(sys.executable).with_name("hafabench")
    words = [str(command)] if command.exists() else [sys.executable, "-m", "hafabench"]
    return [*words, "complexity", "resnet18", "--experiment", str(experiment.file.absolute())]


def _script(paths: list[Path], counting: list[str], cuda: bool) -> str:
    """A shell script for the compute node that prints its answers with the prefix and never fails."""
    lines = [f"echo {_PREFIX}node=${{SLURMD_NODENAME:-$(hostname)}}"]
    for index, path in enumerate(paths):
        lines.append(f"test -e {shlex.quote(str(path))} && echo {_PREFIX}path{index}=seen")
    lines.append(f'answer=$({shlex.join(counting)} 2>&1) && answer=ok || answer=$(echo "$answer" | tail -n 1)')
    lines.append(f'echo "{_PREFIX}hafabench=$answer"')
    if cuda:
        # The answer is empty if torch is installed only in a container image.
        question = shlex.join([sys.executable, "-c", "import torch; print(torch.cuda.is_available())"])
        lines.append(f"echo {_PREFIX}cuda=$({question} 2> /dev/null)")
    return "\n".join([*lines, "true"])
