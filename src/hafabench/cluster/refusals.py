"""Why Slurm refuses a submission, from the words of sbatch: for now, or for good.

The texts are those of `slurm_errno.c`, of `sbatch` and of the reasons that limits have
(https://slurm.schedmd.com/job_reason_codes.html), which have hardly changed since release 17.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

# - now: It may be accepted later.
# - good: It will never be accepted.
# - unknown: The words tell neither.
Kind = Literal["now", "good", "unknown"]

# The same request may have reached Slurm, although sbatch reports an error.
_NO_ANSWER = (
    "unable to contact slurm controller",
    "socket timed out",
    "zero bytes were transmitted or received",
    "communication connection failure",
    "communication shutdown failure",
    "connection refused",
    "connection timed out",
    "connection reset",
    "no route to host",
    "network is unreachable",
    "unexpected missing socket",
    "received zero length message",
    "failed to send entire message",
    "can't find an address",
    "temporary failure in name resolution",
    "in standby mode",
    "could not establish a configuration source",
    "unable to status file",
    "no answer within",
)
_FOR_NOW = (
    "unable to create job record, try again",
    "temporarily unable to accept job",
    "job queue full",
    "job creation temporarily disabled",
    "resource temporarily unavailable",
    "currently unable to load job state",
    "required partition not available",
    "required node not available",
    "requested partition configuration not available now",
    "requested nodes are busy",
    "requested reservation is in use",
    "requested reservation not usable now",
    "due to maintenance reservation",
    "requested operation is presently disabled",
    "breached requested qos usage threshold",
    "qosusagethreshold",
    "i/o error writing script/environment to file",
    "error generating job credential",
    "unable to connect to database",
    "database connection reference is invalid",
    "job dependency problem",
    "try again",
    # The authentication service of Slurm is away, or a clock is wrong.
    "failed to connect to authentication agent",
    "munge",
    "protocol authentication error",
    # This machine has no room or no memory.
    "no space left on device",
    "disk quota exceeded",
    "cannot allocate memory",
    "input/output error",
    "stale file handle",
    "too many open files",
)
_FOR_GOOD = (
    "invalid account",
    "invalid partition",
    "no partition specified or system default partition",
    "user's group not permitted to use this partition",
    "requested nodes not in this partition",
    "more processors requested than permitted",
    "node count specification invalid",
    "cpu count specification invalid",
    "requested node configuration is not available",
    "memory required by task is not available",
    "memory specification can not be satisfied",
    "requested time limit is invalid",
    "time limit specification required",
    "invalid time limit",
    "invalid --time",
    "invalid qos",
    "invalid license",
    "invalid feature",
    "invalid constraint",
    "invalid generic resource",
    "invalid gres",
    "invalid trackable resource",
    "invalid job array",
    "invalid node name",
    "invalid user id",
    "duplicate generic resource",
    "requested gres option unsupported",
    "task count specification invalid",
    "task distribution specification invalid",
    "requested more tasks than available processors",
    "requested reservation is invalid",
    "access denied",
    "access/permission denied",
    "permission denied",
    "too long",
    "incompatible versions of client and server code",
    "multiple partition job request not supported",
    "unrecognized option",
    "invalid option",
    "command not found",
    "sbatch: not found",
    "no such file or directory",
)
# Limits of how many jobs may be in Slurm at a time. All other limits that refuse a job refuse it by itself.
_SUBMIT_LIMIT = re.compile(r"\b(assoc|qos)\w*submit\w*")
_OTHER_LIMIT = re.compile(r"\b(assoc(grp|max)|qos(grp|max|min|notallowed|resourcelimit|timelimit))\w*")
_LONGEST = 400
_PREFIX = re.compile(r"^\w+: (error: |fatal: )?")


@dataclass(frozen=True)
class Refusal:
    """The refusal of a submission.

    Attributes:
        words: What Slurm says, in one line.
        kind: Whether the job may be accepted later.
        may_have_submitted: Whether Slurm may have accepted the job nevertheless.
        is_limit: Whether Slurm limits how many jobs may be in it at a time, so that the end of one makes room.
    """

    words: str
    kind: Kind
    may_have_submitted: bool = False
    is_limit: bool = False

    @property
    def is_silence(self) -> bool:
        """Whether Slurm does not answer, so that it would refuse every other job as well."""
        return self.kind == "now" and self.may_have_submitted


def classify(text: str) -> Refusal:
    """Tell what the standard error of sbatch means. Its last line decides, and the others if that one does not."""
    lines = [_PREFIX.sub("", line.strip()) for line in text.splitlines()]
    lines = list(dict.fromkeys(line for line in lines if line))
    words = "; ".join(lines)[:_LONGEST] or "sbatch gives no reason"
    for part in (*lines[-1:], words):
        low = part.lower()
        if any(known in low for known in _NO_ANSWER):
            return Refusal(words, "now", may_have_submitted=True)
        if _SUBMIT_LIMIT.search(low):
            return Refusal(words, "now", is_limit=True)
        if _OTHER_LIMIT.search(low):
            return Refusal(words, "good")
        if any(known in low for known in _FOR_NOW):
            return Refusal(words, "now")
        if any(known in low for known in _FOR_GOOD):
            return Refusal(words, "good")
    return Refusal(words, "unknown", may_have_submitted=True)
