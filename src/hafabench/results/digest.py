"""The SHA-256 of a record's content, which the record contains, so that reading finds whether it was edited.

It is no field of the records themselves, whose content does not include it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import model_validator

from hafabench.config.base import StrictModel

DIGEST = "content_sha256"
"""The key of the SHA-256."""


def content_digest(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a content as JSON with sorted keys, without the digest that it may contain.

    It does not depend on the arrangement of the file.
    """
    others = {key: value for key, value in content.items() if key != DIGEST}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def with_digest(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a file, which JSON can represent, with its digest."""
    plain = json.loads(json.dumps(content))
    return {**plain, DIGEST: content_digest(plain)}


class WithDigest(StrictModel):
    """The content of a file that was written by `with_digest`, or by an earlier version without a digest.

    Attributes:
        content_sha256: None if the content has this SHA-256, or if the file contains none; otherwise the SHA-256 that
            the content had when it was written.
    """

    content_sha256: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _compare_digest(cls, content: Any) -> Any:
        # Reading the file again for this would take as long as validating it.
        if isinstance(content, dict) and content.get(DIGEST) == content_digest(content):
            return {**content, DIGEST: None}
        return content
