"""The test cluster itself: it behaves as the other tests expect, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest

from tests.support.slurm_jobs import PATIENCE
from tools.checkout import REPOSITORY
from tools.slurm_cluster import cluster as cluster_module
from tools.slurm_cluster import machine
from tools.slurm_cluster.__main__ import main as command_line
from tools.slurm_cluster.cluster import SlurmCluster
from tools.slurm_cluster.machine import SYSTEM_CONF, ClusterUnavailable, linked_folder, slurm_cgroups, why_unavailable
from tools.slurm_cluster.processes import marked_processes
from tools.waiting import NeverHappened, wait_until


def state_of(cluster: SlurmCluster, job: str, state: str, timeout: float = 30) -> None:
    wait_until(
        lambda: cluster.job(job).state == state, lambda: f"job is {state} ({cluster.job(job)})", timeout=timeout
    )


def nothing_is_left(folder: Path) -> None:
    assert marked_processes(folder) == []
    assert not folder.exists()
    assert not os.path.lexists(SYSTEM_CONF)
    assert slurm_cgroups() == set()


@pytest.fixture
def own_cluster():
    """Creates clusters for one test. These tests run before the session's cluster starts."""
    if reason := why_unavailable():
        pytest.skip(reason)
    return partial(SlurmCluster, nodes=1, patience=PATIENCE)


def test_stopping_removes_everything_while_a_job_runs(own_cluster, tmp_path):
    with own_cluster() as running:
        folder = running.settings.folder
        # A process without the submitter's environment that outlives its parent is the hardest to find.
        hidden = tmp_path / "pid"
        job = running.sbatch(f"env -i setsid sh -c 'echo $$ > {hidden}; sleep 600' & sleep 600")
        state_of(running, job, "RUNNING")
        pid = wait_until(lambda: hidden.exists() and hidden.read_text().strip(), "the job hides", timeout=20)
        assert int(pid) not in marked_processes(folder)
        assert len(marked_processes(folder)) > 4
    nothing_is_left(folder)
    if running.settings.cgroups:
        assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
    else:
        os.kill(int(pid), signal.SIGKILL)


def test_a_failed_start_removes_everything(own_cluster, monkeypatch):
    def broken(settings):
        return "NodeName=nonsense\n"

    monkeypatch.setattr(cluster_module.configuration, "slurm_conf", broken)
    monkeypatch.setattr(
        cluster_module, "wait_until", lambda *a, **options: wait_until(*a, **{**options, "timeout": 2})
    )
    running = own_cluster()
    with pytest.raises(ClusterUnavailable, match=r"did not come up: slurmctld answers: not within 2 s"):
        running.start()
    nothing_is_left(running.settings.folder)


def test_stopping_twice_is_harmless(own_cluster):
    running = own_cluster()
    running.stop()
    running.start()
    running.stop()
    running.stop()
    nothing_is_left(running.settings.folder)


def test_only_one_cluster_runs_and_a_killed_one_is_removed(own_cluster):
    first = own_cluster()
    first.start()
    try:
        with pytest.raises(ClusterUnavailable, match="another session's test cluster runs"):
            own_cluster(patience=0).start()
        with pytest.raises(SystemExit, match="another session's test cluster runs on this machine and ends with it"):
            command_line(["down"])
        assert first.daemons.pid("slurmctld")
        for name in first.daemons.running():
            first.daemons.stop(name, number=signal.SIGKILL)
        # The end of its process would release the lock as well.
        first._lock.release()
        with own_cluster() as second:
            assert second.nodes() == {"node1": "idle"}
            assert not first.settings.folder.exists()
    finally:
        first.stop()


