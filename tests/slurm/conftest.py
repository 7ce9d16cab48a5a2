"""A real Slurm for the whole session, which starts with the first test that needs it and stops after the last."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.slurm_jobs import PATIENCE, restore
from tests.support.slurm_workspace import EXPERIMENT, MODEL, Workspace
from tools.slurm_cluster.cluster import SlurmCluster
from tools.slurm_cluster.driver import BIN
from tools.slurm_cluster.machine import why_unavailable

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder with ``slurm``.

    Tests that start their own cluster come first, because a machine can run only one cluster.
    """
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slurm)
    items.sort(key=lambda item: "own_cluster" not in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def session_cluster() -> Iterator[SlurmCluster]:
    """The cluster of the session. Most tests use `cluster` instead."""
    reason = why_unavailable(accounting=True)
    if reason:
        pytest.skip(reason)
    # On SIGTERM, pytest would leave the cluster running.
    before_hangup = signal.signal(signal.SIGHUP, lambda *_: pytest.exit("ended by SIGHUP", returncode=129))
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.exit("ended by SIGTERM", returncode=143))
    with SlurmCluster(nodes=4, accounting=True, patience=PATIENCE) as running:
        yield running
    signal.signal(signal.SIGTERM, before)
    signal.signal(signal.SIGHUP, before_hangup)


@pytest.fixture
def cluster(session_cluster: SlurmCluster) -> Iterator[SlurmCluster]:
    """The session's cluster: accounting, and four nodes with two GPUs and eight CPUs each, without jobs."""
    yield session_cluster
    restore(session_cluster)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, session_cluster: SlurmCluster) -> Workspace:
    """Two runs of the experiment of `Workspace`, trained one after the other without Snakemake or Slurm."""
    workspace = Workspace(tmp_path_factory.mktemp("undisturbed") / "checkout", {})
    trainings = [["train", f"classification/{MODEL}/seed{seed}", "--threads", "1"] for seed in (0, 1)]
    for words in (["data", "prepare", "classification"], *trainings):
        command = [BIN / "hafabench", *words, "--experiment", EXPERIMENT]
        subprocess.run(command, cwd=workspace.folder, check=True, timeout=600)
    return workspace


@pytest.fixture
def workspace(tmp_path: Path, cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose commands talk to the test cluster."""
    for name, value in cluster.env.items():
        if name.startswith("SLURM") or name == "PATH":
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path
