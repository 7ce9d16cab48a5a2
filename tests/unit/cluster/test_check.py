"""Checks of a site file against recorded outputs of Slurm's commands."""

from __future__ import annotations

import subprocess

import pytest

from hafabench.cluster.check import check_cluster
from hafabench.cluster.commands import CommandFailed
from hafabench.cluster.nodes import gpus_of_gres
from hafabench.config.experiment import load_experiment
from hafabench.config.site import GpuPool, Pool, Site
from tests.support.messages import missing_facts
from tests.support.slurm_commands import RecordedCommands

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


class Cluster(RecordedCommands):
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


def problems(experiment, cluster: RecordedCommands | None = None, probe: bool = False, **changes) -> list[str]:
    site = Site(**({"account": "vision", "gpu": GPU, "cpu": CPU} | changes))
    found = check_cluster(experiment, site, probe=probe, runner=cluster or Cluster())
    return [f"{finding.about}: {finding.sentence}" for finding in found if finding.level == "problem"]


def test_a_right_site_has_no_problem(paper):
    cluster = Cluster()
    assert problems(paper, cluster) == []
    submitted = [command for command in cluster.calls if command[0] == "sbatch"]
    assert len(submitted) == 2
    assert all("--test-only" in command for command in submitted)
    assert "--gpus=a100:8" in submitted[1] and "--gpus" not in " ".join(submitted[0])


def test_several_nodes_are_asked_for_as_the_workflow_does(paper):
    cluster = Cluster()
    assert problems(paper, cluster, gpu=pool(GPU, gpus=4, max_nodes=2)) == []
    _, asked = (command for command in cluster.calls if command[0] == "sbatch")
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
    assert "account: partition gpu accepts speech, vision, not 'physics'" in problems(
        paper, cluster, account="physics"
    )


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
    assert problems(paper, RecordedCommands({})) == ["Slurm: sinfo: not found; this machine has no Slurm commands"]


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


@pytest.mark.parametrize(
    ("retries", "about", "facts"),
    [
        (
            "0",
            "retries",
            ("problem", "2 attempts of 24 h", "`retries: 0` of slurm/config.yaml allows 1", "--retries 4"),
        ),
        ("1", "gpu.max_hours", ("note", "2 attempts of 24 h", "allows 2")),
        ("many", "gpu.max_hours", ("note", "keep the profile's `retries` above this number")),
    ],
)
def test_the_attempts_of_long_trainings_are_compared_with_the_profile(paper, tmp_path, retries, about, facts):
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/config.yaml").write_text(f"jobs: 100\nretries: {retries}\n")
    ((sentence, level),) = levels(paper, Cluster(), about).items()
    assert not missing_facts(f"{level} {sentence}", *facts)
    assert levels(paper, Cluster(), {"retries": "gpu.max_hours", "gpu.max_hours": "retries"}[about]) == {}


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
        (answered(cuda="False"), "gpu node: torch finds no GPU on g1"),
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


def test_a_probe_that_slurm_refuses_for_now_is_a_note(paper):
    class Full(Cluster):
        def __call__(self, arguments, timeout):
            if arguments[0] == "srun":
                raise CommandFailed("srun ...: x", "srun: error: QOSMaxSubmitJobPerUserLimit")
            return super().__call__(arguments, timeout)

    site = Site(account="vision", gpu=GPU, cpu=CPU)
    found = [one for one in check_cluster(paper, site, runner=Full()) if one.about.endswith(" node")]
    assert [one.level for one in found] == ["note", "note"]
    assert all("QOSMaxSubmitJobPerUserLimit" in one.sentence for one in found)


def test_the_probe_is_bounded_and_asks_like_the_jobs(paper):
    cluster = Cluster(srun=answered())
    problems(paper, cluster, probe=True)
    cpu, gpu = (command for command in cluster.calls if command[0] == "srun")
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


def levels(experiment, cluster: RecordedCommands, about: str, **changes) -> dict[str, str]:
    site = Site(**({"account": "vision", "gpu": GPU, "cpu": CPU} | changes))
    found = check_cluster(experiment, site, probe=False, runner=cluster)
    return {finding.sentence: finding.level for finding in found if finding.about == about}


@pytest.mark.parametrize("answer", ["", "\n", "|\n", "|normal\n"])
def test_an_empty_answer_of_sacctmgr_leaves_the_decision_to_sbatch(paper, answer, monkeypatch):
    monkeypatch.setenv("LOGNAME", "root")
    cluster = Cluster(sacctmgr=answer)
    assert levels(paper, cluster, "account") == {
        "sacctmgr shows no association of user root with an account; sbatch tests below whether 'vision' can be charged": "note"  # noqa: E501
    }
    assert len([command for command in cluster.calls if command[0] == "sbatch"]) == 2
    assert problems(paper, Cluster(sacctmgr=answer)) == []


def test_upper_and_lower_case_of_accounts_and_qualities_of_service_are_the_same(paper):
    found = levels(paper, Cluster(), "account", account="Vision")
    assert found == {"'Vision' is stored as 'vision', which is the same to Slurm": "note"}
    assert problems(paper, account="Vision", gpu=pool(GPU, qos="Long")) == []
    partitions = PARTITIONS.replace("vision,speech", "Vision,SPEECH")
    assert problems(paper, Cluster(scontrol=partitions)) == []


def test_sbatch_is_asked_although_sacctmgr_does_not_show_the_account(paper):
    cluster = Cluster(scontrol=PARTITIONS.replace("vision,speech", "ALL"))
    (problem,) = problems(paper, cluster, account="physics")
    assert "no association with 'physics'" in problem
    assert len([command for command in cluster.calls if command[0] == "sbatch"]) == 2


@pytest.mark.parametrize(
    ("limit", "is_too_short"),
    [
        ("UNLIMITED", False),
        ("", False),
        ("NONE", False),
        ("1-00:00:00", False),
        ("2-0", False),
        ("24:00:00", False),
        ("1440", False),
        ("23:59:59", True),
        ("0-12:00", True),
        ("720", True),
        ("30:00", True),
    ],
)
def test_limits_of_partitions_as_slurm_writes_them(paper, limit, is_too_short):
    cluster = Cluster(scontrol=PARTITIONS.replace("MaxTime=2-00:00:00", f"MaxTime={limit}"))
    assert any("gpu.max_hours" in problem for problem in problems(paper, cluster)) == is_too_short


def test_partitions_without_nodes_and_lines_that_are_none(paper, monkeypatch):
    monkeypatch.setitem(NODES, "gpu", "")
    assert "gpu.partition: sinfo shows no node of gpu" in problems(paper)
    monkeypatch.setitem(NODES, "gpu", "sinfo: a warning\ng1|idle|64+|515000+|gpu:a100:8|(null)\n")
    assert problems(paper) == []


def test_accounts_of_a_partition_may_be_missing(paper):
    for accounts in ("(null)", "", ","):
        assert problems(paper, Cluster(scontrol=PARTITIONS.replace("vision,speech", accounts))) == []


def test_a_user_without_a_name(paper, monkeypatch):
    def nobody():
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert problems(paper) == []


def test_a_path_that_jobs_cannot_be_given_is_a_problem(write_experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_experiment(base="paper").rename(tmp_path / "$mine.yaml")
    assert any(sentence.startswith("paths: ") for sentence in problems(load_experiment(path)))