def as_root_with_programs(monkeypatch: pytest.MonkeyPatch, folder: Path, names: Iterable[str]) -> None:
    """Pretend to be root on a machine whose PATH contains these programs and no others."""
    programs = folder / "bin"
    programs.mkdir()
    for name in names:
        (programs / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr("os.geteuid", lambda: 0)


def test_an_existing_slurm_configuration_is_not_touched(tmp_path, monkeypatch):
    existing = tmp_path / "slurm.conf"
    existing.write_text("ClusterName=production\n")
    monkeypatch.setattr(machine, "SYSTEM_CONF", existing)
    as_root_with_programs(monkeypatch, tmp_path, machine.PROGRAMS)
    assert "has its own Slurm" in why_unavailable()
    with pytest.raises(ClusterUnavailable):
        SlurmCluster().start()
    assert existing.read_text() == "ClusterName=production\n"


def test_missing_packages_are_named(monkeypatch, tmp_path):
    installed = {*machine.PROGRAMS, *machine.ACCOUNTING_PROGRAMS} - {"slurmdbd"}
    as_root_with_programs(monkeypatch, tmp_path, installed)
    assert "not installed: slurmdbd;" in why_unavailable(accounting=True)


def test_the_command_starts_and_stops_one_that_outlives_it(own_cluster):
    def command(action: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tools.slurm_cluster", action],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )

    try:
        assert "idle node[1-2]" in command("up").stdout
        folder = linked_folder()
        assert command("env").stdout == f"export SLURM_CONF={folder}/slurm.conf\n"
        said = subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True)
        assert said.stdout == ""
        assert f"error: a test cluster runs in {folder};" in command("up").stderr
    finally:
        assert command("down").returncode == 0
    nothing_is_left(folder)
    assert "no test cluster runs" in command("down").stderr


def test_socket_names_stay_short_in_a_deep_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("deep" * 10)))
    assert machine.short_folder() == "/tmp"


def test_it_listens_on_loopback_only(cluster):
    pids = set(marked_processes(cluster.settings.folder))
    inodes = {}
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").glob("*"):
            target = str(handle.readlink())
            if target.startswith("socket:["):
                inodes[target[8:-1]] = pid
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.append(fields[1].split(":")[0])
    assert len(listening) >= 4
    assert set(listening) == {"0100007F"}


def test_gpus_are_counted(cluster):
    names = cluster.settings.node_names
    jobs = [cluster.sbatch("sleep 600", "--gpus=fake:2", "--nodes=1") for _ in [*names, "one too many"]]
    state_of(cluster, jobs[-2], "RUNNING")
    assert sorted(cluster.job(job).node for job in jobs[:-1]) == names
    wait_until(lambda: cluster.job(jobs[-1]).reason == "Resources", "the last waits for GPUs", timeout=10)


def test_a_job_sees_the_gpus_it_was_given(cluster, tmp_path):
    job = cluster.sbatch(f"echo $CUDA_VISIBLE_DEVICES > {tmp_path}/gpus", "--gpus=2", "--nodes=1")
    state_of(cluster, job, "COMPLETED")
    assert (tmp_path / "gpus").read_text() == "0,1\n"


def test_a_killed_node_ends_its_jobs_and_returns(cluster):
    job = cluster.sbatch("sleep 600", "--requeue", "--nodelist=node1")
    state_of(cluster, job, "RUNNING")
    cluster.node_down("node1")
    assert marked_processes(cluster.settings.folder, SLURMD_NODENAME="node1") == []
    state_of(cluster, job, "PENDING")
    cluster.node_up("node1")
    state_of(cluster, job, "RUNNING")
    assert cluster.details(job)["Restarts"] == "1"


def test_an_unannounced_node_failure_is_detected(cluster):
    cluster.node_down("node2", announce=False)
    assert [name for name, state in cluster.nodes().items() if state == "down"] == ["node2"]


def test_jobs_survive_a_restart_of_the_controller(cluster):
    job = cluster.sbatch("sleep 600")
    state_of(cluster, job, "RUNNING")
    cluster.restart_controller()
    assert cluster.job(job).state == "RUNNING"
    assert cluster.details(job)["Restarts"] == "0"


