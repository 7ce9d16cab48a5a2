"""Checks of messages by the facts that they contain, independent of their wording."""

from __future__ import annotations


def missing_facts(message: object, *facts: object) -> list[str]:
    """Return the facts (a file, key, line, number or command) that a message does not contain."""
    return [str(fact) for fact in facts if str(fact) not in str(message)]
