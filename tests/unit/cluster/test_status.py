"""Status, recovery and checks with recorded answers of Slurm's commands, and without Slurm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hafabench.cluster.check import check_cluster
from hafabench.cluster.commands import CommandFailed, run
from hafabench.cluster.nodes import gpus_of_gres
from hafabench.cluster.queue import live_jobs
from hafabench.cluster.recover import recover
from hafabench.cluster.status import experiment_status, render, render_failed
from hafabench.config.experiment import load_experiment
from hafabench.config.site import GpuPool, Pool, Site
from hafabench.errors import UserError
from hafabench.files import write_text
from hafabench.runs.jobs import JobList
from hafabench.runs.run import expand
from hafabench.runs.snakemake import driver_processes, is_locked
from tests.support.experiments import evaluated, fixed_length
from tests.support.slurm_commands import Answers

RUN = "classification/pvt_tiny/seed0"
COMMENT = "rule_train_run_wildcards_classification_pvt_tiny_0"


@pytest.fixture
def digits(write_experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return load_experiment(write_experiment(fixed_length))


@pytest.fixture
def tiny(digits):
    return expand(digits)[RUN]


def begin(run, step: int = 32) -> None:
    """A training under its present configuration that has reported one step."""
    run.work.mkdir(parents=True)
    write_text(run.folder / "config.json", json.dumps(run.resolved()))
    entry = {"step": step, "loss": 2.0, "epoch": 1.0, "images_per_s": 41.52, "eta_s": 4000.0}
    run.history.write_text(json.dumps(entry) + "\n")
    old = time.time() - 3600
    os.utime(run.history, (old, old))


def queue(*lines: str) -> Answers:
    return Answers({"squeue": "".join(f"{line}\n" for line in lines), "scancel": ""})


def line(
    job: int, state: str, folder: Path, comment: str = COMMENT, reason: str = "None", node: str = "node1"
) -> str:
    return f"{job}|hafabench_x|{state}|{reason}|{node}|1:02:03|1-00:00:00|{comment}|{folder}"


def states(experiment, answers) -> dict[str, tuple[str, str]]:
    found = experiment_status(experiment, runner=answers).jobs
    return {status.job.id: (status.state, status.detail) for status in found}


# -- queue ----------------------------------------------


def test_live_jobs_are_the_workflows_of_this_folder(tmp_path):
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "link"
    elsewhere.mkdir()
    link.symlink_to(tmp_path)
    answers = queue(
        line(12, "PENDING", link, reason="Priority", node=""),
        line(9, "RUNNING", tmp_path),
        line(10, "RUNNING", elsewhere),
        line(11, "RUNNING", tmp_path, comment="(null)"),
        "",
    )
    jobs = live_jobs(tmp_path, answers)
    assert [(job.id, job.state, job.is_pending) for job in jobs] == [("9", "RUNNING", False), ("12", "PENDING", True)]
    assert "--me" in answers.asked[0]


# -- status ----------------------------------------------


def test_running_and_queued_jobs(digits, tiny, tmp_path):
    begin(tiny)
    other = "rule_train_run_wildcards_classification_resnet18_0"
    found = states(
        digits,
        queue(line(7, "RUNNING", tmp_path), line(8, "PENDING", tmp_path, other, reason="QOSMaxGRESPerUser", node="")),
    )
    assert found[f"train_run {RUN}"] == ("running", "epoch 1.0 of 4, step 32 of 128, 41.5 images/s, 1 h 7 min left")
    assert found["train_run classification/resnet18/seed0"] == ("queued", "QOSMaxGRESPerUser")
    assert found["train_run classification/swin_tiny/seed0"] == ("to do", "")


def test_of_two_slurm_jobs_for_one_job_the_running_one_is_shown(digits, tmp_path):
    pending, running = line(7, "PENDING", tmp_path, node=""), line(6, "RUNNING", tmp_path)
    for lines in ((pending, running), (running, pending)):
        assert states(digits, queue(*lines))[f"train_run {RUN}"] == ("running", "no step reported yet")


def test_done_jobs(digits, tiny):
    evaluated(tiny)
    found = states(digits, queue())
    assert found[f"train_run {RUN}"] == found[f"evaluate_run {RUN}"] == ("done", "")


def test_failed_jobs_show_the_reason_and_the_command_to_repeat(digits, tiny):
    begin(tiny)
    (tiny.folder / "train.log").write_text("32/128 loss 2\nerror: data/digits: no such folder\nTraining ended\n")
    status = experiment_status(digits, runner=queue())
    cell = next(one for one in status.jobs if one.job.id == f"train_run {RUN}")
    assert (cell.state, cell.detail) == ("failed", "error: data/digits: no such folder")
    text = render(status)
    assert f"log: {tiny.folder}/train.log" in text
    assert f"again: hafabench train {RUN} --experiment {digits.file}" in text


def test_the_end_of_a_job_is_read_from_slurms_log(digits, tiny):
    begin(tiny)
    (tiny.folder / "train.log").write_text(f"{RUN} 32/128 loss 2\n")
    folder = Path("logs/slurm/rule_train_run/classification_pvt_tiny_0")
    folder.mkdir(parents=True)
    (folder / "9.log").write_text("slurmstepd: error: *** JOB 9 ON node1 CANCELLED AT noon DUE TO PREEMPTION ***\n")
    last = "slurmstepd: error: *** JOB 10 ON node1 CANCELLED AT noon DUE TO TIME LIMIT ***"
    (folder / "10.log").write_text(f"started\n{last}\n")
    assert states(digits, queue())[f"train_run {RUN}"] == ("failed", last)


def test_a_killed_training_is_interrupted_not_failed(digits, tiny):
    begin(tiny)
    (tiny.folder / "train.log").write_text(f"{RUN} 32/128 loss 2\n")
    assert states(digits, queue())[f"train_run {RUN}"][0] == "interrupted"


def test_a_log_that_grows_without_a_slurm_job_is_of_a_running_job(digits, tiny):
    begin(tiny)
    tiny.checkpoint.touch()
    log = tiny.folder / "evaluate.log"
    log.write_text(f"{RUN}: evaluated 16 of 40 images\n")
    comment = COMMENT.replace("train_run", "evaluate_run")
    as_job = states(digits, queue(line(7, "RUNNING", Path.cwd(), comment)))
    assert as_job[f"evaluate_run {RUN}"] == ("running", f"{RUN}: evaluated 16 of 40 images")
    found = {one.job.id: one for one in experiment_status(digits, runner=queue()).jobs}
    cell = found[f"evaluate_run {RUN}"]
    assert (cell.state, cell.detail) == ("running", f"{RUN}: evaluated 16 of 40 images")
    ended = {one.job.id: one for one in experiment_status(digits, runner=queue(), fresh_s=0).jobs}
    assert ended[f"evaluate_run {RUN}"].state == "failed"


def test_failed_jobs_are_named_with_its_log_and_its_command(digits, tiny):
    assert render_failed(experiment_status(digits, runner=queue(), fresh_s=0)) == "no job has failed"
    begin(tiny)
    (tiny.folder / "train.log").write_text(f"{RUN} 32/128 loss 2\n")
    for name in ("data/detection.log", "complexity/detection.log"):
        write_text(digits.results / name, "error: something is wrong\n")
    said = render_failed(experiment_status(digits, runner=queue(), fresh_s=0)).splitlines()
    assert said[0] == "3 failed or interrupted"
    commands = [line.removeprefix("    again: hafabench ") for line in said if "again: " in line]
    option = f"--experiment {digits.file}"
    assert commands == [
        f"data prepare detection {option}",
        f"train {RUN} {option}",
        f"complexity --task detection --format record {option}",
    ]
    assert f"    log: {tiny.folder / 'train.log'}" in said
    assert sum("error: something is wrong" in line for line in said) == 2


def test_an_evaluation_fails_only_after_its_training(digits, tiny):
    begin(tiny)
    (tiny.folder / "evaluate.log").write_text("error: cannot read images\n")
    assert states(digits, queue())[f"evaluate_run {RUN}"] == ("to do", "")
    # The weights are newer than the log: no attempt has been made with them.
    tiny.checkpoint.touch()
    later = time.time() + 1
    os.utime(tiny.checkpoint, (later, later))
    assert states(digits, queue())[f"evaluate_run {RUN}"] == ("to do", "")
    os.utime(tiny.folder / "evaluate.log", (later + 1, later + 1))
    assert states(digits, queue())[f"evaluate_run {RUN}"] == ("failed", "error: cannot read images")


def test_stale_jobs(digits, tiny):
    evaluated(tiny)
    record = json.loads(tiny.record.read_text())
    tiny.record.write_text(json.dumps(record | {"fingerprint": "0" * 12}))
    config = json.loads((tiny.folder / "config.json").read_text())
    config["recipe"]["lr"] = 7.0
    (tiny.folder / "config.json").write_text(json.dumps(config | {"fingerprint": "0" * 12}))
    found = states(digits, queue())
    assert found[f"train_run {RUN}"] == ("stale", "recipe.lr: 7.0 -> 0.001")
    assert found[f"evaluate_run {RUN}"][0] == "stale"


def test_without_slurm_files_are_looked_at(digits, tiny):
    begin(tiny)
    status = experiment_status(digits, runner=Answers({}))
    assert "the queue is not shown: squeue: not found" in render(status)
    assert next(one for one in status.jobs if one.job.id == f"train_run {RUN}").state == "interrupted"
    tiny.history.touch()
    status = experiment_status(digits, runner=Answers({}))
    cell = next(one for one in status.jobs if one.job.id == f"train_run {RUN}")
    assert (cell.state, cell.node) == ("running", "without a Slurm job")


def test_every_job_is_shown_on_request(digits):
    status = experiment_status(digits, runner=queue())
    known = len(JobList(digits))
    assert render(status).splitlines()[0] == f"{known} to do"
    assert len(render(status, everything=True).splitlines()) == 2 + 2 + known
    assert {one.job.id for one in status.jobs} == set(JobList(digits))


# -- driver and recovery ----------------------------------------------


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / ".snakemake/locks/0.input.lock"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def unlocking(lock: Path) -> list[str]:
    return [sys.executable, "-c", f"import pathlib; pathlib.Path({str(lock)!r}).unlink()"]


def test_a_driver_of_this_folder_is_found(tmp_path, digits, lock):
    program = tmp_path / "snakemake"
    program.write_text(f"#!{sys.executable}\nimport sys; print('up', flush=True); sys.stdin.read()\n")
    program.chmod(0o755)
    (tmp_path / "other").mkdir()

    def started(folder: Path, *words: str) -> subprocess.Popen:
        command = [sys.executable, str(program), *words]
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"up\n"
        return process

    driver = started(tmp_path, "all")
    others = [started(tmp_path / "other", "all"), started(tmp_path, "--mode", "remote")]
    try:
        assert driver_processes(tmp_path) == [driver.pid]
        assert f"process {driver.pid}" in experiment_status(digits, runner=queue()).driver
        with pytest.raises(UserError, match=f"process {driver.pid}"):
            recover(tmp_path, unlocking(lock), "cancel", print, queue())
    finally:
        for process in (driver, *others):
            process.communicate()
    assert lock.exists()
    assert driver_processes(tmp_path) == []
    assert "the folder is locked" in experiment_status(digits, runner=queue()).driver


def test_recover_shows_and_leaves_everything(tmp_path, lock):
    answers, said = queue(line(7, "RUNNING", tmp_path), line(8, "PENDING", tmp_path, reason="Priority", node="")), []
    with pytest.raises(UserError, match=r"2 live jobs of this folder; nothing was changed.*--wait.*--cancel"):
        recover(tmp_path, unlocking(lock), "show", said.append, answers)
    assert said == [
        "job 7  train_run_wildcards_classification_pvt_tiny_0  running on node1 for 1:02:03",
        "job 8  train_run_wildcards_classification_pvt_tiny_0  waiting: Priority",
    ]
    assert lock.exists()
    assert [command[0] for command in answers.asked] == ["squeue"]


@pytest.mark.parametrize("mode", ["wait", "cancel"])
def test_recover_unlocks_only_without_live_jobs(tmp_path, lock, mode):
    both = f"{line(7, 'RUNNING', tmp_path)}\n{line(9, 'COMPLETING', tmp_path)}"
    looks = [both, line(9, "COMPLETING", tmp_path), line(9, "COMPLETING", tmp_path), ""]
    cancelled, said = [], []

    def slurm(arguments, timeout: float) -> str:
        assert lock.exists()
        if arguments[0] == "squeue":
            return looks.pop(0)
        cancelled.append(list(arguments))
        return ""

    recover(tmp_path, unlocking(lock), mode, said.append, slurm, every_s=0)
    assert looks == []
    assert not is_locked(tmp_path)
    assert cancelled == ([["scancel", "7", "9"]] if mode == "cancel" else [])
    assert said[-1].startswith("no live jobs; unlocked")


def test_recover_does_nothing_without_the_queue(tmp_path, lock):
    with pytest.raises(CommandFailed, match="squeue: not found"):
        recover(tmp_path, unlocking(lock), "cancel", print, Answers({}))
    assert lock.exists()


def test_a_lock_that_stays_is_an_error(tmp_path, lock):
    with pytest.raises(UserError, match="could not be unlocked: no Snakefile here"):
        recover(tmp_path, [sys.executable, "-c", "print('no Snakefile here')"], "wait", print, queue())


def test_a_folder_that_is_free_already(tmp_path):
    said = []
    recover(tmp_path, ["false"], "show", said.append, queue())
    assert said == ["no live jobs; the folder is not locked"]


# -- commands ----------------------------------------------


def test_commands_fail_with_a_sentence():
    with pytest.raises(CommandFailed, match=r"^no-such-command: not found"):
        run(["no-such-command"])
    with pytest.raises(CommandFailed, match=r"no answer within 0\.2 s") as caught:
        run(["sleep", "5"], 0.2)
    assert caught.value.message == "no answer within 0.2 s"
    with pytest.raises(CommandFailed) as caught:
        run(["sh", "-c", "echo one >&2; echo two >&2; exit 3"])
    assert caught.value.message == "one two"
    assert run(["echo", "hello"]) == "hello\n"


# -- check ----------------------------------------------

PARTITIONS = """\
PartitionName=gpu AllowGroups=ALL AllowAccounts=vision,speech AllowQos=ALL Default=NO MaxTime=2-00:00:00 State=UP Nodes=g[1-2]
PartitionName=cpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=YES MaxTime=UNLIMITED State=UP Nodes=c1
PartitionName=old AllowAccounts=ALL Default=NO MaxTime=12:00:00 State=DRAIN Nodes=o1
"""  # noqa: E501 (as scontrol prints it)
NODES = {
    "gpu": "g1|idle|64|515000|gpu:a100:8(S:0-1)|a100,nvlink\ng2|allocated|64|515000|gpu:a100:8|a100\n",
    "cpu": "c1|mixed|32|128000|(null)|(null)\n",
    "old": "o1|drained|16|64000|gpu:v100:4|(null)\n",
}
ASSOCIATIONS = "vision|normal,long\nspeech|normal\n"


class Cluster(Answers):
    """A healthy cluster in recorded answers; parts can be changed."""

    def __init__(self, **changes: str):
        answers = {
            "sinfo": "slurm 23.11.4",
            "scontrol": PARTITIONS,
            "sacctmgr": ASSOCIATIONS,
            "sbatch": "",
            "srun": "",
        }
        super().__init__(answers | changes)

    def __call__(self, arguments, timeout: float) -> str:
        said = super().__call__(arguments, timeout)
        wanted = [word for word in arguments if word.startswith("--partition=") and arguments[0] == "sinfo"]
        return "".join(NODES[name] for name in wanted[0].partition("=")[2].split(",")) if wanted else said


GPU = GpuPool(partition="gpu", gpu_type="a100", gpus=8, cpus=64, memory_gb=400)
CPU = Pool(partition="cpu", cpus=16, memory_gb=64)


@pytest.fixture
def paper(write_experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return load_experiment(write_experiment(base="paper"))


def problems(experiment, cluster: Answers | None = None, probe: bool = False, **changes) -> list[str]:
    site = Site(**({"account": "vision", "gpu": GPU, "cpu": CPU} | changes))
    found = check_cluster(experiment, site, probe=probe, runner=cluster or Cluster())
    return [f"{finding.about}: {finding.sentence}" for finding in found if finding.level == "problem"]


def test_a_right_site_has_no_problem(paper):
    cluster = Cluster()
    assert problems(paper, cluster) == []
    submitted = [command for command in cluster.asked if command[0] == "sbatch"]
    assert len(submitted) == 2
    assert all("--test-only" in command for command in submitted)
    assert "--gpus=a100:8" in submitted[1] and "--gpus" not in " ".join(submitted[0])


def test_several_nodes_are_asked_for_as_the_workflow_does(paper):
    cluster = Cluster()
    assert problems(paper, cluster, gpu=pool(GPU, gpus=4, max_nodes=2)) == []
    _, asked = (command for command in cluster.asked if command[0] == "sbatch")
    assert {"--nodes=2", "--ntasks=2", "--gres=gpu:a100:4"} <= set(asked)
    assert not any(word.startswith("--gpus") for word in asked)


def pool(base: Pool, **changes) -> Pool:
    return base.model_copy(update=changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gpu": pool(GPU, partition="gpux")}, "gpu.partition: no partition 'gpux'; the cluster has cpu, gpu, old"),
        ({"cpu": pool(CPU, partition="x,cpu")}, "cpu.partition: no partition 'x'; the cluster has cpu, gpu, old"),
        ({"gpu": pool(GPU, gpu_type="h100")}, "gpu.gpu_type: no node of gpu has GPUs of type 'h100'; there are a100"),
        ({"gpu": pool(GPU, partition="cpu")}, "gpu.partition: no node of cpu has GPUs"),
        ({"gpu": pool(GPU, max_hours=72)}, "gpu.max_hours: 3 d, but partition gpu ends jobs after 2 d"),
        (
            {"gpu": pool(GPU, constraint="a100&h200")},
            "gpu.constraint: no node of gpu has a100&h200; features there: a100, nvlink",
        ),
        (
            {"gpu": pool(GPU, partition="old", gpu_type=None, max_hours=12)},
            "gpu.gpus: jobs request 8 GPUs per node, but the largest of old has 4",
        ),
        ({"gpu": pool(GPU, partition="old", gpu_type=None)}, "gpu.partition: partition old is DRAIN"),
        ({"gpu": pool(GPU, partition="old", gpu_type=None)}, "gpu.partition: old: 0 of 1 fitting nodes in service"),
        ({"account": "physics"}, "account: user root has no association with 'physics', only with speech, vision"),
        ({"account": "speech", "gpu": pool(GPU, qos="long")}, "gpu.qos: user root may not use 'long', only normal"),
    ],
)
def test_mistakes_of_a_site(paper, monkeypatch, changes, expected):
    monkeypatch.setenv("LOGNAME", "root")
    said = problems(paper, **changes)
    assert expected in said, said
    assert not any("\n" in sentence for sentence in said)


def test_a_partition_for_other_accounts(paper):
    cluster = Cluster(sacctmgr="physics|normal\n")
    assert "account: partition gpu takes speech, vision, not 'physics'" in problems(paper, cluster, account="physics")


def test_a_constraint_beyond_names_is_left_to_slurm(paper):
    assert problems(paper, gpu=pool(GPU, constraint="[rack1|rack2]")) == []


def test_refusals_by_slurm_are_quoted(paper):
    class Refusing(Cluster):
        def __call__(self, arguments, timeout):
            if arguments[0] == "sbatch":
                raise CommandFailed(
                    "sbatch ...: x", "allocation failure: Requested node configuration is not available"
                )
            return super().__call__(arguments, timeout)

    said = problems(paper, Refusing())
    assert any("allocation failure: Requested node configuration" in sentence for sentence in said)


def test_no_slurm_is_the_only_problem_then(paper):
    assert problems(paper, Answers({})) == ["Slurm: sinfo: not found; this machine has no Slurm commands"]


def test_without_accounting_the_account_is_a_note(paper):
    class Plain(Cluster):
        def __call__(self, arguments, timeout):
            if arguments[0] == "sacctmgr":
                raise CommandFailed("sacctmgr: You are not running a supported accounting_storage plugin")
            return super().__call__(arguments, timeout)

    assert problems(paper, Plain()) == []


def test_a_long_training_is_a_note(paper):
    found = check_cluster(paper, Site(gpu=GPU, cpu=CPU), probe=False, runner=Cluster())
    notes = [finding.sentence for finding in found if finding.about == "gpu.max_hours"]
    assert len(notes) == 1 and "about 2 attempts of 24 h" in notes[0]


def answered(ran: str = "ok", cuda: str = "True", seen: int = 12) -> str:
    lines = ["noise=1", "hafabench-probe:node=g1", *(f"hafabench-probe:path{i}=seen" for i in range(seen))]
    return "\n".join([*lines, f"hafabench-probe:hafabench={ran}", f"hafabench-probe:cuda={cuda}"])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (answered(), None),
        (answered(seen=11), "gpu node: data set coco2017: 1 of 4 paths are not visible from g1, first "),
        (answered(seen=1), "gpu node: environment: 1 of 1 paths are not visible from g1, first "),
        (answered(ran="sh: hafabench: not found"), "gpu node: the environment is not usable on g1: sh: hafabench"),
        (answered(cuda="False"), "gpu node: torch sees no GPU on g1"),
        ("", "gpu node: the environment is not usable on ?: no answer"),
        (answered(cuda=""), None),
    ],
)
def test_problems_found_on_a_compute_node(paper, answer, expected):
    said = problems(paper, Cluster(srun=answer), probe=True)
    if expected is None:
        assert said == []
    else:
        assert any(sentence.startswith(expected) for sentence in said), said


def test_the_probe_is_bounded_and_asks_like_the_jobs(paper):
    cluster = Cluster(srun=answered())
    problems(paper, cluster, probe=True)
    cpu, gpu = (command for command in cluster.asked if command[0] == "srun")
    assert {"--immediate=60", "--time=3", "--account=vision", "--partition=cpu"} <= set(cpu)
    assert {"--partition=gpu", "--gpus=a100:1"} <= set(gpu)
    # The script itself runs, here as well.
    done = subprocess.run(gpu[gpu.index("sh") :], capture_output=True, text=True, check=True)
    assert "hafabench-probe:path0=seen" in done.stdout
    assert "hafabench-probe:hafabench=ok" in done.stdout


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("gpu:a100:4(S:0-1),gpu:v100:2", {"a100": 4, "v100": 2}),
        ("gpu:2(S:0)", {"": 2}),
        ("gpu", {"": 1}),
        ("shard:8,gpu:a:1", {"a": 1}),
        ("(null)", {}),
    ],
)
def test_gpus_of_nodes(text, gpus):
    assert gpus_of_gres(text) == gpus
