"""One real Slurm for the whole session, started by the first test that asks for it and stopped after the last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import SlurmCluster, why_unavailable

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs a cluster, so it runs on request only: ``pytest -m slurm``."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def _session_cluster() -> Iterator[SlurmCluster]:
    reason = why_unavailable(accounting=True)
    if reason:
        pytest.skip(reason)
    with SlurmCluster(accounting=True) as running:
        yield running


@pytest.fixture
def cluster(_session_cluster: SlurmCluster) -> Iterator[SlurmCluster]:
    """The session's cluster with accounting: two nodes of two GPUs and eight CPUs each, idle before and after."""
    yield _session_cluster
    for node in _session_cluster.settings.node_names:
        _session_cluster.node_up(node)
    _session_cluster.cancel_all()
