"""Provenance as short texts: commit, device, time and digests, as tables and pages show them."""

from __future__ import annotations

from collections.abc import Sequence


def commit_text(
    commit: str | None,
    dirty: bool | None,
    experiment_tracked: bool | None = None,
    version: str | None = None,
    changes: Sequence[str] | None = None,
) -> str | None:
    """Return ``0123456789``, followed by what the commit does not describe.

    Examples are ``0123456789 with local changes`` and ``0123456789 (the experiment file is not tracked)``. Without a
    commit, the text is ``none, hafabench 0.1.0 (not a git checkout)``.

    Args:
        commit: The commit; None if the package did not run from a git checkout.
        dirty: Whether the code differed from the commit.
        experiment_tracked: Whether the experiment file was tracked.
        version: The version of this package.
        changes: The files that differed, if their names are shown.
    """
    if not commit:
        return f"none, hafabench {version} (not a git checkout)" if version else None
    untracked = " (the experiment file is not tracked)" if experiment_tracked is False else ""
    named = f" ({', '.join(changes)})" if changes else ""
    return commit[:10] + (f" with local changes{named}" if dirty else "") + untracked


def device_text(device: str | None, threads: int | None) -> str | None:
    """Return ``cpu, 1 thread``; None for counts, which do not depend on a device."""
    if not device or device == "meta":
        return None
    if threads is None:
        return device
    return f"{device}, {threads} thread{'s' if threads != 1 else ''}"


def started_text(started: str | None) -> str | None:
    """Return ``2026-01-02 03:04 UTC`` from an ISO 8601 time in UTC."""
    return f"{started[:16].replace('T', ' ')} UTC" if started else None


def short_digest(digest: str | None) -> str | None:
    """Return the first 16 digits of a SHA-256, which are enough to tell files apart."""
    return f"sha256 {digest[:16]}…" if digest else None