def test_preemptible_jobs_are_requeued(cluster):
    weak = cluster.sbatch("sleep 600", "--partition=preemptible", "--exclusive", "--nodelist=node3")
    state_of(cluster, weak, "RUNNING")
    strong = cluster.sbatch("sleep 600", "--gpus=2", "--nodelist=node3", "--constraint=only_node3")
    state_of(cluster, strong, "RUNNING")
    assert cluster.job(weak).state == "PENDING"
    cluster.scancel(strong)
    state_of(cluster, weak, "RUNNING")
    assert cluster.details(weak)["Restarts"] == "1"


def test_a_partition_limits_run_time_and_refuses_more_nodes_than_there_are(cluster):
    for options in (("--partition=short", "--time=10"), ("--nodes=9",)):
        with pytest.raises(subprocess.SubprocessError, match=r"Requested time limit|Node count specification"):
            cluster.sbatch("true", *options)


def test_accounting_keeps_comment_and_every_attempt(cluster):
    job = cluster.sbatch("sleep 600", "--comment=rule_train", "--gpus=1", "--requeue")
    state_of(cluster, job, "RUNNING")
    cluster.run("scontrol", "requeue", job)
    state_of(cluster, job, "RUNNING")
    cluster.scancel(job)

    def attempts() -> list[dict[str, str]]:
        rows = cluster.sacct("JobID", "State", "Comment", "AllocTRES", jobs=job)
        return [row for row in rows if row["JobID"] == job]

    wait_until(
        lambda: [row["State"].split()[0] for row in attempts()] == ["REQUEUED", "CANCELLED"],
        lambda: f"both attempts are there ({attempts()})",
        timeout=30,
    )
    assert all(row["Comment"] == "rule_train" and "gres/gpu=1" in row["AllocTRES"] for row in attempts())


def test_a_wait_has_a_time_limit(capsys):
    with pytest.raises(NeverHappened, match=r"^the sky falls: not within 0\.05 s$"):
        wait_until(lambda: False, "the sky falls", timeout=0.05, every=0.01)
    with pytest.raises(NeverHappened, match=r"^the sky falls: it is up there$"):
        wait_until(lambda: False, "the sky falls", timeout=60, give_up=lambda: "it is up there")
    assert wait_until(lambda: 7, "seven", timeout=0) == 7


def test_jobs_of_a_partition_are_cancelled_by_preemption(cluster):
    weak = cluster.sbatch("sleep 600", "--partition=cancelled", "--exclusive", "--nodelist=node3", "--requeue")
    state_of(cluster, weak, "RUNNING")
    cluster.sbatch("sleep 600", "--gpus=2", "--nodelist=node3")
    state_of(cluster, weak, "PREEMPTED")


def test_a_changed_parameter_and_a_limit_are_put_back(cluster):
    before = cluster.run("scontrol", "show", "config")
    with cluster.configure(MinJobAge=30):
        assert re.search(r"MinJobAge +=\s+30 sec", cluster.run("scontrol", "show", "config"))
    assert re.search(r"MinJobAge +=\s+300 sec", cluster.run("scontrol", "show", "config")), before
    for limit in ("MaxSubmitJobs", "MaxSubmitJobsPerUser"):
        with cluster.limit(**{limit: 1}):
            cluster.sbatch("sleep 600")
            with pytest.raises(subprocess.SubprocessError, match="Job violates accounting/QOS policy"):
                cluster.sbatch("sleep 600")
        cluster.sbatch("sleep 600")
        cluster.cancel_all()


def test_nothing_answers_while_the_daemons_are_away(cluster):
    job = cluster.sbatch("sleep 600")
    state_of(cluster, job, "RUNNING")
    cluster.stop_controller()
    assert cluster.sacct("JobID", jobs=job)[0] == {"JobID": job}
    cluster.stop_accounting()
    for command in (["squeue"], ["sacct"]):
        with pytest.raises(subprocess.SubprocessError, match=r"Unable to contact slurm|Connection refused"):
            cluster.run(*command)
    cluster.start_accounting()
    cluster.start_controller()
    assert cluster.job(job).state == "RUNNING"
